//! Storage servers on this machine, on free ports, ended with the test that started them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::command::{run, tail};

const READY_WITHIN: Duration = Duration::from_secs(60);
const START_ATTEMPTS: u32 = 3;

/// One server process. Dropping it ends the process by its own id.
pub(crate) struct Server {
    child: Child,
    make: Box<dyn Fn() -> Command + Send>,
    log: PathBuf,
    probe: SocketAddr,
    /// What `coffer` needs in its environment to reach it.
    pub(crate) env: Vec<(&'static str, String)>,
    /// The URL of an empty bucket.
    pub(crate) url: String,
    litter: Vec<PathBuf>,
    /// What stands before the server, if Coffer does not speak to it itself.
    pub(super) relay: Option<super::relay::Relay>,
    dir: tempfile::TempDir,
}

impl Server {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.probe
    }

    /// Where what stands before it listens.
    pub(crate) fn relay_address(&self) -> SocketAddr {
        self.relay.as_ref().expect("a relay").address()
    }

    /// Where it keeps what it keeps; gone with it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends the process at once, as a power cut would; [`Server::start_again`] brings it back on its old port and data.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts the killed server again and waits until it answers.
    pub(crate) fn start_again(&mut self) {
        self.child = (self.make)().spawn().expect("the server starts again");
        assert!(
            answers_in_time(&mut self.child, self.probe),
            "the server does not come back\n{}",
            self.said()
        );
    }

    /// Freezes the server: it still takes connections and answers nobody.
    pub(crate) fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Ends [`Server::freeze`].
    pub(crate) fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .expect("signal the server");
    }

    fn said(&self) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), 40)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SeaweedFS takes 25 s to leave politely, and nothing it holds is wanted any more.
        self.kill();
        for path in &self.litter {
            let _ = std::fs::remove_file(path);
        }
    }
}

pub(crate) const S3_KEY: &str = "coffertest";
pub(crate) const S3_SECRET: &str = "coffertestsecret";

/// Other keys of the same user, to change to.
pub(crate) const S3_NEXT_KEY: &str = "coffertestnext";
pub(crate) const S3_NEXT_SECRET: &str = "coffertestnextsecret";

/// SeaweedFS with its S3 gateway and one empty bucket.
pub(crate) fn seaweedfs() -> Server {
    let binary = tool("seaweedfs/bin/weed");
    let mut server = start(|dir, ports| {
        let [master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc] = ports;
        std::fs::create_dir_all(dir.join("data")).expect("a data directory");
        let identities = format!(
            r#"{{"identities":[{{"name":"coffer","credentials":[{{"accessKey":"{S3_KEY}","secretKey":"{S3_SECRET}"}},{{"accessKey":"{S3_NEXT_KEY}","secretKey":"{S3_NEXT_SECRET}"}}],"actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
        );
        std::fs::write(dir.join("s3.json"), identities).expect("the identities");
        let args = vec![
            "-logtostderr=true".to_owned(),
            "server".to_owned(),
            "-ip=127.0.0.1".to_owned(),
            "-ip.bind=127.0.0.1".to_owned(),
            format!("-dir={}/data", dir.display()),
            "-master.telemetry=false".to_owned(),
            "-master.volumeSizeLimitMB=256".to_owned(),
            "-master.electionTimeout=1s".to_owned(),
            format!("-master.port={master}"),
            format!("-master.port.grpc={master_grpc}"),
            format!("-volume.port={volume}"),
            format!("-volume.port.grpc={volume_grpc}"),
            "-volume.max=100".to_owned(),
            "-filer".to_owned(),
            format!("-filer.port={filer}"),
            format!("-filer.port.grpc={filer_grpc}"),
            format!("-filer.localSocket={}/filer.sock", dir.display()),
            "-s3".to_owned(),
            format!("-s3.port={s3}"),
            format!("-s3.port.grpc={s3_grpc}"),
            "-s3.port.iceberg=0".to_owned(),
            "-s3.port.lance=0".to_owned(),
            format!("-s3.localSocket={}/s3.sock", dir.display()),
            format!("-s3.config={}/s3.json", dir.display()),
        ];
        // It has no setting for these, and leaves them behind.
        let sockets =
            [("master", master_grpc), ("volume", volume_grpc), ("filer", filer_grpc), ("s3", s3_grpc)];
        let litter =
            sockets.map(|(part, port)| PathBuf::from(format!("/tmp/seaweedfs-{part}-grpc-{port}.sock")));
        Plan { program: binary.clone(), args, port: s3, litter: litter.to_vec() }
    });
    let endpoint = format!("http://{}", server.probe);
    s3_request(&["-X", "PUT", &format!("{endpoint}/coffer")]);
    // The first object of a bucket makes the server allot volumes; that wait belongs here and not to a test.
    let any = server.log.with_file_name("s3.json");
    s3_request(&["-T", &any.to_string_lossy(), &format!("{endpoint}/coffer/warm")]);
    s3_request(&["-X", "DELETE", &format!("{endpoint}/coffer/warm")]);
    server.env = s3_environment(endpoint);
    server.url = "s3://coffer/volume".to_owned();
    server
}

