//! `coffer gc` and `coffer quota` on a volume that nobody has mounted.

use coffer::base::Ino;
use coffer::cli::exit::Exit;
use coffer::vfs::{Caller, Handle};

use crate::support::Bench;

const BLOCK: usize = 65_536;

/// A volume with one file, three quarters of which have been written twice.
pub(crate) fn overwritten() -> (Bench, Ino, Vec<u8>) {
    let bench = Bench::with_volume();
    let mut data: Vec<u8> = (0..256 * BLOCK).map(|at| (at / 1000) as u8).collect();
    let ino = bench.change(async |vfs| {
        let file = vfs.create(&Caller::default(), Ino::ROOT, b"file", 0o644, true).await.unwrap().ino;
        vfs.write(file, 0, &data, false).await.unwrap();
        vfs.sync_all().await.unwrap();
        for block in (0..256).filter(|block| block % 4 > 0) {
            let new = vec![block as u8; BLOCK];
            vfs.write(file, (block * BLOCK) as u64, &new, false).await.unwrap();
            data[block * BLOCK..][..BLOCK].copy_from_slice(&new);
        }
        vfs.sync_all().await.unwrap();
        file
    });
    (bench, ino, data)
}

#[test]
fn a_dry_run_tells_what_is_to_gain_and_changes_nothing() {
    let (bench, ..) = overwritten();
    let before = bench.objects("");
    let text = bench.on_volume("gc", &["--dry-run"]).ok();
    assert!(text.contains("  mostly dead  ") && text.contains("To gain: "), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&bench.on_volume("gc", &["--dry-run", "--json"]).ok()).unwrap();
    assert!(json["sparse"]["count"].as_u64().unwrap() >= 2, "{json}");
    assert!(json["sparse"]["bytes"].as_u64().unwrap() > (100 * BLOCK) as u64, "{json}");
    assert_eq!(bench.objects(""), before);
}

#[test]
fn what_it_does_leaves_the_files_as_they_are_and_nothing_more_to_do() {
    let (bench, ino, data) = overwritten();
    let text = bench.on_volume("gc", &["--now"]).ok();
    assert!(text.contains("  rewritten  ") && text.contains("  waiting  "), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&bench.on_volume("gc", &["--dry-run", "--json"]).ok()).unwrap();
    assert_eq!(json["sparse"]["count"], 0, "{json}");
    assert!(json["dead"]["count"].as_u64().unwrap() > 0, "{json}");
    let read = bench.change(async |vfs| vfs.read(Handle(0), ino, 0, data.len()).await.unwrap());
    assert!(read == data);
}

#[test]
fn it_asks_what_is_wanted_and_refuses_what_is_held() {
    let bench = Bench::with_volume();
    for wrong in [&[][..], &["--dry-run", "--now"]] {
        assert_eq!(bench.on_volume("gc", wrong).code, i32::from(Exit::Usage.code()));
    }
    crate::support::runtime().block_on(async {
        let opened = bench.open_for_writing().await;
        bench.on_volume("gc", &["--now"]).refused(Exit::VolumeInUse, "");
        bench.on_volume("gc", &["--dry-run"]).ok();
        opened.close().await.unwrap();
    });
    assert_eq!(bench.on_volume("gc", &["--now"]).ok(), "There was nothing to do.\n");
}

#[test]
fn a_quota_is_shown_set_and_taken_away() {
    let bench = Bench::with_volume();
    bench.change(async |vfs| {
        let file = vfs.create(&Caller::default(), Ino::ROOT, b"file", 0o644, true).await.unwrap().ino;
        vfs.write(file, 0, &[1; 3 << 20], false).await.unwrap();
    });
    assert_eq!(bench.on_volume("quota", &[]).ok(), "3.0 MiB stored in 2 files; no quota\n");
    let set = bench.on_volume("quota", &["4M"]);
    assert_eq!(set.stderr, "3.0 MiB of 4.0 MiB stored in 2 files\n");
    assert_eq!(set.ok(), "");
    assert_eq!(bench.on_volume("quota", &[]).ok(), "3.0 MiB of 4.0 MiB stored in 2 files\n");
    let json: serde_json::Value =
        serde_json::from_str(&bench.on_volume("quota", &["1M", "--json"]).ok()).unwrap();
    assert_eq!(json, serde_json::json!({ "stored_bytes": 3 << 20, "quota_bytes": 1 << 20, "files": 2 }));
    let full = bench.on_volume("quota", &[]).ok();
    assert!(full.ends_with("; nothing can be added until something is removed\n"), "{full}");
    assert_eq!(bench.on_volume("quota", &["off"]).code, 0);
    assert_eq!(bench.on_volume("quota", &[]).ok(), "3.0 MiB stored in 2 files; no quota\n");
    let wrong = bench.on_volume("quota", &["much"]);
    wrong.refused(Exit::Usage, "write it like 512K, 64M or 2G, or off");
}
