//! In a container: user, mount and pid namespaces and a root of its own, as engines make them, with `/dev/fuse`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::command::{run, wait_within};
use crate::support::tree::is_root;
use crate::support::volume::{COFFER, Volume};

const LIMIT: Duration = Duration::from_secs(60);
const HOST: &str = "a-container";

/// What is in the container beside the system's programs.
const BUCKET: &str = "/bucket";
const POINT: &str = "/tmp/mnt";
const PASSPHRASE: &str = "--passphrase-file=/passphrase";

/// `program` in a container that sees a bucket and a passphrase, and in which it is root. The host's registry of mounts
/// is shared if `registry` says so.
fn container(volume: &Volume, registry: Option<&Path>) -> Command {
    let (bucket, passphrase) = (volume.bucket(), volume.passphrase_file());
    let mut bwrap = volume.program("bwrap", ["--unshare-user", "--uid", "0", "--gid", "0", "--unshare-pid"]);
    bwrap.args(["--unshare-ipc", "--unshare-uts", "--hostname", HOST, "--die-with-parent", "--clearenv"]);
    // What `--device /dev/fuse --cap-add SYS_ADMIN` is for engines.
    bwrap.args(["--cap-add", "CAP_SYS_ADMIN", "--dev", "/dev", "--dev-bind", "/dev/fuse", "/dev/fuse"]);
    bwrap.args(["--proc", "/proc", "--tmpfs", "/tmp", "--dir", POINT, "--dir", "/root", "--tmpfs", "/run"]);
    bwrap.args(["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"]);
    bwrap.args(["--symlink", "usr/lib64", "/lib64", "--ro-bind", COFFER, "/coffer"]);
    bwrap.arg("--bind").arg(bucket).arg(BUCKET).arg("--ro-bind").arg(passphrase).arg("/passphrase");
    if let Some(registry) = registry {
        bwrap.arg("--bind").arg(registry).arg("/run/coffer");
    }
    bwrap.args(["--setenv", "HOME", "/root", "--setenv", "PATH", "/usr/bin:/bin"]);
    bwrap
}

/// A container that runs a script, of which each part ends with a line that is waited for.
struct Inside {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Inside {
    fn start(mut container: Command, script: &str) -> Self {
        container.args(["/bin/sh", "-eu", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = container.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits for the line that says `word`; gives those before it.
    fn until(&mut self, word: &str) -> String {
        let mut before = String::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if line == word {
                return before;
            }
            before.push_str(&format!("{line}\n"));
        }
        panic!("it ended before it said {word}: {before}");
    }

    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn end(mut self) {
        let (ended, is_late) = wait_within(&mut self.child, LIMIT);
        assert!(ended.success() && !is_late, "{ended}");
    }
}

const LIFE: &str = r#"
/coffer mount /bucket /tmp/mnt "$PASSPHRASE"
echo 'from the container' > /tmp/mnt/file
/coffer sync /tmp/mnt
/coffer status /tmp/mnt
echo ready
read -r _
/coffer umount /tmp/mnt
[ ! -e /tmp/mnt/file ]
/coffer check "$PASSPHRASE" /bucket
echo over
"#;

#[test]
fn a_container_mounts_uses_and_unmounts_a_volume_and_its_host_sees_who_holds_it() {
    if !is_root() {
        return println!("the container's root is the tests' user, who is to be root");
    }
    let volume = Volume::local();
    let mut outside = container(&volume, None);
    outside.args(["--setenv", "PASSPHRASE", PASSPHRASE]);
    let mut inside = Inside::start(outside, LIFE);
    let status = inside.until("ready");
    assert!(status.starts_with("Safe: everything written is in the bucket.\n"), "{status}");
    assert!(status.contains(&format!("\n{POINT}  {BUCKET}\n")), "{status}");
    // Where it is mounted is the container's own; what it holds is everybody's.
    assert_eq!(volume.try_verb("status", Path::new(POINT), &[]).code(), 24);
    let refused = volume.mount_spec().try_mount().err().expect("mounted beside it");
    assert_eq!(refused.code(), 18, "{refused}");
    assert!(refused.stderr.contains(&format!(" on {HOST} ")), "{refused}");
    let reader = volume.mount_spec().args(&["--read-only"]).mount();
    assert_eq!(fs::read_to_string(reader.path("file")).unwrap(), "from the container\n");
    reader.unmount();
    inside.go_on();
    let checked = inside.until("over");
    assert!(checked.ends_with(": nothing is wrong\n"), "{checked}");
    inside.end();
    let mount = volume.mount();
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "from the container\n");
    mount.unmount();
}

/// Process numbers mean nothing across containers: none of the two takes the other's socket away.
#[test]
fn mounts_are_known_on_both_sides_of_a_registry_that_is_shared() {
    if !is_root() {
        return println!("the container's root is the tests' user, who is to be root");
    }
    let (volume, other) = (Volume::local(), Volume::local());
    let mount = other.mount();
    let mut outside = container(&volume, Some(Path::new("/run/coffer")));
    outside.args(["--setenv", "PASSPHRASE", PASSPHRASE]);
    let script = "
        /coffer mount /bucket /tmp/mnt \"$PASSPHRASE\"
        /coffer status || true
        echo ready
        read -r _
        /coffer status /tmp/mnt && exit 1
        echo over
    ";
    let mut inside = Inside::start(outside, script);
    let seen = inside.until("ready");
    let outer = mount.dir.display().to_string();
    assert!(seen.contains(&outer) && seen.contains(POINT), "{seen}");
    for place in [mount.dir.as_path(), Path::new(POINT)] {
        volume.try_verb("status", place, &[]).ok();
    }
    volume.try_verb("umount", Path::new(POINT), &[]).ok();
    inside.go_on();
    inside.until("over");
    inside.end();
    mount.unmount();
}

#[test]
fn a_mount_that_is_the_containers_first_process_saves_when_it_is_stopped() {
    if !is_root() {
        return println!("the container's root is the tests' user, who is to be root");
    }
    let volume = Volume::local();
    let mut outside = container(&volume, None);
    outside.args(["--as-pid-1", "/coffer", "mount", "-f", "--commit-age=1h", BUCKET, POINT, PASSPHRASE]);
    let mut outer = outside.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(outer.stderr.take().unwrap()).lines().map(Result::unwrap);
    said.find(|line| line.starts_with("Mounted ")).expect("it mounts");
    let children = format!("/proc/{0}/task/{0}/children", outer.id());
    let pid = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    fs::write(format!("/proc/{pid}/root{POINT}/file"), "not sent yet").unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    let (ended, is_late) = wait_within(&mut outer, LIMIT);
    assert!(ended.success() && !is_late, "{ended}: {}", said.collect::<String>());
    let mount = volume.mount();
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "not sent yet");
    mount.unmount();
}

#[test]
fn without_the_device_or_the_right_to_mount_that_is_said() {
    if !is_root() {
        return println!("the container's root is the tests' user, who is to be root");
    }
    let volume = Volume::local();
    let tried = |change: &[&str], code: i32, wanted: &str| {
        let mut outside = container(&volume, None);
        outside.args(change).args(["/coffer", "mount", BUCKET, POINT, PASSPHRASE]);
        let refused = run(outside);
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.stderr.contains(wanted), "{refused}");
    };
    tried(&["--dev", "/dev"], 1, "\nhint: a container has to be given the device: `--device /dev/fuse`\n");
    tried(
        &["--cap-drop", "CAP_SYS_ADMIN"],
        19,
        "\nhint: root may not mount here: a container needs the capability ",
    );
}
