//! Where a mount logs to, as what, and what becomes of that when files are rotated and services end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::secrecy::Search;
use crate::support::command::{run, run_ok, wait_until, wait_within};
use crate::support::servers::{self, S3_SECRET};
use crate::support::tree::is_root;
use crate::support::volume::{COFFER, Volume};

const LIMIT: Duration = Duration::from_secs(60);
/// What a mount says when it is asked by a signal.
const SAFE: &str = "Safe: everything written is in the bucket.";

/// Reads every line as a program would that knows nothing of ours, and gives them back in a form that is easy to look at.
const READ_LINES: &str = "
import datetime, json, sys
for line in open(sys.argv[1], encoding='utf-8'):
    it = json.loads(line)
    assert sorted(it) == ['fields', 'level', 'target', 'timestamp'], it
    datetime.datetime.fromisoformat(it['timestamp'])
    print(it['level'], it['target'], it['fields']['message'].replace('\\n', ' '))
";

/// The lines of a log in JSON: level, target and message of each.
fn lines_of(log: &Path) -> Vec<String> {
    let read = run_ok("python3", ["-c".as_ref(), READ_LINES.as_ref(), log.as_os_str()]).text();
    read.lines().map(str::to_owned).collect()
}

#[test]
fn a_log_goes_on_under_its_name_however_logrotate_rotates_it() {
    for how in ["nocreate", "create", "copytruncate"] {
        let volume = Volume::local();
        let mount = volume.mount_spec().args(&["--log-format", "json"]).mount();
        let (log, old) = (mount.log.clone(), mount.log.with_extension("log.1"));
        let times = |path: &Path| fs::read_to_string(path).unwrap_or_default().matches(SAFE).count();
        mount.signal(Signal::USR1);
        wait_until("it says how it is", LIMIT, || times(&log) == 1);
        let (config, state) =
            (mount.state_dir.join("logrotate.conf"), mount.state_dir.join("logrotate.state"));
        fs::write(&config, format!("{} {{\n    rotate 4\n    {how}\n}}\n", log.display())).unwrap();
        run_ok("logrotate", ["--force".as_ref(), "--state".as_ref(), state.as_os_str(), config.as_os_str()]);
        assert_eq!(times(&old), 1, "{how}: it was rotated");
        mount.signal(Signal::USR1);
        wait_until("it says so in the new file", LIMIT, || times(&log) == 1);
        assert_eq!(times(&old), 1, "{how}: and not in the old one");
        for file in [&log, &old] {
            assert!(lines_of(file).iter().any(|line| line.starts_with("INFO coffer::asked Safe: ")), "{how}");
        }
        mount.unmount();
    }
}

#[test]
fn what_a_mount_logs_is_json_for_other_programs_and_holds_no_secret() {
    let server = servers::seaweedfs();
    let volume = Volume::on(&server);
    let mount = volume.mount_spec().args(&["-vvv", "--log-format", "json"]).mount();
    assert_eq!(mount.status()["mounts"][0]["log"], mount.log.display().to_string());
    let canaries = ["name-of-a-file-90210", "contents-of-a-file-90210"];
    let [name, contents] = canaries;
    fs::write(mount.path(name), contents).unwrap();
    mount.sync();
    fs::remove_file(mount.path(name)).unwrap();
    let log = mount.log.clone();
    mount.unmount();
    let lines = lines_of(&log);
    assert!(lines.iter().any(|line| line == "INFO coffer::cli::serve mounted"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("DEBUG ")), "{} lines", lines.len());
    let mut secrets = vec![
        ("the passphrase".to_owned(), volume.passphrase.clone().into_bytes()),
        ("the key of the store".to_owned(), S3_SECRET.as_bytes().to_vec()),
    ];
    secrets.extend(canaries.map(|canary| (canary.to_owned(), canary.as_bytes().to_vec())));
    assert_eq!(Search::new(&secrets).find(&fs::read(&log).unwrap()), None);
}

