//! `coffer gc` on a volume that is mounted: the mount does the work, and nobody who uses it notices.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use serde_json::Value;

use crate::support::command::run;
use crate::support::servers;
use crate::support::volume::Volume;

const BLOCK: usize = 65_536;

#[test]
fn gc_asks_the_mount_by_its_directory_or_its_url() {
    let volume = Volume::local();
    let mount = volume.mount();
    let path = mount.path("file");
    let mut data: Vec<u8> = (0..256 * BLOCK).map(|at| (at / 1000) as u8).collect();
    fs::write(&path, &data).unwrap();
    mount.sync();
    let file = File::options().write(true).open(&path).unwrap();
    for block in (0..256).filter(|block| block % 4 > 0) {
        let new = vec![block as u8; BLOCK];
        file.write_all_at(&new, (block * BLOCK) as u64).unwrap();
        data[block * BLOCK..][..BLOCK].copy_from_slice(&new);
    }
    drop(file);
    mount.sync();
    let before = fs::metadata(&path).unwrap();

    let gc = |args: &[&str]| -> Value {
        let text = run(volume.coffer([&["gc", "--json"], args].concat())).ok().text();
        serde_json::from_str(&text).unwrap()
    };
    let plan = gc(&["--dry-run", &volume.url]);
    assert!(plan["sparse"]["count"].as_u64().unwrap() >= 2, "{plan}");
    let done = gc(&["--now", mount.dir.to_str().unwrap()]);
    assert!(done["rewritten"]["count"].as_u64().unwrap() >= 2, "{done}");
    assert_eq!(gc(&["--dry-run", &volume.url])["sparse"]["count"], 0);
    let status = mount.status();
    assert!(status.to_string().contains("\"rewritten_count\":"), "{status}");

    let after = fs::metadata(&path).unwrap();
    use std::os::unix::fs::MetadataExt;
    let seen = |meta: &fs::Metadata| (meta.mtime_nsec(), meta.ctime_nsec(), meta.blocks(), meta.size());
    assert_eq!(seen(&before), seen(&after));
    assert!(fs::read(&path).unwrap() == data);
    mount.unmount();
    let mount = volume.mount();
    assert!(fs::read(mount.path("file")).unwrap() == data);
    mount.unmount();
}

#[test]
fn gc_cleans_beside_a_mount_that_only_reads() {
    let volume = Volume::local();
    let mount = volume.mount();
    fs::write(mount.path("file"), vec![1; 40 * BLOCK]).unwrap();
    mount.unmount();
    let reader = volume.mount_spec().args(&["--read-only"]).mount();
    let gc = |which: &str| {
        let mut gc = volume.coffer(["gc", "--now", which, "--passphrase-file"]);
        gc.arg(volume.passphrase_file());
        run(gc)
    };
    gc(&volume.url).ok();
    let told = gc(reader.dir.to_str().unwrap());
    assert_eq!(told.code(), 1, "{told}");
    assert!(told.stderr.contains("only reads") && told.stderr.contains("cleans beside it"), "{told}");
    reader.unmount();
}

/// The URL of a bucket does not name the service or the account: that may be in the environment.
#[test]
fn gc_does_not_ask_the_mount_of_another_volume_that_has_the_same_url() {
    let servers = [servers::s3s_fs(), servers::s3s_fs()];
    let volumes = [Volume::on(&servers[0]), Volume::on(&servers[1])];
    assert_eq!(volumes[0].url, volumes[1].url);
    let mount = volumes[0].mount();
    fs::write(mount.path("file"), vec![7; 4 * BLOCK]).unwrap();
    mount.sync();
    let plan = |volume: &Volume| -> Value {
        let mut gc = volume.coffer(["gc", "--json", "--dry-run", &volume.url]);
        gc.arg("--passphrase-file").arg(volume.passphrase_file());
        serde_json::from_str(&run(gc).ok().text()).unwrap()
    };
    let plans = [plan(&volumes[0]), plan(&volumes[1])];
    let bytes = plans.each_ref().map(|plan| plan["live_bytes"].as_u64().unwrap());
    assert!(bytes[0] >= 4 * BLOCK as u64 && bytes[1] == 0, "{plans:?}");
    mount.unmount();
}
