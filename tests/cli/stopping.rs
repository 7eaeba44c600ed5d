//! Ctrl-C in the middle of a copy: it stops in order, a second one ends it at once.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};

use coffer::cli::exit::Exit;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::Bench;

const FILES: usize = 64;
const FILE_BYTES: usize = 1 << 20;
/// A store so slow that the copy takes far longer than it takes to look at it for the first time.
const SLOW: &str = "bandwidth=4M";
/// A store that never finishes taking a segment.
const STUCK: &str = "hang=1:put:segment";

/// A directory of files, each of which is whole or not.
fn grow(top: &Path) {
    fs::create_dir(top).unwrap();
    for number in 0..FILES {
        fs::write(top.join(format!("file{number}")), vec![number as u8; FILE_BYTES]).unwrap();
    }
}

/// How many files a local directory has, all of which are whole.
fn whole(top: &Path) -> usize {
    let files = fs::read_dir(top).unwrap().map(|entry| entry.unwrap());
    let files: BTreeMap<String, Vec<u8>> =
        files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect();
    for (name, bytes) in &files {
        let number: usize = name.strip_prefix("file").unwrap().parse().unwrap();
        assert!(*bytes == vec![number as u8; FILE_BYTES], "{name} is not whole");
    }
    files.len()
}

/// A copy under way.
struct Copy {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
    said: String,
}

impl Copy {
    fn start(bench: &Bench, args: &[&str]) -> Self {
        let mut command = bench.command(args);
        command.args(["--progress", "json", "--memory", "64MiB", "--passphrase-file", "right"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines, said: String::new() }
    }

    /// Reads on until a line satisfies `is_it`.
    fn wait_for(&mut self, is_it: impl Fn(&str) -> bool) {
        loop {
            let line = self.lines.next();
            assert!(line.is_some(), "it ended: {}", self.said);
            let line = line.unwrap().unwrap();
            self.said.push_str(&format!("{line}\n"));
            if is_it(&line) {
                return;
            }
        }
    }

    /// Waits until something of the copy is done and something is not.
    fn wait_until_half_way(&mut self, is_half: fn(&Value) -> bool) {
        self.wait_for(|line| {
            let object: Option<Value> = serde_json::from_str(line).ok();
            object.is_some_and(|object| object["is_done"] == false && is_half(&object))
        });
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it said, once it has ended with this exit.
    #[track_caller]
    fn end(mut self, exit: Exit) -> String {
        let code = self.child.wait().unwrap().code();
        for line in self.lines {
            self.said.push_str(&format!("{}\n", line.unwrap()));
        }
        assert_eq!(code, Some(i32::from(exit.code())), "{}", self.said);
        self.said
    }
}

fn some_files(object: &Value) -> bool {
    object["files"].as_u64() > Some(0)
}

fn some_bytes(object: &Value) -> bool {
    object["bytes"].as_u64() > Some(0)
}

/// The same, on another machine.
fn elsewhere(bench: &Bench, args: &[&str]) -> crate::support::Ended {
    let home = bench.path("elsewhere");
    fs::create_dir_all(&home).unwrap();
    let output = bench.command(args).args(["--passphrase-file", "right"]).env("HOME", home).output();
    crate::support::Ended::of(output.unwrap())
}

#[test]
fn an_import_that_is_stopped_keeps_what_is_whole_and_lets_the_volume_go() {
    for signal in [Signal::INT, Signal::TERM] {
        let bench = Bench::with_volume();
        grow(&bench.path("from"));
        let mut import = Copy::start(&bench, &["import", "--fault", SLOW, "vol", "from", "/"]);
        import.wait_until_half_way(some_files);
        import.signal(signal);
        let said = import.end(Exit::Interrupted);
        for words in [
            "\nstopping: what is whole is kept; press Ctrl-C again to end at once\n",
            "\nerror: stopped after ",
            "; each file that was copied whole is in the bucket\n",
            "\nhint: the same command goes on from there\n",
        ] {
            assert!(said.contains(words), "{words:?} is not in: {said}");
        }
        fs::create_dir(bench.path("more")).unwrap();
        elsewhere(&bench, &["import", "vol", "more", "/more"]).ok();
        bench.run(&["export", "--passphrase-file", "right", "vol", "/", "out"]).ok();
        fs::remove_dir(bench.path("out/more")).unwrap();
        let count = whole(&bench.path("out"));
        assert!(count > 0 && count < FILES, "{count} files");
        let again = bench.run(&["import", "--passphrase-file", "right", "vol", "from", "/"]);
        let there = if count == 1 { "1 file was".to_owned() } else { format!("{count} files were") };
        assert!(again.stderr.contains(&format!("; {there} there already")), "{}", again.stderr);
        again.ok();
        bench.run(&["export", "--passphrase-file", "right", "vol", "/", "all"]).ok();
        fs::remove_dir(bench.path("all/more")).unwrap();
        assert_eq!(whole(&bench.path("all")), FILES);
    }
}

#[test]
fn a_second_ctrl_c_ends_an_import_at_once() {
    let bench = Bench::with_volume();
    grow(&bench.path("from"));
    let mut import = Copy::start(&bench, &["import", "--fault", STUCK, "vol", "from", "/"]);
    import.wait_until_half_way(some_bytes);
    import.signal(Signal::INT);
    import.wait_for(|line| line.starts_with("stopping: "));
    import.signal(Signal::INT);
    let said = import.end(Exit::Interrupted);
    assert!(
        said.contains("\nerror: ended at once: what was not in the bucket yet is not in the volume\n"),
        "{said}"
    );
    fs::create_dir(bench.path("more")).unwrap();
    let refused = elsewhere(&bench, &["import", "vol", "more", "/more"]);
    assert_eq!(refused.code, i32::from(Exit::VolumeInUse.code()), "{}", refused.stderr);
    bench.run(&["import", "--passphrase-file", "right", "vol", "from", "/"]).ok();
    elsewhere(&bench, &["import", "vol", "more", "/more"]).ok();
    bench.run(&["export", "--passphrase-file", "right", "vol", "/", "all"]).ok();
    fs::remove_dir(bench.path("all/more")).unwrap();
    assert_eq!(whole(&bench.path("all")), FILES);
}

#[test]
fn what_is_copied_out_until_a_stop_is_whole() {
    let bench = Bench::with_volume();
    grow(&bench.path("from"));
    bench.run(&["import", "--passphrase-file", "right", "vol", "from", "/files"]).ok();
    for (command, again) in [("export", "new or empty directory"), ("cp", "replaces what is there")] {
        let mut args = vec![command, "--fault", SLOW, "vol", "/files", "out"];
        if command == "cp" {
            args.push("-r");
        }
        let mut copy = Copy::start(&bench, &args);
        copy.wait_until_half_way(some_files);
        copy.signal(Signal::INT);
        let said = copy.end(Exit::Interrupted);
        assert!(said.contains("\nerror: stopped; copied and whole: ") && said.contains(again), "{said}");
        let count = whole(&bench.path("out"));
        assert!(count > 0 && count < FILES, "{command}: {count} files");
        fs::remove_dir_all(bench.path("out")).unwrap();
    }
}
