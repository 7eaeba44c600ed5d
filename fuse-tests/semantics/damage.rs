//! Damage in the bucket and the limit of a quota: what cannot be read or stored is told, and nothing else suffers.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rustix::io::Errno;

use crate::support::command::run;
use crate::support::mount::Mount;
use crate::support::volume::Volume;

const BLOCK: usize = 65_536;

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.expect_err("an error").raw_os_error()
}

/// The objects that hold contents.
fn segments(volume: &Volume) -> Vec<PathBuf> {
    let dirs = fs::read_dir(volume.bucket().join("d")).unwrap().map(|entry| entry.unwrap().path());
    dirs.flat_map(|dir| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path())).collect()
}

/// A volume with two files in two segments, the first of which has a wrong byte in the second of its three blocks.
fn damaged() -> Volume {
    let volume = Volume::local();
    let mount = volume.mount();
    fs::write(mount.path("damaged"), noise(3 * BLOCK, 1)).unwrap();
    mount.sync();
    let [segment] = segments(&volume).try_into().unwrap();
    fs::write(mount.path("sound"), noise(3 * BLOCK, 2)).unwrap();
    mount.unmount();
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&segment).unwrap();
    fs::write(&segment, bytes).unwrap();
    volume
}

/// > **Damage.** A block that is not what was written is `EIO` for reads that touch it, never zeros and never older bytes;
/// > the rest of the file and of the volume stays usable.
#[test]
fn a_damaged_block_is_an_error_and_the_rest_is_readable() {
    let volume = damaged();
    let mount = volume.mount();
    let file = File::open(mount.path("damaged")).unwrap();
    let wanted = noise(3 * BLOCK, 1);
    let mut back = vec![0; BLOCK];
    for _ in 0..2 {
        assert_eq!(errno(file.read_at(&mut back, BLOCK as u64)), Some(Errno::IO.raw_os_error()));
    }
    for at in [0, 2 * BLOCK] {
        // Straight from the daemon: read-ahead of the kernel would touch the damaged block too.
        let mut options = File::options();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true), libc::O_DIRECT);
        let file = options.open(mount.path("damaged")).unwrap();
        assert_eq!(file.read_at(&mut back, at as u64).unwrap(), BLOCK);
        assert!(back == wanted[at..at + BLOCK], "at {at}");
    }
    assert!(fs::read(mount.path("sound")).unwrap() == noise(3 * BLOCK, 2));
    fs::write(mount.path("new"), "works").unwrap();
    let ino = file.metadata().unwrap().ino();
    drop(file);
    mount.sync();
    is_told_once(&volume, &mount, ino);
    mount.unmount();
}

/// The one damaged object is in the log and in what `status` says, and all that was written is safe nevertheless.
fn is_told_once(volume: &Volume, mount: &Mount, ino: u64) {
    let status = mount.status();
    let damage = &status["mounts"][0]["volume"]["damage"];
    assert_eq!((&status["is_safe"], &damage["count"]), (&true.into(), &1.into()), "{status:#}");
    let object = damage["objects"][0]["object"].as_str().unwrap().to_owned();
    assert!(segments(volume).contains(&volume.bucket().join(&object)), "{object}");
    assert_eq!(damage["objects"][0]["file"], ino);
    let text = volume.try_verb("status", &mount.dir, &[]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.starts_with("Safe: everything written is in the bucket. "), "{text}");
    assert!(text.lines().next().unwrap().ends_with("1 object is damaged in the bucket."), "{text}");
    let log = fs::read_to_string(&mount.log).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&object)).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("WARN") && lines[0].contains(&format!("file={ino}")), "{log}");
}

/// > **A write that cannot be stored** because the older contents of its block are damaged in the bucket is dropped and
/// > reported: the next `fsync` of that file fails once with `EIO`
#[test]
fn a_write_into_a_damaged_block_is_reported_by_the_next_fsync() {
    let volume = damaged();
    let mount = volume.mount_spec().args(&["--commit-age", "1h"]).mount();
    let file = File::options().write(true).open(mount.path("damaged")).unwrap();
    file.write_all_at(b"into the damaged block", BLOCK as u64 + 100).unwrap();
    fs::write(mount.path("other"), "saved with it").unwrap();
    assert_eq!(errno(file.sync_all()), Some(Errno::IO.raw_os_error()));
    file.sync_all().expect("reported once");
    file.write_all_at(&noise(BLOCK, 3), BLOCK as u64).unwrap();
    file.sync_all().expect("a whole block needs no older contents");
    drop(file);
    mount.unmount();
    let mount = volume.mount();
    let back = fs::read(mount.path("damaged")).unwrap();
    assert!(back[BLOCK..2 * BLOCK] == noise(BLOCK, 3) && back[..BLOCK] == noise(3 * BLOCK, 1)[..BLOCK]);
    assert_eq!(fs::read_to_string(mount.path("other")).unwrap(), "saved with it");
    mount.unmount();
}