fn s3_request(args: &[&str]) {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail-with-body", "--max-time", "60", "--aws-sigv4", "aws:amz:us-east-1:s3"]);
    curl.arg("--user").arg(format!("{S3_KEY}:{S3_SECRET}")).args(args);
    run(curl).ok();
}

/// s3s-fs, which keeps objects as files: an S3 server that loses races between writers who both say «only if absent».
pub(crate) fn s3s_fs() -> Server {
    let program = tool("bin/s3s-fs");
    let mut server = start(|dir, ports| {
        std::fs::create_dir_all(dir.join("data/coffer")).expect("the bucket's directory");
        let args = ["--host", "127.0.0.1", "--access-key", S3_KEY, "--secret-key", S3_SECRET, "--port"];
        let mut args: Vec<String> = args.map(str::to_owned).to_vec();
        args.extend([ports[0].to_string(), format!("{}/data", dir.display())]);
        Plan { program: program.clone(), args, port: ports[0], litter: Vec::new() }
    });
    server.env = s3_environment(format!("http://{}", server.probe));
    server.url = "s3://coffer/volume".to_owned();
    server
}

/// What names an S3 server at `endpoint` and the keys that the tests' servers know.
pub(crate) fn s3_environment(endpoint: String) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", S3_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", S3_SECRET.to_owned()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ]
}

