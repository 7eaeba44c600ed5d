//! The stores that Coffer is run against, each through the whole suite.

use coffer::store::{self, Bucket, StoreOptions};
use futures::TryStreamExt;
use object_store::ObjectStore;

use crate::conformance::{self, Traits};
use crate::support::servers::{self, Server};
use crate::support::{google, seed};

/// A bucket below a prefix of its own, on `server`.
pub(crate) fn bucket_on(server: &Server, prefix: &str) -> Bucket {
    let environment = server.env.iter().map(|(name, value)| (*name, value.clone())).collect();
    let options = StoreOptions { environment, ..StoreOptions::default() };
    store::open(&format!("{}/{prefix}", server.url), &options).unwrap()
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// How many files there are below a directory: of a bucket that is one, how many objects.
pub(crate) fn files_below(directory: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}

/// The names of all objects below the server's URL.
pub(crate) fn objects_of(server: &Server) -> Vec<String> {
    let environment = server.env.iter().map(|(name, value)| (*name, value.clone())).collect();
    let options = StoreOptions { environment, ..StoreOptions::default() };
    let bucket = store::open(&server.url, &options).unwrap();
    run(bucket.objects.list(None).map_ok(|entry| entry.location.to_string()).try_collect()).unwrap()
}

fn keeps_every_promise(server: &Server, traits: Traits) {
    // A prefix with all that the providers allow in names, and as long as Coffer lets it be.
    let prefix = format!("Tests of «Coffer» & more/{}", "p".repeat(200));
    run(conformance::all(&bucket_on(server, &prefix), traits, seed("conformance")));
}

#[test]
fn memory_keeps_every_promise() {
    run(conformance::all(&Bucket::memory(), Traits { is_ordered: true }, seed("conformance")));
}

#[test]
fn a_local_directory_keeps_every_promise() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = store::open(directory.path().to_str().unwrap(), &StoreOptions::default()).unwrap();
    run(conformance::all(&bucket, Traits { is_ordered: false }, seed("conformance")));
}

#[test]
fn s3_by_seaweedfs_keeps_every_promise() {
    keeps_every_promise(&servers::seaweedfs(), Traits { is_ordered: true });
}

#[test]
fn azure_by_azurite_keeps_every_promise() {
    keeps_every_promise(&servers::azurite(), Traits { is_ordered: true });
}

#[test]
fn google_by_fake_gcs_server_keeps_every_promise() {
    keeps_every_promise(&google::fake_gcs(), Traits { is_ordered: true });
}

/// All but one: see `races`.
#[test]
fn s3_by_s3s_fs_keeps_every_promise_but_that_of_races() {
    let server = servers::s3s_fs();
    let bucket = bucket_on(&server, "prefix");
    run(conformance::all_but_races(&bucket, Traits { is_ordered: false }, seed("conformance")));
}
