//! What an `fsync` of 4 KiB costs through a mount and a wire of 30 ms and 100 MB/s: alone, and while another program streams
//! through the same mount as fast as it can. Fails if that makes the median more than three times as long.
//!
//! `cargo bench --bench fsync` needs the S3 server that `scripts/deps test` installs.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/mod.rs"]
mod support;

mod net;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::servers::seaweedfs;
use support::volume::Volume;

const ROUND_TRIP: Duration = Duration::from_millis(30);
const BYTES_PER_SECOND: f64 = 100e6;
const ROUNDS: u64 = 4;
const SYNCS: u64 = 50;
/// What a stream may make of the median.
const RATIO_MAX: f64 = 3.0;

/// Overwrites 4 KiB in the middle of a file and syncs it, again and again.
fn syncs(file: &File) -> Vec<Duration> {
    let sync = |number: u64| {
        let start = Instant::now();
        file.write_all_at(&[number as u8; 4096], number % 8 * 4096).unwrap();
        file.sync_all().unwrap();
        start.elapsed()
    };
    (0..SYNCS).map(sync).collect()
}

/// Writes files of 256 MiB one after the other, until told to stop.
fn stream(dir: &Path, is_over: &AtomicBool, streamed: &AtomicU64) {
    let piece = vec![7; 1 << 20];
    for number in 0.. {
        let mut file = File::create(dir.join(format!("stream{}", number % 4))).unwrap();
        for _ in 0..256 {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            file.write_all(&piece).unwrap();
            streamed.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    }
}

fn main() {
    let mut server = seaweedfs();
    for (name, value) in &mut server.env {
        if *name == "AWS_ENDPOINT_URL" {
            let address = value.trim_start_matches("http://").parse().unwrap();
            *value = format!("http://{}", net::wire(address, ROUND_TRIP, BYTES_PER_SECOND).address);
        }
    }
    let volume = Volume::on(&server);
    let mount = volume.mount();
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(mount.path("file")).unwrap();
    syncs(&file);
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    let (mut bytes, mut time) = (0, Duration::ZERO);
    for _ in 0..ROUNDS {
        idle.extend(syncs(&file));
        let (is_over, streamed) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let start = Instant::now();
            scope.spawn(|| stream(&mount.dir, &is_over, &streamed));
            // Until the stream runs at the speed of the wire.
            while streamed.load(Ordering::Relaxed) < 400 << 20 {
                std::thread::yield_now();
            }
            busy.extend(syncs(&file));
            (bytes, time) = (bytes + streamed.load(Ordering::Relaxed), time + start.elapsed());
            is_over.store(true, Ordering::Relaxed);
        });
        mount.sync();
    }
    let show = |what: &str, times: &[Duration]| {
        let (median, nine_of_ten) = net::quantiles(times.iter().copied());
        let most = times.iter().max().unwrap();
        println!("{what:44} median {median:>10.1?}  nine of ten {nine_of_ten:>10.1?}  most {most:>10.1?}");
        median
    };
    let alone = show("write 4 KiB and fsync, nothing else", &idle);
    let beside = show("the same, while another program streams", &busy);
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    println!("ratio of the medians: {ratio:.2}");
    println!("the stream: {:.0} MB/s, put off {} times", bytes as f64 / 1e6 / time.as_secs_f64(), {
        mount.status()["mounts"][0]["volume"]["put_off"].as_u64().unwrap()
    });
    drop(file);
    mount.unmount();
    assert!(
        ratio <= RATIO_MAX,
        "beside a stream the median fsync takes {ratio:.2} times as long; {RATIO_MAX} is the most"
    );
}
