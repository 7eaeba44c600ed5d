//! Listings that a server cuts into pages of its own: nothing is lost or seen twice where one ends.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use coffer::store::{self, Bucket, StoreOptions};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;

use crate::backends::{bucket_on, run};
use crate::conformance::create;
use crate::support::google;
use crate::support::relay::{Relay, Request, forward};
use crate::support::servers::{self, Server};

/// Requests under way at once.
const WIDTH: usize = 32;

/// How a server is asked for a page, and for the one after it.
struct Dialect {
    page: &'static str,
    next: &'static str,
    /// Names in a page.
    page_objects: usize,
}

const S3: Dialect = Dialect { page: "list-type", next: "continuation-token", page_objects: 1000 };
const AZURE: Dialect = Dialect { page: "comp", next: "marker", page_objects: 5000 };

fn through(seen_at: SocketAddr) -> Relay {
    Relay::start(move |request| forward(seen_at, &request).unwrap())
}

fn options(env: &[(&'static str, String)]) -> StoreOptions {
    let environment = env.iter().map(|(name, value)| (*name, value.clone())).collect();
    StoreOptions { environment, ..StoreOptions::default() }
}

fn is_next(request: &Request, dialect: &Dialect) -> bool {
    request.query(dialect.next).is_some_and(|token| !token.is_empty())
}

/// Makes so many tiny objects by one way, lists them by another on which every request is seen.
fn cross(server: &Server, relay: &Relay, options: &StoreOptions, dialect: &Dialect, pages: usize) {
    let bucket = bucket_on(server, "pages");
    let watched: Bucket = store::open(&format!("{}/pages", server.url), options).unwrap();
    let count = (pages - 1) * dialect.page_objects + dialect.page_objects / 10;
    let path = |number: usize| Path::from(format!("d/{:02x}/{number:08}", number % 16));
    run(async {
        let start = std::time::Instant::now();
        let write = |number| {
            let (bucket, path) = (bucket.clone(), path(number));
            async move { drop(bucket.objects.put_opts(&path, "x".into(), create()).await.unwrap()) }
        };
        stream::iter(0..count).for_each_concurrent(WIDTH, write).await;
        println!("{count} objects written in {:.1} s", start.elapsed().as_secs_f64());
        for prefix in [None, Some(Path::from("d"))] {
            let before = relay.seen().len();
            let listing = watched.objects.list(prefix.as_ref()).map_ok(|entry| entry.location);
            let listed: Vec<Path> = listing.try_collect().await.unwrap();
            assert_eq!(listed.len(), count, "an object is listed twice, or not at all");
            assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), (0..count).map(path).collect());
            let asked = relay.seen().split_off(before);
            assert!(asked.iter().all(|request| request.query(dialect.page).is_some()), "{asked:#?}");
            let goes_on: Vec<bool> = asked.iter().map(|request| is_next(request, dialect)).collect();
            let expected: Vec<bool> = (0..pages).map(|page| page > 0).collect();
            assert_eq!(goes_on, expected, "pages asked for, and which of them go on where one ended");
        }
        println!("and listed twice after {:.1} s", start.elapsed().as_secs_f64());
    });
}

#[test]
fn s3_by_seaweedfs_is_listed_across_its_pages() {
    let server = servers::seaweedfs();
    let relay = through(server.address());
    cross(&server, &relay, &options(&servers::s3_environment(relay.url())), &S3, 3);
}

#[test]
fn azure_by_azurite_is_listed_across_its_pages() {
    let server = servers::azurite();
    let relay = through(server.address());
    let endpoint = Some(format!("{}/{}", relay.url(), servers::AZURE_ACCOUNT));
    cross(&server, &relay, &StoreOptions { endpoint, ..options(&server.env) }, &AZURE, 2);
}

#[test]
fn google_by_fake_gcs_server_is_listed_across_its_pages() {
    let server = google::fake_gcs();
    let relay = through(server.relay_address());
    cross(&server, &relay, &options(&[("STORAGE_EMULATOR_HOST", relay.url())]), &S3, 3);
}
