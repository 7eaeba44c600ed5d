//! A web server of the tests' own that stands between Coffer and a store: it sees every request, and may answer itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::tls::Certificates;

/// Longest wait for the next part of a message.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query, percent-encoded.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whoever asks waits for the connection to end: the older protocol.
    is_last: bool,
}

/// What is said to it.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str, headers: Vec<(String, String)>, body: Vec<u8>) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers, body, is_last: false }
    }

    /// The path without the query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().expect("split gives one part")
    }

    /// The path as it is meant: clients differ in what they escape.
    pub(crate) fn decoded_path(&self) -> String {
        decoded(self.path())
    }

    /// A value of the query, decoded.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        let query = self.target.split_once('?')?.1;
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.into_iter().find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
    }

    /// A header's value; names are lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    fn read(stream: &mut impl BufRead) -> std::io::Result<Option<Self>> {
        let Some((first, headers)) = read_head(stream)? else { return Ok(None) };
        let mut words = first.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default().to_owned();
        let is_last = words.next() == Some("HTTP/1.0");
        assert!(header(&headers, "transfer-encoding").is_none(), "a body without a length");
        let len = header(&headers, "content-length").map_or(0, |len| len.parse().expect("a length"));
        let mut body = vec![0; len];
        stream.read_exact(&mut body)?;
        Ok(Some(Self { method, target, headers, body, is_last }))
    }
}

impl Answer {
    /// An answer without headers of its own.
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// With one more header.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    fn write(&self, to: &mut impl Write, is_head: bool) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Said\r\n", self.status);
        for (name, value) in &self.headers {
            // Those of the connection are this server's own business.
            if !["connection", "transfer-encoding", "keep-alive"].contains(&name.as_str())
                && (is_head || name != "content-length")
            {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if !is_head {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        to.write_all(head.as_bytes())?;
        if !is_head {
            to.write_all(&self.body)?;
        }
        to.flush()
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// What stands in an address, without its escapes.
pub(super) fn decoded(key: &str) -> String {
    let mut bytes = key.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        let hex =
            |byte: Option<u8>| char::from(byte.expect("two digits")).to_digit(16).expect("a digit") as u8;
        plain.push(if byte == b'%' { hex(bytes.next()) * 16 + hex(bytes.next()) } else { byte });
    }
    String::from_utf8(plain).expect("a name in UTF-8")
}

/// The first line of a message, and its headers with names in lower case.
type Head = (String, Vec<(String, String)>);

fn read_head(stream: &mut impl BufRead) -> std::io::Result<Option<Head>> {
    let mut first = String::new();
    if stream.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Some((first.trim_end().to_owned(), headers)))
}

/// Sends `request` on to `server` and gives what it says.
pub(crate) fn forward(server: SocketAddr, request: &Request) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // The older protocol, in which an answer ends with its connection and never comes in chunks.
    let mut head = format!("{} {} HTTP/1.0\r\n", request.method, request.target);
    for (name, value) in &request.headers {
        if name != "connection" && name != "content-length" {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", request.body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(&request.body)?;
    let mut stream = BufReader::new(stream);
    let (first, headers) = read_head(&mut stream)?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let mut body = Vec::new();
    if request.method != "HEAD" {
        stream.read_to_end(&mut body)?;
    }
    Ok(Answer { status, headers, body })
}

type Handler = dyn Fn(Request) -> Answer + Send + Sync;

/// How a relay is spoken to.
#[derive(Clone)]
enum Speech {
    Plain,
    /// TLS from the first byte.
    Tls(Arc<ServerConfig>),
    /// As a proxy, which is asked to connect to somebody and then is that somebody itself, in TLS.
    Proxy(Arc<ServerConfig>),
}

/// The server. Dropping it closes its door.
pub(crate) struct Relay {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    is_over: Arc<AtomicBool>,
}

impl Relay {
    /// One that answers by `handler`.
    pub(crate) fn start(handler: impl Fn(Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::speaking(Speech::Plain, handler)
    }

    /// One that speaks TLS.
    pub(crate) fn start_tls(
        certificates: &Certificates,
        handler: impl Fn(Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::speaking(Speech::Tls(certificates.server()), handler)
    }

    /// One that is a proxy and answers for every server behind it.
    pub(crate) fn start_proxy(
        certificates: &Certificates,
        handler: impl Fn(Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::speaking(Speech::Proxy(certificates.server()), handler)
    }

    fn speaking(speech: Speech, handler: impl Fn(Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (seen, is_over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let handler: Arc<Handler> = Arc::new(handler);
        let (log, over) = (Arc::clone(&seen), Arc::clone(&is_over));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let (handler, log, speech) = (Arc::clone(&handler), Arc::clone(&log), speech.clone());
                std::thread::spawn(move || serve(stream, &speech, &*handler, &log));
            }
        });
        Self { address, seen, is_over }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://` and where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far, without their bodies.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("nobody panicked").clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, speech: &Speech, handler: &Handler, log: &Mutex<Vec<Request>>) {
    let _ = stream.set_nodelay(true);
    match speech {
        Speech::Plain => talk(stream, handler, log),
        Speech::Tls(config) => talk(in_tls(stream, config), handler, log),
        Speech::Proxy(config) => {
            let mut stream = BufReader::new(stream);
            let Ok(Some(request)) = Request::read(&mut stream) else { return };
            assert_eq!(request.method, "CONNECT", "{}", request.target);
            let connected = Answer::new(200, "").write(stream.get_mut(), true);
            if connected.is_ok() {
                talk(in_tls(stream.into_inner(), config), handler, log);
            }
        }
    }
}

fn in_tls(stream: TcpStream, config: &Arc<ServerConfig>) -> StreamOwned<ServerConnection, TcpStream> {
    let connection = ServerConnection::new(Arc::clone(config)).expect("a TLS connection");
    StreamOwned::new(connection, stream)
}

/// Answers the requests of one connection, until it ends.
fn talk(stream: impl Read + Write, handler: &Handler, log: &Mutex<Vec<Request>>) {
    let mut stream = BufReader::new(stream);
    while let Ok(Some(request)) = Request::read(&mut stream) {
        let (is_head, is_last) = (request.method == "HEAD", request.is_last);
        log.lock().expect("nobody panicked").push(Request { body: Vec::new(), ..request.clone() });
        let answer = handler(request);
        if answer.write(stream.get_mut(), is_head).is_err() || is_last {
            break;
        }
    }
}
