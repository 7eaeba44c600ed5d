//! What flags change in the requests that a store gets.

use std::sync::Arc;

use coffer::base::{Ino, OsEntropy};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewVolume};
use coffer::store::{self, Addressing, Bucket, StoreOptions};
use coffer::vfs::Caller;
use coffer::volume::{self, NewVolumeSpec, OpenOptions};

use crate::backends::run;
use crate::support::google;
use crate::support::relay::{Answer, Relay, Request, forward};
use crate::support::servers::{self, Server};
use crate::support::tls::Certificates;
use crate::user::User;

fn options(env: &[(&'static str, String)]) -> StoreOptions {
    let environment = env.iter().map(|(name, value)| (*name, value.clone())).collect();
    StoreOptions { environment, ..StoreOptions::default() }
}

fn factors() -> [Factor; 1] {
    [Factor::KeyFile(Secret::new(b"the key file of the tests of requests".to_vec()))]
}

async fn make_a_volume(bucket: &Bucket) {
    let header = NewVolume { compression: Compression::None, kdf_cost: KdfCost::Fixed { log_n: 15 } };
    let spec = NewVolumeSpec { header, quota_bytes: 0, owner: (0, 0) };
    let clock = Arc::new(coffer::base::SystemClock::default());
    volume::create(bucket, &spec, &factors(), Arc::new(OsEntropy), clock).await.unwrap();
}

/// Makes a volume, writes a file of several blocks into it, and commits.
async fn use_a_volume(bucket: &Bucket) {
    make_a_volume(bucket).await;
    let opened = volume::open(bucket.clone(), &factors(), OpenOptions::default()).await.unwrap();
    let caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };
    let file = opened.vfs.create(&caller, Ino::ROOT, b"file", 0o644, true).await.unwrap();
    opened.vfs.write(file.ino, 0, &[7; 300_000], true).await.unwrap();
    opened.close().await.unwrap();
}

/// The classes that segments, and all other objects, were written with. What tries whether the store knows the class
/// is written as segments are.
fn classes(relay: &Relay, header: &str) -> (Vec<Option<String>>, Vec<Option<String>>) {
    let puts = relay.seen().into_iter().filter(|request| request.method == "PUT");
    let puts = puts.filter(|request| !request.decoded_path().contains("/volume/probe/class-"));
    let (segments, others): (Vec<_>, Vec<_>) =
        puts.partition(|request| request.decoded_path().contains("/volume/d/"));
    let class = |request: Request| request.header(header).map(str::to_owned);
    (segments.into_iter().map(class).collect(), others.into_iter().map(class).collect())
}

fn only_segments_are_cold(relay: &Relay, bucket: &Bucket, header: &str, class: &str) {
    run(use_a_volume(bucket));
    let (segments, others) = classes(relay, header);
    assert!(!segments.is_empty() && others.len() > 3, "{segments:?} {others:?}");
    assert!(segments.iter().all(|found| found.as_deref() == Some(class)), "{segments:?}");
    assert!(others.iter().all(Option::is_none), "{others:?}");
}

fn through(server: &Server) -> Relay {
    let backend = server.address();
    Relay::start(move |request| forward(backend, &request).unwrap())
}

#[test]
fn a_storage_class_is_that_of_segments_and_of_nothing_else_in_s3() {
    let server = servers::seaweedfs();
    let relay = through(&server);
    let mut given = options(&servers::s3_environment(relay.url()));
    given.storage_class = Some("STANDARD_IA".to_owned());
    let bucket = store::open(&server.url, &given).unwrap();
    only_segments_are_cold(&relay, &bucket, "x-amz-storage-class", "STANDARD_IA");
}

#[test]
fn a_storage_class_is_that_of_segments_and_of_nothing_else_in_google() {
    let server = google::fake_gcs();
    let backend = server.relay_address();
    let relay = Relay::start(move |request| forward(backend, &request).unwrap());
    let mut given = options(&[("STORAGE_EMULATOR_HOST", relay.url())]);
    given.storage_class = Some("NEARLINE".to_owned());
    let bucket = store::open(&server.url, &given).unwrap();
    only_segments_are_cold(&relay, &bucket, "x-goog-storage-class", "NEARLINE");
}

#[test]
fn a_storage_class_is_that_of_segments_and_of_nothing_else_in_azure() {
    let server = servers::azurite();
    let relay = through(&server);
    let mut given = options(&server.env);
    given.endpoint = Some(format!("{}/{}", relay.url(), servers::AZURE_ACCOUNT));
    given.storage_class = Some("Cool".to_owned());
    let bucket = store::open(&server.url, &given).unwrap();
    only_segments_are_cold(&relay, &bucket, "x-ms-access-tier", "Cool");
}

#[test]
fn a_class_that_cannot_be_read_at_once_is_refused() {
    let refused = |url: &str, class: &str| {
        let given = StoreOptions { storage_class: Some(class.to_owned()), ..options(&[]) };
        store::open(url, &given).unwrap_err().to_string()
    };
    assert!(refused("s3://b", "DEEP_ARCHIVE").contains("until they are restored"));
    assert!(refused("az://b", "archive").contains("until they are restored"));
    assert!(refused("memory:", "STANDARD").contains("storage classes are for"));
}

/// s3s-fs knows one class. Without a trial each segment would wait for the day when it knows another.
#[test]
fn a_class_that_the_store_does_not_know_is_refused_before_anything_waits_for_it() {
    let server = servers::s3s_fs();
    let mut user = User::new();
    user.set_all(&server.env);
    let told = user.probe(&server.url, &["--storage-class", "STANDARD_IA"]);
    told.fails(2, "the store refuses the storage class STANDARD_IA");
    let mut given = options(&server.env);
    run(make_a_volume(&store::open(&server.url, &given).unwrap()));
    given.storage_class = Some("STANDARD_IA".to_owned());
    let bucket = store::open(&server.url, &given).unwrap();
    let refused = run(volume::open(bucket, &factors(), OpenOptions::default()));
    let error = refused.err().unwrap().to_string();
    assert!(error.contains("InvalidStorageClass"), "{error}");
}

/// A proxy sees the whole address that a request is for.
#[test]
fn the_buckets_name_stands_where_it_is_wanted() {
    let proxy = Relay::start(|_| Answer::new(404, "<Error><Code>NoSuchBucket</Code></Error>"));
    let mut env = servers::s3_environment("http://s3.test".to_owned());
    env.push(("AWS_PROXY_URL", proxy.url()));
    for addressing in [None, Some(Addressing::Path), Some(Addressing::Virtual)] {
        let given = StoreOptions { addressing, ..options(&env) };
        let bucket = store::open("s3://bucket/prefix", &given).unwrap();
        assert!(run(bucket.probe()).is_err());
    }
    let hosts: Vec<String> = proxy.seen().iter().map(|request| request.target.clone()).collect();
    let starts: Vec<bool> =
        hosts.iter().map(|target| target.starts_with("http://s3.test/bucket/prefix/")).collect();
    assert_eq!(starts, [true, true, false], "{hosts:?}");
    assert!(hosts[2].starts_with("http://bucket.s3.test/prefix/"), "{hosts:?}");
}

#[test]
fn what_is_sent_is_signed_unless_told_otherwise() {
    let server = servers::s3s_fs();
    let relay = through(&server);
    let signed = |unsigned_payload: bool| {
        let given = StoreOptions { unsigned_payload, ..options(&servers::s3_environment(relay.url())) };
        let bucket = store::open(&server.url, &given).unwrap();
        run(bucket.probe()).unwrap();
        let put = relay.seen().into_iter().rfind(|request| request.method == "PUT").unwrap();
        put.header("x-amz-content-sha256").unwrap() != "UNSIGNED-PAYLOAD"
    };
    assert!(signed(false));
    assert!(!signed(true));
}

fn tls_before(server: &Server, certificates: &Certificates) -> Relay {
    let backend = server.address();
    Relay::start_tls(certificates, move |request| forward(backend, &request).unwrap())
}

#[test]
fn an_authority_of_ones_own_is_trusted_where_it_is_named_and_nowhere_else() {
    let server = servers::s3s_fs();
    let certificates = Certificates::new();
    let relay = tls_before(&server, &certificates);
    let endpoint = format!("https://{}", relay.address());
    let mut user = User::new();
    user.set_all(&servers::s3_environment(endpoint));
    let ca = certificates.authority.to_string_lossy().into_owned();
    user.probe(&server.url, &["--ca-file", &ca]).lets_in("keys in the environment");
    user.probe(&server.url, &["--read-timeout", "2s"]).fails(17, "cannot be reached");
    let other = Certificates::new();
    let wrong = other.authority.to_string_lossy().into_owned();
    user.probe(&server.url, &["--ca-file", &wrong, "--read-timeout", "2s"]).fails(17, "cannot be reached");
    let none = user.file("none", "not a certificate");
    user.probe(&server.url, &["--ca-file", &none]).fails(2, "there is none in PEM form");
    user.probe(&server.url, &["--ca-file", "no-such-file"])
        .fails(2, "hint: name a file of certificates in PEM form");
    user.set("COFFER_CA_FILE", ca);
    user.probe(&server.url, &[]).lets_in("keys in the environment");
}
