//! Stores that are away, refuse or do not know the bucket: a web server that says only one thing.

use std::io::{Read, Write};
use std::net::TcpListener;

use coffer::cli::exit::Exit;

use crate::support::{Bench, Ended};

/// Runs `coffer ls` against an S3 server that answers every request with `answer`.
fn list_from(endpoint: &str) -> Ended {
    let bench = Bench::new();
    let mut command =
        bench.command(&["ls", "--read-timeout", "2s", "--endpoint", endpoint, "s3://bucket/prefix"]);
    command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "hunter2").env("AWS_REGION", "r");
    let ended = Ended::of(command.output().unwrap());
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    ended
}

fn server(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                request.push(byte[0]);
            }
            let length = body.len();
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

#[test]
fn that_no_account_is_named_is_a_matter_of_credentials() {
    let bench = Bench::new();
    bench
        .run(&["ls", "--passphrase-file", "right", "az://container/volume"])
        .refused(Exit::AccessDenied, "no account is named: set AZURE_STORAGE_CONNECTION_STRING");
}

#[test]
fn refused_credentials_are_told() {
    let endpoint = server("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>");
    list_from(&endpoint).refused(Exit::AccessDenied, "denied");
}

#[test]
fn a_bucket_that_does_not_exist_is_told() {
    let endpoint = server("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>");
    list_from(&endpoint).refused(Exit::BucketMissing, "s3://bucket/prefix");
}

#[test]
fn a_store_that_does_not_answer_is_told_after_the_time_allowed() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    list_from(&format!("http://{gone}")).refused(Exit::StoreUnreachable, "s3://bucket/prefix");
    let endpoint = server("503 Service Unavailable", "");
    list_from(&endpoint).refused(Exit::StoreUnreachable, "s3://bucket/prefix");
}

#[test]
fn faults_on_purpose_are_met_and_a_plan_that_is_none_is_refused() {
    let bench = Bench::new();
    let (directory, faults) = (bench.path("faulty"), ["--read-timeout", "1s", "--fault"]);
    std::fs::create_dir(&directory).unwrap();
    let list = |plan: &str| {
        let all = [&["ls"], &faults[..], &[plan, directory.to_str().unwrap()]].concat();
        Ended::of(bench.command(&all).output().unwrap())
    };
    list("seed=1").refused(Exit::NoVolume, "there is no volume");
    list("throttle=1:list:header").refused(Exit::StoreUnreachable, "503");
    list("explode=1").refused(Exit::Usage, "explode=1");
}

/// Told of at its end, with the object's sealed name.
#[test]
fn every_request_is_in_the_log_of_who_asks_for_that() {
    let bench = Bench::with_volume();
    let requests = |verbose: &str| {
        let ended = bench.run(&["ls", verbose, "--passphrase-file", "right", "./vol"]);
        let log = ended.stderr.clone();
        ended.ok();
        let lines = log.lines().filter(|line| line.contains("store::request_log: request"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(requests("-v"), [""; 0]);
    let told = requests("-vv");
    for part in [r#"verb="get" object=header/1 bytes="#, r#"verb="list" object=header/ took="#, "object=m/"] {
        assert!(told.iter().any(|line| line.contains(part)), "{part} of {told:#?}");
    }
    assert!(told.iter().all(|line| line.contains(" took=")), "{told:#?}");
}
