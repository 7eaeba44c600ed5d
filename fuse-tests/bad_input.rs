//! Wrong input gets one sentence and an exit code of its own, and changes nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::fs::Mode;

use crate::support::command::{Finished, run};
use crate::support::volume::Volume;

/// The documented exit codes.
mod code {
    pub(crate) const USAGE: i32 = 2;
    pub(crate) const NO_VOLUME: i32 = 10;
    pub(crate) const WRONG_KEY: i32 = 11;
    pub(crate) const HEADER_DAMAGED: i32 = 13;
    pub(crate) const VOLUME_EXISTS: i32 = 14;
    pub(crate) const BUCKET_MISSING: i32 = 15;
    pub(crate) const STORE_UNREACHABLE: i32 = 17;
    pub(crate) const BAD_MOUNT_POINT: i32 = 19;
    pub(crate) const STATE_DIR: i32 = 22;
    pub(crate) const NOT_MOUNTED: i32 = 24;
    pub(crate) const NO_SECRET: i32 = 25;
}

/// `coffer mount` with everything as it should be; tests then spoil one thing.
struct Attempt<'v> {
    volume: &'v Volume,
    url: String,
    dir: String,
    passphrase_file: String,
    state_dir: String,
}

impl<'v> Attempt<'v> {
    fn of(volume: &'v Volume) -> Attempt<'v> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let (url, dir, state_dir) = (volume.url.clone(), volume.new_dir("mnt"), volume.new_dir("state"));
        Attempt {
            volume,
            url,
            dir: text(&dir),
            passphrase_file: text(&volume.passphrase_file()),
            state_dir: text(&state_dir),
        }
    }

    fn command(&self) -> Command {
        let mut mount = self.volume.coffer(["mount", &self.url, &self.dir]);
        mount.args(["--passphrase-file", &self.passphrase_file, "--state-dir", &self.state_dir]);
        mount
    }

    fn refused(&self, code: i32, mentions: &str) {
        refused(&run(self.command()), code, mentions);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&format!(" {} ", self.dir)), "refused, and mounted all the same");
    }
}

/// The exit code is right, and standard error is a short message for people that names the thing at fault.
fn refused(finished: &Finished, code: i32, mentions: &str) {
    assert_eq!(finished.code(), code, "{finished}");
    let said = &finished.stderr;
    assert!(said.contains(mentions), "{mentions:?} is not mentioned: {finished}");
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{finished}");
    let lines = said.lines().filter(|line| !line.trim().is_empty()).count();
    assert!((1..=6).contains(&lines), "{lines} lines are no short message: {finished}");
    for debris in ["Error {", "Err(", "Some(", "None,", "Error("] {
        assert!(!said.contains(debris), "the message shows its insides: {finished}");
    }
}

#[test]
fn a_wrong_passphrase_is_refused() {
    let volume = Volume::local();
    let wrong = volume.new_dir("wrong").join("passphrase");
    fs::write(&wrong, "not the passphrase\n").unwrap();
    rustix::fs::chmod(&wrong, Mode::RUSR).unwrap();
    let attempt = Attempt { passphrase_file: wrong.to_string_lossy().into_owned(), ..Attempt::of(&volume) };
    attempt.refused(code::WRONG_KEY, "passphrase");
}

#[test]
fn a_passphrase_file_that_is_not_there_is_named() {
    let volume = Volume::local();
    let attempt = Attempt { passphrase_file: "/nowhere/passphrase".into(), ..Attempt::of(&volume) };
    attempt.refused(code::NO_SECRET, "/nowhere/passphrase");
}

#[test]
fn a_passphrase_file_that_others_can_read_is_not_used() {
    let volume = Volume::local();
    rustix::fs::chmod(volume.passphrase_file(), Mode::from_raw_mode(0o644)).unwrap();
    Attempt::of(&volume).refused(code::NO_SECRET, "open to other users");
}