#[test]
fn a_mount_in_the_background_may_keep_its_standard_error() {
    let volume = Volume::local();
    let (dir, state) = (volume.new_dir("mnt"), volume.new_dir("state"));
    let said = volume.new_dir("said").join("stderr");
    let mut coffer = volume.coffer(["mount", "--log-to", "stderr"]);
    coffer.arg(volume.bucket()).arg(&dir).arg("--passphrase-file").arg(volume.passphrase_file());
    coffer.arg("--state-dir").arg(&state).stderr(File::create(&said).unwrap());
    assert!(coffer.status().unwrap().success());
    let status = volume.try_verb("status", &dir, &["--json"]).ok();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["mounts"][0]["log"], "standard error");
    let pid = Pid::from_raw(status["mounts"][0]["mount"]["pid"].as_i64().unwrap() as i32).unwrap();
    kill_process(pid, Signal::USR1).unwrap();
    wait_until("it says how it is", LIMIT, || fs::read_to_string(&said).unwrap().contains(SAFE));
    volume.try_verb("umount", &dir, &[]).ok();
    assert!(!state.join("mount.log").exists());
}

/// As after `coffer mount -f ... 2>&1 | tee FILE` whose `tee` has ended.
#[test]
fn a_mount_outlives_whoever_reads_what_it_says() {
    let volume = Volume::local();
    let (dir, state) = (volume.new_dir("mnt"), volume.new_dir("state"));
    let mut coffer = volume.coffer(["mount", "-f", "-v", "--log-to", "stderr", "--commit-age", "1h"]);
    coffer.arg(volume.bucket()).arg(&dir).arg("--passphrase-file").arg(volume.passphrase_file());
    let mut daemon = coffer.arg("--state-dir").arg(&state).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(daemon.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().starts_with("Mounted ")));
    fs::write(dir.join("before"), "written while somebody listens").unwrap();
    let ask = || kill_process(Pid::from_child(&daemon), Signal::USR1).unwrap();
    ask();
    assert!(said.any(|line| line.unwrap().contains("not in the bucket")), "nothing is unsent");
    drop(said);
    ask();
    // What is written once the signal has been heard waits as well.
    volume.try_verb("status", &dir, &[]);
    fs::write(dir.join("after"), "written when nobody does").unwrap();
    ask();
    volume.try_verb("umount", &dir, &[]).ok();
    let (ended, is_late) = wait_within(&mut daemon, LIMIT);
    assert!(ended.success() && !is_late, "{ended}");
    let mount = volume.mount();
    for name in ["before", "after"] {
        assert!(fs::read_to_string(mount.path(name)).unwrap().starts_with("written w"), "{name}");
    }
    mount.unmount();
}

/// Gives the program that follows a journal of its own at the place where journald listens.
const WITH_JOURNAL: &str = r#"set -eu
mount -t tmpfs none /run
mkdir -p /run/systemd
ln -s "$1" /run/systemd/journal
shift
exec "$@""#;

/// What listens in the place of journald.
struct Journal {
    dir: std::path::PathBuf,
    socket: UnixDatagram,
}

impl Journal {
    fn of(volume: &Volume) -> Self {
        let dir = volume.new_dir("journal");
        let socket = UnixDatagram::bind(dir.join("socket")).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self { dir, socket }
    }

    /// `coffer ARGS`, which logs here.
    fn coffer(&self, volume: &Volume, args: &[&str]) -> Command {
        let words = ["--mount", "--propagation", "private", "sh", "-c", WITH_JOURNAL, "sh"];
        let mut coffer = volume.program("unshare", words);
        coffer.arg(&self.dir).arg(COFFER).args(args);
        coffer
    }

    /// The next message that has these words.
    fn hears(&self, words: &str) -> BTreeMap<String, String> {
        let mut heard = Vec::new();
        loop {
            let mut datagram = vec![0; 1 << 16];
            let length = self.socket.recv(&mut datagram);
            let length = length.unwrap_or_else(|e| panic!("no {words:?} after {heard:#?}: {e}"));
            let fields = fields(&datagram[..length]);
            if fields.get("MESSAGE").is_some_and(|message| message.contains(words)) {
                return fields;
            }
            heard.push(fields);
        }
    }
}

