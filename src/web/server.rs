//! The HTTP server: few connections, short ones, one request each.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::guard::{Asked, admit};
use crate::base::{Entropy, OsEntropy};

/// Connections at a time; further ones wait at the door.
const CONNECTIONS_MAX: usize = 16;
/// How long a client may take to ask.
const ASKING: Duration = Duration::from_secs(5);
/// How long a connection may last in all.
const CONNECTION: Duration = Duration::from_secs(15);
/// Longest request, without a body: bodies are not read.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// Pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(500);

/// The page. `NONCE` in it becomes what the policy allows scripts and styles by.
const PAGE: &str = include_str!("page.html");
const NONCE: &str = "%NONCE%";

/// Where the figures come from.
pub trait Source: Send + Sync + 'static {
    /// As `coffer status --json` shows them of one mount.
    fn status(&self) -> Value;
    /// In the text format of Prometheus.
    fn metrics(&self) -> String;
}

/// A port that is held, before anybody is answered there.
#[derive(Debug)]
pub struct Door(StdListener);

/// A server that answers until it is dropped.
#[derive(Debug)]
pub struct Server(JoinHandle<()>);

impl Door {
    /// Holds the port.
    ///
    /// # Errors
    /// The system's: most likely somebody else has it.
    pub fn hold(address: SocketAddr) -> io::Result<Self> {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// Where that is; the port too if any was asked for.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Begins to answer, on the current runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn open(self, source: Arc<dyn Source>) -> io::Result<Server> {
        let listener = TcpListener::from_std(self.0)?;
        Ok(Server(tokio::spawn(listen(listener, source))))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn listen(listener: TcpListener, source: Arc<dyn Source>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let source = Arc::clone(&source);
                tokio::spawn(async move {
                    converse(stream, source).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the page of figures cannot accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, source: Arc<dyn Source>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request, &*source);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASKING)
        .keep_alive(false)
        .max_buf_size(REQUEST_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "somebody who asked for figures broke off"),
        Err(_) => tracing::debug!("somebody who asked for figures was too slow"),
    }
}

fn answer<B>(request: &Request<B>, source: &dyn Source) -> Response<Full<Bytes>> {
    let policy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    match admit(request) {
        Ok(Asked::Metrics) => {
            respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", policy, source.metrics())
        }
        Ok(Asked::Status) => {
            let text = format!("{:#}\n", without_paths(source.status()));
            respond(StatusCode::OK, "application/json", policy, text)
        }
        Ok(Asked::Page) => {
            let nonce = nonce();
            let policy = format!(
                "{policy}; connect-src 'self'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
            );
            respond(StatusCode::OK, "text/html; charset=utf-8", &policy, PAGE.replace(NONCE, &nonce))
        }
        Err(status) => {
            let text = format!("{}\n", status.canonical_reason().unwrap_or("refused"));
            let mut response = respond(status, "text/plain; charset=utf-8", policy, text);
            if status == StatusCode::METHOD_NOT_ALLOWED {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            }
            response
        }
    }
}

/// The status without names of files, which it tells to the mount's owner only.
fn without_paths(mut status: Value) -> Value {
    if let Some(rescue) = status.pointer_mut("/volume/rescue").and_then(Value::as_object_mut) {
        rescue.remove("paths");
        rescue.remove("error");
    }
    status
}

fn nonce() -> String {
    let mut bytes = [0; 16];
    OsEntropy.fill(&mut bytes);
    data_encoding::BASE64.encode(&bytes)
}

fn respond(status: StatusCode, kind: &'static str, policy: &str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(policy) = HeaderValue::from_str(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Fake;

    impl Source for Fake {
        fn status(&self) -> Value {
            json!({ "volume": { "is_safe": true, "rescue": { "files": 1, "paths": ["secret/plan"], "error": "secret" } } })
        }
        fn metrics(&self) -> String {
            "coffer_safe 1\n".to_owned()
        }
    }

    async fn said(door: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(door).await.unwrap();
        // It may hang up before it has taken all of an overlong request.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn opened() -> (Server, SocketAddr) {
        let door = Door::hold("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = door.address().unwrap();
        (door.open(Arc::new(Fake)).unwrap(), address)
    }

    #[tokio::test]
    async fn figures_are_given_and_names_of_files_are_not() {
        let (_server, address) = opened();
        let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let metrics = said(address, ask("/metrics").as_bytes()).await;
        assert!(
            metrics.starts_with("HTTP/1.1 200 ") && metrics.ends_with("\r\n\r\ncoffer_safe 1\n"),
            "{metrics}"
        );
        let status = said(address, ask("/status.json").as_bytes()).await;
        assert!(status.contains("\"files\": 1") && !status.contains("secret"), "{status}");
        let page = said(address, ask("/").as_bytes()).await;
        let (_, policy) = page.split_once("script-src 'nonce-").unwrap();
        let nonce = policy.split('\'').next().unwrap();
        assert!(page.contains(&format!("<script nonce=\"{nonce}\">")), "the page's own script may run");
        assert!(!page.contains(NONCE) && page.contains("connect-src 'self'"));
        assert_ne!(page, said(address, ask("/").as_bytes()).await, "no nonce is given twice");
    }

    #[tokio::test]
    async fn what_is_too_large_or_no_request_is_turned_away() {
        let (_server, address) = opened();
        let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(20_000));
        let answer = said(address, long.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        let many = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "a: b\r\n".repeat(100));
        let answer = said(address, many.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        for nonsense in [&b"\x16\x03\x01 hello\r\n\r\n"[..], b"GET\r\n\r\n", b"\r\n\r\n\0"] {
            let answer = said(address, nonsense).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
        }
        assert!(
            said(address, b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .await
                .contains("coffer_safe 1")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_ask_does_not_keep_others_from_asking() {
        let (_server, address) = opened();
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = said(address, b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(answer.contains("coffer_safe 1"), "{answer}");
    }
}