/// > until then `coffer status` counts the file, and `coffer sync` and `coffer umount` save and do everything else and then
/// > fail (code 31).
#[test]
fn a_write_into_a_damaged_block_fails_the_sync_and_the_unmount_that_save_everything_else() {
    let volume = damaged();
    let mount = volume.mount_spec().args(&["--commit-age", "1h"]).mount();
    let file = File::options().write(true).open(mount.path("damaged")).unwrap();
    file.write_all_at(b"into the damaged block", BLOCK as u64 + 100).unwrap();
    drop(file);
    fs::write(mount.path("other"), "saved with it").unwrap();
    for _ in 0..2 {
        let synced = volume.try_verb("sync", &mount.dir, &[]);
        assert_eq!(synced.code(), 31, "{synced}");
        assert!(synced.stderr.contains("writes to 1 file could not be stored"), "{synced}");
    }
    assert_eq!(mount.status()["mounts"][0]["volume"]["lost_files"], 1);
    let unmounted = volume.try_verb("umount", &mount.dir, &[]);
    assert_eq!(unmounted.code(), 31, "{unmounted}");
    assert!(unmounted.stderr.contains("writes to 1 file could not be stored"), "{unmounted}");
    assert!(!mount.is_mounted());
    mount.wait_until_gone();
    let mount = volume.mount();
    assert_eq!(fs::read_to_string(mount.path("other")).unwrap(), "saved with it");
    mount.unmount();
}

/// > Without a quota `df` shows 1 PiB less what is stored, with one (`coffer init --quota`, `coffer quota`) the quota; inodes are
/// > 2^40. The quota counts stored plaintext bytes and unsent ones. It is asked by `write` and `fallocate`, which fail with `ENOSPC`
#[test]
fn a_quota_is_what_df_shows_and_what_writes_keep_to() {
    const MIB: usize = 1 << 20;
    let volume = Volume::local();
    let mount = volume.mount();
    let about = rustix::fs::statvfs(&mount.dir).unwrap();
    assert_eq!((about.f_blocks * about.f_frsize, about.f_files), (1 << 50, 1 << 40));
    mount.unmount();

    let volume = Volume::local_without_init();
    let mut init = volume.init_command();
    init.args(["--quota", "10M"]);
    run(init).ok();
    let mount = volume.mount();
    let about = || rustix::fs::statvfs(&mount.dir).unwrap();
    assert_eq!(about().f_blocks * about().f_frsize, 10 * MIB as u64);
    let mut file = File::create(mount.path("file")).unwrap();
    file.write_all(&noise(9 * MIB, 4)).unwrap();
    assert_eq!(about().f_bavail * about().f_frsize, MIB as u64, "unsent bytes count");
    assert_eq!(errno(file.write_all(&noise(2 * MIB, 5))), Some(Errno::NOSPC.raw_os_error()));
    mount.sync();
    drop(file);
    fs::remove_file(mount.path("file")).unwrap();
    mount.sync();
    fs::write(mount.path("again"), noise(9 * MIB, 6)).unwrap();
    assert_eq!(errno(fs::write(mount.path("more"), noise(2 * MIB, 7))), Some(Errno::NOSPC.raw_os_error()));
    let set = volume.try_verb("quota", &mount.dir, &["20M"]).ok();
    assert!(set.stderr.contains(" of 20.0 MiB stored in 3 files"), "{set}");
    assert_eq!(about().f_blocks * about().f_frsize, 20 * MIB as u64);
    fs::write(mount.path("more"), noise(2 * MIB, 7)).unwrap();
    mount.sync();
    let shown = volume.try_verb("quota", &mount.dir, &[]).ok();
    assert_eq!(shown.text().trim(), "11.0 MiB of 20.0 MiB stored in 3 files");
    mount.unmount();

    let reader = volume.mount_spec().args(&["--read-only"]).mount();
    let refused = volume.try_verb("quota", &reader.dir, &["off"]);
    assert!(refused.code() == 1 && refused.stderr.contains("sets it beside it"), "{refused}");
    let about = rustix::fs::statvfs(&reader.dir).unwrap();
    assert_eq!(about.f_blocks * about.f_frsize, 20 * MIB as u64);
    reader.unmount();
}