#[test]
fn a_mount_point_must_be_an_empty_directory() {
    let volume = Volume::local();
    let attempt = Attempt::of(&volume);
    let missing = format!("{}/missing", attempt.dir);
    Attempt { dir: missing.clone(), ..Attempt::of(&volume) }.refused(code::BAD_MOUNT_POINT, &missing);
    let file = format!("{}/file", attempt.dir);
    fs::write(&file, "x").unwrap();
    Attempt { dir: file.clone(), ..Attempt::of(&volume) }.refused(code::BAD_MOUNT_POINT, &file);
    let full = attempt.dir.clone();
    attempt.refused(code::BAD_MOUNT_POINT, &full);
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

#[test]
fn a_mount_point_in_use_is_refused() {
    let (volume, other) = (Volume::local(), Volume::local());
    let mount = volume.mount();
    let dir = mount.dir.to_string_lossy().into_owned();
    let finished = run(Attempt { dir: dir.clone(), ..Attempt::of(&other) }.command());
    refused(&finished, code::BAD_MOUNT_POINT, &dir);
    fs::write(mount.path("file"), "still works").unwrap();
    mount.unmount();
}

#[test]
fn a_state_directory_that_cannot_be_made_is_refused() {
    let volume = Volume::local();
    let file = volume.new_dir("state").join("file");
    fs::write(&file, "x").unwrap();
    // Below a file nobody can make a directory, not even root.
    let state_dir = file.join("state").to_string_lossy().into_owned();
    Attempt { state_dir: state_dir.clone(), ..Attempt::of(&volume) }.refused(code::STATE_DIR, &state_dir);
}

#[test]
fn a_bucket_that_is_missing_or_empty_is_told_apart() {
    let volume = Volume::local();
    let empty = volume.new_dir("empty").to_string_lossy().into_owned();
    Attempt { url: empty.clone(), ..Attempt::of(&volume) }.refused(code::NO_VOLUME, &empty);
    let missing = format!("{empty}/missing");
    Attempt { url: missing.clone(), ..Attempt::of(&volume) }.refused(code::BUCKET_MISSING, &missing);
    assert!(!Path::new(&missing).exists(), "a failed mount made the bucket");
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0, "a failed mount wrote to a foreign directory");
}

#[test]
fn a_url_of_no_known_kind_is_refused() {
    let volume = Volume::local();
    Attempt { url: "ftp://host/dir".into(), ..Attempt::of(&volume) }.refused(code::USAGE, "ftp");
}

#[test]
fn a_server_that_does_not_answer_is_named() {
    let volume = Volume::local();
    // Port 1 is nobody's.
    let attempt = Attempt { url: "s3://bucket/volume".into(), ..Attempt::of(&volume) };
    let mut mount = attempt.command();
    mount.envs([("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_ALLOW_HTTP", "true"), ("AWS_REGION", "x")]);
    mount.envs([("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")]).args(["--read-timeout", "3s"]);
    refused(&run(mount), code::STORE_UNREACHABLE, "127.0.0.1:1");
}

#[test]
fn a_second_init_is_refused_and_harms_nothing() {
    let volume = Volume::local();
    let mount = volume.mount();
    fs::write(mount.path("file"), "kept").unwrap();
    mount.unmount();
    refused(&run(volume.init_command()), code::VOLUME_EXISTS, &volume.url);
    let mount = volume.mount();
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"kept");
    mount.unmount();
}

#[test]
fn a_damaged_header_is_told_from_a_wrong_passphrase() {
    let volume = Volume::local();
    let header = fs::read_dir(volume.bucket().join("header")).unwrap().next().unwrap().unwrap().path();
    let sound = fs::read(&header).unwrap();
    let spoil = |bytes: &[u8]| {
        rustix::fs::chmod(&header, Mode::from_raw_mode(0o600)).unwrap();
        fs::write(&header, bytes).unwrap();
        Attempt::of(&volume).refused(code::HEADER_DAMAGED, "header");
    };
    spoil(&[]);
    spoil(&sound[..sound.len() / 2]);
    let mut flipped = sound.clone();
    *flipped.last_mut().unwrap() ^= 1;
    spoil(&flipped);
    fs::write(&header, &sound).unwrap();
    volume.mount().unmount();
}

#[test]
fn commands_about_a_mount_that_is_none_say_so() {
    let volume = Volume::local();
    let dir = volume.new_dir("mnt");
    let name = dir.to_string_lossy().into_owned();
    for verb in ["umount", "sync", "status"] {
        refused(&volume.try_verb(verb, &dir, &[]), code::NOT_MOUNTED, &name);
    }
}

#[test]
fn mount_lets_go_of_the_terminal() {
    let volume = Volume::local();
    // `cat` ends when the last holder of the pipe has closed it: the daemon must not be one.
    volume.mount_spec().wrapped_in(r#"{ "$@"; } 2>&1 | cat"#).mount().unmount();
}

#[test]
fn a_mount_in_the_background_keeps_nothing_open_that_it_was_started_with() {
    let volume = Volume::local();
    // As flock(1) leaves its lock to what it starts.
    let mount = volume.mount_spec().wrapped_in(r#"exec 9</etc/passwd 8</; exec "$@""#).mount();
    for daemon in mount.daemons() {
        let open = fs::read_dir(format!("/proc/{}/fd", daemon.as_raw_nonzero())).unwrap().flatten();
        let names: Vec<_> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
        assert!(names.len() > 3, "{names:?}");
        assert!(
            names.iter().all(|name| name != Path::new("/etc/passwd") && name != Path::new("/")),
            "{names:?}"
        );
    }
    mount.unmount();
}