/// The account and key that every Azure emulator has, printed in its documentation.
pub(crate) const AZURE_ACCOUNT: &str = "devstoreaccount1";
pub(crate) const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Azurite, holding everything in memory, with one empty container.
pub(crate) fn azurite() -> Server {
    let script = tool("azurite/node_modules/azurite/dist/src/blob/main.js");
    let mut server = start(|_, ports| {
        let args = vec![
            script.to_string_lossy().into_owned(),
            "--blobHost".to_owned(),
            "127.0.0.1".to_owned(),
            "--blobPort".to_owned(),
            ports[0].to_string(),
            "--inMemoryPersistence".to_owned(),
            "--skipApiVersionCheck".to_owned(),
            "--disableTelemetry".to_owned(),
            "--silent".to_owned(),
        ];
        Plan { program: PathBuf::from("node"), args, port: ports[0], litter: Vec::new() }
    });
    create_container(server.probe, "coffer");
    let env = vec![
        ("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT.to_owned()),
        ("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY.to_owned()),
        ("AZURE_STORAGE_ENDPOINT", format!("http://{}/{AZURE_ACCOUNT}", server.probe)),
        ("AZURE_ALLOW_HTTP", "true".to_owned()),
    ];
    server.env = env;
    server.url = "az://coffer/volume".to_owned();
    server
}

/// Creates a container with a Shared Key request, which is the one thing about it that Coffer itself never does.
fn create_container(server: SocketAddr, name: &str) {
    let date = http_date();
    let headers = format!("x-ms-date:{date}\nx-ms-version:2021-08-06");
    let resource = format!("/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{name}\nrestype:container");
    // Verb, then eleven empty standard headers, then the x-ms headers and the resource.
    let to_sign = format!("PUT\n\n\n\n\n\n\n\n\n\n\n\n{headers}\n{resource}");
    let base64 = data_encoding::BASE64;
    let key = base64.decode(AZURE_KEY.as_bytes()).expect("the key is base64");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
    let signature = base64.encode(aws_lc_rs::hmac::sign(&key, to_sign.as_bytes()).as_ref());
    let request = format!(
        "PUT /{AZURE_ACCOUNT}/{name}?restype=container HTTP/1.1\r\nHost: {server}\r\nx-ms-date: {date}\r\n\
         x-ms-version: 2021-08-06\r\nAuthorization: SharedKey {AZURE_ACCOUNT}:{signature}\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let answer = http(server, &request).expect("the server answers");
    assert!(answer.starts_with("HTTP/1.1 201"), "no container: {answer}");
}

fn http_date() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs();
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").args(["-u", "-d", &format!("@{now}"), "+%a, %d %b %Y %H:%M:%S GMT"]);
    run(date).ok().text().trim().to_owned()
}

pub(super) struct Plan {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) port: u16,
    /// What the server leaves outside its own directory.
    pub(super) litter: Vec<PathBuf>,
}

/// Starts a server on free ports. Between finding a port free and the server taking it another may come first, so a
/// server that ends at once is tried again on others.
pub(super) fn start(plan: impl Fn(&Path, [u16; 8]) -> Plan) -> Server {
    let mut said = String::new();
    for _ in 0..START_ATTEMPTS {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let Plan { program, args, port, litter } = plan(dir.path(), free_ports());
        let log = dir.path().join("log");
        let (log_of_child, dir_of_child) = (log.clone(), dir.path().to_owned());
        let make = move || {
            let log = File::options().create(true).append(true).open(&log_of_child).expect("a log file");
            let mut command = Command::new(&program);
            command.args(&args).current_dir(&dir_of_child).stdin(Stdio::null());
            command.stdout(log.try_clone().expect("dup")).stderr(log);
            command
        };
        let child = make().spawn().expect("the server starts");
        let probe = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (env, url) = (Vec::new(), String::new());
        let make = Box::new(make);
        let mut server = Server { child, make, log, probe, env, url, litter, relay: None, dir };
        if answers_in_time(&mut server.child, probe) {
            return server;
        }
        said = server.said();
    }
    panic!("the server does not start; the last attempt said:\n{said}");
}

/// Whether the server answers HTTP before it ends or the time is up. Any answer will do: it shows that it listens.
fn answers_in_time(child: &mut Child, probe: SocketAddr) -> bool {
    let start = Instant::now();
    let request = format!("GET /status HTTP/1.1\r\nHost: {probe}\r\nConnection: close\r\n\r\n");
    let mut ready = false;
    super::command::wait_until("the server answers or ends", READY_WITHIN * 2, || {
        ready = http(probe, &request).is_ok_and(|answer| answer.starts_with("HTTP/1.1 "));
        ready || start.elapsed() > READY_WITHIN || !matches!(child.try_wait(), Ok(None))
    });
    ready
}

fn http(server: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// How many ports this process has looked at.
static PORTS_TRIED: AtomicU16 = AtomicU16::new(0);

/// Ports nobody listens on, below those the kernel hands to outgoing connections; none twice within a process, because
/// whoever has been given one takes a while to listen.
fn free_ports() -> [u16; 8] {
    let mut held = Vec::new();
    let spread = (std::process::id() as u16).wrapping_mul(37) % 10_000;
    for _ in 0..10_000 {
        let step = PORTS_TRIED.fetch_add(1, Ordering::Relaxed) % 10_000;
        let port = 20_000 + (spread + step) % 10_000;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, listener));
        }
        if held.len() == 8 {
            break;
        }
    }
    let ports: Vec<u16> = held.iter().map(|(port, _)| *port).collect();
    ports.try_into().expect("eight free ports")
}

/// A program that `scripts/deps` has put below the target directory.
pub(crate) fn tool(path: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    let tool = target.join("tools").join(path);
    assert!(tool.exists(), "{} is missing: run scripts/deps", tool.display());
    tool
}

#[test]
fn no_port_is_handed_out_twice() {
    let asking: Vec<_> =
        (0..4).map(|_| std::thread::spawn(|| [free_ports(), free_ports()].concat())).collect();
    let mut ports: Vec<u16> = asking.into_iter().flat_map(|asked| asked.join().unwrap()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 4 * 2 * 8);
}
