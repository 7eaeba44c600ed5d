//! A mount in the foreground tells the service manager how it is, as sd_notify(3) has it.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::command::{wait_until, wait_within};
use crate::support::volume::Volume;

const LIMIT: Duration = Duration::from_secs(60);

/// What a service manager hears.
struct Manager(UnixDatagram);

impl Manager {
    /// The next message that has a line beginning with `line`.
    fn hears(&self, line: &str) -> String {
        let mut heard = Vec::new();
        loop {
            let mut message = vec![0; 4096];
            let length =
                self.0.recv(&mut message).unwrap_or_else(|e| panic!("no {line} after {heard:?}: {e}"));
            let message = String::from_utf8_lossy(&message[..length]).into_owned();
            if message.lines().any(|words| words.starts_with(line)) {
                return message;
            }
            heard.push(message);
        }
    }
}

#[test]
fn systemd_hears_when_a_mount_is_ready_and_is_asked_for_time_while_it_saves() {
    let volume = Volume::local();
    let (dir, state) = (volume.new_dir("mnt"), volume.new_dir("state"));
    let socket = volume.new_dir("notify").join("socket");
    let manager = Manager(UnixDatagram::bind(&socket).unwrap());
    manager.0.set_read_timeout(Some(LIMIT)).unwrap();

    let mut coffer = volume.coffer(["mount", "--foreground", "--commit-age", "1h"]);
    coffer.arg(volume.bucket()).arg(&dir).arg("--passphrase-file").arg(volume.passphrase_file());
    coffer.arg("--state-dir").arg(&state).env("NOTIFY_SOCKET", &socket);
    let mut daemon = coffer.spawn().unwrap();
    let ready = manager.hears("READY=1");
    assert!(ready.contains("STATUS=") && ready.contains("Mounted "), "{ready}");
    std::fs::write(dir.join("file"), vec![7; 100_000]).unwrap();

    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ending = manager.hears("STOPPING=1");
    assert!(ending.contains("EXTEND_TIMEOUT_USEC=90000000"), "{ending}");
    assert!(ending.contains("STATUS=saving: "), "{ending}");
    let (status, _) = wait_within(&mut daemon, LIMIT);
    assert!(status.success(), "{status}");
    wait_until("the file is in the bucket", LIMIT, || {
        let mount = volume.mount();
        let length = std::fs::metadata(mount.path("file")).map(|about| about.len()).unwrap_or_default();
        mount.unmount();
        length == 100_000
    });
}