/// Takes a message apart. (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>)
fn fields(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut fields = BTreeMap::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        bytes = match line.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                fields.insert(text(&line[..at]), text(&line[at + 1..]));
                rest
            }
            None => {
                let (length, rest) = rest.split_first_chunk::<8>().unwrap();
                let (value, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
                fields.insert(text(line), text(value));
                rest.strip_prefix(b"\n").unwrap()
            }
        };
    }
    assert!(bytes.is_empty(), "{bytes:?} after {fields:?}");
    fields
}

#[test]
fn the_journal_gets_priorities_and_fields() {
    if !is_root() {
        return println!("only root can make a mount namespace");
    }
    let volume = Volume::local();
    let journal = Journal::of(&volume);
    let (dir, state) = (volume.new_dir("mnt"), volume.new_dir("state"));
    let mut coffer = journal.coffer(&volume, &["mount", "-f", "-v", "--log-to", "journal"]);
    coffer.arg(volume.bucket()).arg(&dir).arg("--passphrase-file").arg(volume.passphrase_file());
    let mut daemon = coffer.arg("--state-dir").arg(&state).spawn().unwrap();
    let mounted = journal.hears("mounted");
    let url = volume.bucket().display().to_string();
    for (name, value) in [
        ("MESSAGE", "mounted"),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "coffer"),
        ("TARGET", "coffer::cli::serve"),
        ("COFFER_POINT", dir.to_str().unwrap()),
        ("COFFER_URL", url.as_str()),
    ] {
        assert_eq!(mounted.get(name).map(String::as_str), Some(value), "{name} in {mounted:#?}");
    }
    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    journal.hears("unmounted; everything is in the bucket");
    let (ended, is_late) = wait_within(&mut daemon, LIMIT);
    assert!(ended.success() && !is_late, "{ended}");
}

#[test]
fn a_service_says_in_the_journal_why_it_ends_and_elsewhere_on_standard_error() {
    if !is_root() {
        return println!("only root can make a mount namespace");
    }
    let volume = Volume::local();
    let journal = Journal::of(&volume);
    let (dir, said) = (volume.new_dir("mnt"), volume.new_dir("said").join("stderr"));
    let end = |stream_of: &Path| {
        let stderr = File::create(&said).unwrap();
        let about = fs::metadata(stream_of).unwrap();
        let mut coffer = journal.coffer(&volume, &["mount", "-f"]);
        coffer.arg(volume.new_dir("empty")).arg(&dir).stderr(stderr);
        coffer.env("JOURNAL_STREAM", format!("{}:{}", about.dev(), about.ino()));
        assert_eq!(coffer.status().unwrap().code(), Some(10));
        fs::read_to_string(&said).unwrap()
    };
    File::create(&said).unwrap();
    assert_eq!(end(&said), "", "it is connected to the journal");
    let why = journal.hears("no volume");
    assert_eq!((why["PRIORITY"].as_str(), why["COFFER_EXIT"].as_str()), ("3", "10"), "{why:#?}");
    assert!(why["COFFER_HINT"].contains("coffer init"), "{why:#?}");
    // What a shell has inherited from a service says nothing of where its own standard error goes.
    assert!(end(&dir).starts_with("error: there is no volume at "), "it is not");
}

#[test]
fn where_no_journal_listens_that_is_said() {
    if !is_root() {
        return println!("only root can make a mount namespace");
    }
    let volume = Volume::local();
    let empty = volume.new_dir("empty");
    let words = ["--mount", "--propagation", "private", "sh", "-c", WITH_JOURNAL, "sh"];
    let mut coffer = volume.program("unshare", words);
    coffer.arg(&empty).arg(COFFER).args(["ls", "--log-to", "journal"]).arg(volume.bucket());
    let refused = run(coffer);
    assert_eq!(refused.code(), 1, "{refused}");
    assert!(refused.stderr.starts_with("error: cannot log to the journal: "), "{refused}");
}
