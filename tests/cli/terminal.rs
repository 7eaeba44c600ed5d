//! The terminal: a new passphrase is asked for twice, and what is typed is never shown.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use coffer::cli::exit::Exit;

use crate::support::{Bench, PASSPHRASE};

/// Wide enough for any line of the tests.
const COLUMNS: u16 = 200;

/// The command on a terminal of its own, and the other end of that terminal.
pub(crate) struct Session {
    child: Child,
    master: File,
    seen: String,
}

impl Session {
    pub(crate) fn start(bench: &Bench, args: &[&str]) -> Self {
        Self::start_on("xterm", bench, args)
    }

    /// On a terminal of this kind.
    pub(crate) fn start_on(kind: &str, bench: &Bench, args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: 24, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave: OwnedFd = File::options().read(true).write(true).open(name).unwrap().into();
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_coffer")]).args(args);
        command.current_dir(bench.path("")).env_clear().env("HOME", bench.path("home")).env("TERM", kind);
        let child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        Self { child, master: File::from(master), seen: String::new() }
    }

    fn wait_for(&mut self, prompt: &str) {
        while !self.seen.ends_with(prompt) {
            let mut bytes = [0; 1024];
            let count = self.master.read(&mut bytes).unwrap();
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    /// Waits for `prompt`, then types what may be seen.
    fn say(&mut self, prompt: &str, typed: &str) {
        self.wait_for(prompt);
        self.master.write_all(format!("{typed}\n").as_bytes()).unwrap();
    }

    /// Waits for `prompt` and for the echo to be off, then types.
    fn answer(&mut self, prompt: &str, typed: &str) {
        self.wait_for(prompt);
        let deadline = Instant::now() + Duration::from_secs(20);
        while tcgetattr(&self.master).unwrap().local_modes.contains(LocalModes::ECHO) {
            assert!(Instant::now() < deadline, "what is typed would be shown");
            std::thread::yield_now();
        }
        self.master.write_all(format!("{typed}\n").as_bytes()).unwrap();
    }

    /// The rest of the output and the exit code.
    pub(crate) fn end(mut self) -> (String, i32) {
        let mut bytes = [0; 1024];
        // The terminal's other end gives EIO once nobody has it open any more.
        while let Ok(count @ 1..) = self.master.read(&mut bytes) {
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        (self.seen, self.child.wait().unwrap().code().unwrap())
    }
}

#[test]
fn a_new_passphrase_is_typed_twice_and_never_shown() {
    let bench = Bench::new();
    let mut session = Session::start(&bench, &["init", "--kdf-log-n", "15", "./vol"]);
    session.answer("Passphrase for the new volume: ", PASSPHRASE);
    session.answer("The same again: ", PASSPHRASE);
    let (seen, code) = session.end();
    assert_eq!(code, 0, "{seen}");
    assert!(!seen.contains(PASSPHRASE), "{seen}");
    assert!(seen.contains("Recovery code"), "{seen}");
    bench.on_volume("ls", &[]).ok();
}

#[test]
fn two_passphrases_that_differ_make_no_volume() {
    let bench = Bench::new();
    let mut session = Session::start(&bench, &["init", "--kdf-log-n", "15", "./vol"]);
    session.answer("Passphrase for the new volume: ", PASSPHRASE);
    session.answer("The same again: ", "something else");
    let (seen, code) = session.end();
    assert_eq!(code, 25, "{seen}");
    assert!(seen.contains("the two passphrases differ"), "{seen}");
    assert!(bench.objects("").iter().all(|path| !path.ends_with("header/1")));
}

#[test]
fn a_passphrase_is_asked_for_once_to_unlock() {
    let bench = Bench::with_volume();
    let mut session = Session::start(&bench, &["ls", "-d", "vol"]);
    session.answer("Passphrase: ", PASSPHRASE);
    let (seen, code) = session.end();
    assert_eq!(code, 0, "{seen}");
    assert!(seen.ends_with("/\r\n") && !seen.contains(PASSPHRASE), "{seen}");
}

#[test]
fn a_repair_shows_what_it_would_do_and_does_it_when_told_to() {
    let bench = Bench::with_volume();
    bench.miscount_files();
    let args = ["repair", "--passphrase-file", "right", "vol"];
    for (said, ends) in [("n", Exit::NotRepaired), ("", Exit::NotRepaired), ("y", Exit::Success)] {
        assert_eq!(bench.on_volume("check", &[]).code, i32::from(Exit::Untidy.code()));
        let mut session = Session::start(&bench, &args);
        session.say("Do this? [y/N] ", said);
        let (seen, code) = session.end();
        assert_eq!(code, i32::from(ends.code()), "{seen}");
        assert!(seen.contains("repair: the volume: notes 1 inodes and 0 bytes."), "{seen}");
    }
    bench.on_volume("check", &[]).ok();
}

#[test]
fn a_rotation_asks_for_each_other_key_and_keeps_what_it_is_given() {
    let bench = Bench::new();
    let init =
        ["init", "--kdf-log-n", "15", "--passphrase-file", "right", "--save-recovery-code", "code", "./vol"];
    bench.run(&init).ok();
    bench.secret("file", "the contents of a file that is a key");
    for (label, new) in
        [("laptop", ["--new-passphrase-file", "wrong"]), ("stick", ["--new-key-file", "file"])]
    {
        let add = ["key", "add", "--kdf-log-n", "15", "--passphrase-file", "right", "--label", label, "vol"];
        bench.run(&[&add[..], &new].concat()).ok();
    }
    let code = std::fs::read_to_string(bench.path("code")).unwrap();
    let mut session = Session::start(&bench, &["key", "rotate", "--passphrase-file", "right", "vol"]);
    session.answer("Recovery code of key 1 (recovery), or nothing for a new one: ", code.trim_end());
    session.answer("Passphrase of key 2 (laptop), or nothing to drop it: ", "mistyped");
    session.answer("Passphrase of key 2 (laptop), or nothing to drop it: ", "");
    session.say("Key file of key 3 (stick), or nothing to drop it: ", "file");
    let (seen, ended) = session.end();
    assert_eq!(ended, 0, "{seen}");
    assert!(seen.contains("That does not open key 2 (laptop).") && seen.contains("Dropped key 2"), "{seen}");
    assert!(!seen.contains(code.trim_end()) && !seen.contains("mistyped"), "{seen}");
    for key in [["--recovery-code-file", "code"], ["--key-file", "file"], ["--passphrase-file", "right"]] {
        bench.run(&[&["ls"], &key[..], &["vol"]].concat()).ok();
    }
    bench.run(&["ls", "--passphrase-file", "wrong", "vol"]).refused(Exit::WrongKey, "wrong passphrase");
}
