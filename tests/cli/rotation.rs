//! `coffer key rotate`: what opens the volume afterwards, what does not, and what is asked and told on the way.

use std::fs;
use std::process::Command;

use coffer::base::Ino;
use coffer::cli::exit::Exit;
use coffer::keys::{Factor, KdfCost, Secret};
use coffer::store::{self, StoreOptions};
use coffer::vfs::Caller;
use coffer::volume::{self, OpenOptions};

use crate::support::{Bench, PASSPHRASE, runtime};

const BYTES: usize = 3 << 20;

fn pattern() -> Vec<u8> {
    (0..BYTES).map(|at| (at % 251) as u8).collect()
}

/// A volume with a file in it, that a passphrase, a recovery code and the key of a laptop open.
fn bench() -> Bench {
    let bench = Bench::new();
    let init =
        ["init", "--kdf-log-n", "15", "--passphrase-file", "right", "--save-recovery-code", "code", "./vol"];
    bench.run(&init).ok();
    let add =
        ["key", "add", "--label", "laptop", "--passphrase-file", "right", "--new-passphrase-file", "wrong"];
    bench.run(&[&add[..], &["--kdf-log-n", "15", "--role", "data", "vol"]].concat()).ok();
    bench.change(async |vfs| {
        let file = vfs.create(&Caller::default(), Ino::ROOT, b"file", 0o640, true).await.unwrap();
        vfs.write(file.ino, 0, &pattern(), false).await.unwrap();
    });
    bench.secret("new", "a passphrase that nobody has had");
    bench
}

fn reads(bench: &Bench, key: &[&str]) {
    let read = bench.run(&[&["cat"], key, &["vol", "/file"]].concat());
    assert_eq!(read.code, 0, "{}", read.stderr);
    assert!(read.stdout == pattern(), "{} other bytes", read.stdout.len());
}

fn fingerprint(bench: &Bench) -> String {
    bench.run(&["fingerprint", "vol"]).ok()
}

#[test]
fn a_rotated_volume_opens_with_what_stayed_and_with_nothing_else() {
    let bench = bench();
    let copied = Command::new("cp").args(["-a", "home", "elsewhere"]).current_dir(bench.path("")).status();
    assert!(copied.unwrap().success());
    let before = fingerprint(&bench);
    let rotate = [
        "key",
        "rotate",
        "--passphrase-file",
        "right",
        "--new-passphrase-file",
        "new",
        "--drop-others",
        "vol",
    ];
    let rotated = bench.run(&rotate);
    assert_eq!(rotated.code, 0, "{}", rotated.stderr);
    let code = String::from_utf8(rotated.stdout).unwrap();
    let after = fingerprint(&bench);
    assert!(before != after && rotated.stderr.contains(after.trim_end()), "{}", rotated.stderr);
    assert!(
        rotated.stderr.contains("Dropped key 2 (laptop).") && rotated.stderr.contains("(1 segment, 3."),
        "{}",
        rotated.stderr
    );

    bench
        .run(&["cat", "--passphrase-file", "right", "vol", "/file"])
        .refused(Exit::WrongKey, "wrong passphrase");
    bench
        .run(&["cat", "--passphrase-file", "wrong", "vol", "/file"])
        .refused(Exit::WrongKey, "wrong passphrase");
    bench
        .run(&["cat", "--recovery-code-file", "code", "vol", "/file"])
        .refused(Exit::WrongKey, "wrong recovery code");
    reads(&bench, &["--passphrase-file", "new"]);
    bench.secret("new code", &code);
    reads(&bench, &["--recovery-code-file", "new code"]);
    // A machine that knew the volume before, and one that has never seen it.
    for state in ["elsewhere/.local/state/coffer", "nowhere"] {
        reads(&bench, &["--passphrase-file", "new", "--state-dir", state]);
    }
    let list = bench.run(&["key", "list", "vol"]);
    assert!(!list.stderr.contains("unfinished"), "{}", list.stderr);
    assert_eq!(list.ok().lines().count(), 3);
    let check = bench.run(&["check", "--read-data", "--passphrase-file", "new", "vol"]);
    assert!(!check.stderr.contains("unfinished"), "{}", check.stderr);
    assert!(check.ok().contains("nothing is wrong"));
    // What was the newest header before is offered again.
    let taken = fs::read(bench.path("vol/header/3")).unwrap();
    for number in [3, 4] {
        fs::remove_file(bench.path(&format!("vol/header/{number}"))).unwrap();
    }
    drop(taken);
    bench
        .run(&["cat", "--passphrase-file", "right", "vol", "/file"])
        .refused(Exit::KeySubstituted, "has been exchanged");
}

#[test]
fn without_a_terminal_no_key_is_dropped_unless_it_is_said() {
    let bench = bench();
    let rotate = ["key", "rotate", "--passphrase-file", "right", "vol"];
    bench.run(&rotate).refused(Exit::SlotRefused, "which would go: 1 (recovery), 2 (laptop)");
    bench.run(&["key", "rotate", "--passphrase-file", "wrong", "vol"]).refused(Exit::SlotRefused, "admin");
    assert!(!bench.path("vol/header/3").exists(), "a refusal changes nothing");
    let to = ["--save-recovery-code", "code", "--drop-others"];
    bench.run(&[&rotate[..], &to].concat()).refused(Exit::LocalWrite, "code exists already");
    reads(&bench, &["--passphrase-file", "right"]);
}

#[test]
fn a_recovery_code_is_not_promised_where_none_is_made() {
    let bench = bench();
    bench.run(&["key", "remove", "--passphrase-file", "right", "vol", "1"]).ok();
    let rotate =
        ["key", "rotate", "--passphrase-file", "right", "--drop-others", "--save-recovery-code", "new"];
    let headers = bench.objects("header").len();
    fs::remove_file(bench.path("new")).unwrap();
    bench.run(&[&rotate[..], &["vol"]].concat()).refused(Exit::SlotRefused, "there is none to write");
    assert!(!bench.path("new").exists());
    assert_eq!(bench.objects("header").len(), headers, "a refusal changes nothing");
}

#[test]
fn a_new_recovery_code_is_in_its_file_before_the_rotation_begins() {
    let bench = bench();
    let rotate = ["key", "rotate", "--passphrase-file", "right", "vol"];
    let dropping = [&rotate[..], &["--drop-others"]].concat();
    let to = |file| [&dropping[..], &["--save-recovery-code", file]].concat();
    bench.run_until_stored(&to("new code"), "vol/header/3");
    assert_eq!(is_rotating(&bench), [true, true]);
    reads(&bench, &["--recovery-code-file", "new code"]);
    bench.run(&["ls", "--recovery-code-file", "code", "vol"]).refused(Exit::WrongKey, "wrong recovery code");

    // What comes too late is refused, and who goes on is told of a code that nobody may have.
    bench
        .run(&to("another"))
        .refused(Exit::SlotRefused, "makes no recovery code any more to write to another");
    let costing = [&rotate[..], &["--kdf-log-n", "15"]].concat();
    bench.run(&costing).refused(Exit::SlotRefused, "stretched as they are");
    assert!(!bench.path("another").exists() && is_rotating(&bench) == [true, true]);
    let ended = bench.run(&dropping);
    let told =
        "`coffer key add --new-recovery-code vol` makes another; then `coffer key remove vol 1` removes";
    assert!(ended.code == 0 && ended.stderr.contains(told), "{}", ended.stderr);
    bench.run(&["key", "add", "--new-recovery-code", "--passphrase-file", "right", "vol"]).ok();
    bench.run(&["key", "remove", "--passphrase-file", "right", "vol", "1"]).ok();
    bench
        .run(&["ls", "--recovery-code-file", "new code", "vol"])
        .refused(Exit::WrongKey, "wrong recovery code");
}

#[test]
fn a_key_that_has_stayed_in_a_rotation_is_not_dropped_in_the_middle_of_it() {
    let bench = bench();
    begin(&bench, &[(0, PASSPHRASE), (2, "incorrect horse battery staple")]);
    let rotate = ["key", "rotate", "--passphrase-file", "right", "vol"];
    let dropping = [&rotate[..], &["--drop-others"]].concat();
    bench.run(&dropping).refused(Exit::SlotRefused, "open the new volume key by now: 2 (laptop)");
    assert_eq!(is_rotating(&bench), [true, true]);
    bench.run(&rotate).ok();
    reads(&bench, &["--passphrase-file", "wrong"]);
    bench.run(&dropping).ok();
    bench.run(&["ls", "--passphrase-file", "wrong", "vol"]).refused(Exit::WrongKey, "wrong passphrase");
}

#[test]
fn how_to_go_on_with_a_rotation_is_told_as_it_works() {
    let bench = bench();
    bench.secret("file", "the contents of a file that is a key");
    let rotate = ["key", "rotate", "--drop-others", "--passphrase-file", "right", "--new-key-file", "file"];
    let segment = bench.objects("d").pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    crate::support::flip_byte(&segment, 100_000);
    let failed = bench.run(&[&rotate[..], &["--save-recovery-code", "new code", "vol"]].concat());
    assert_eq!(failed.code, i32::from(Exit::Tampered.code()), "{}", failed.stderr);
    let told = "`coffer key rotate --key-file ... vol` goes on with it, with the new key and without --new-key-file, \
                --save-recovery-code";
    assert!(failed.stderr.contains(told), "{}", failed.stderr);
    fs::write(&segment, whole).unwrap();
    bench.run(&["key", "rotate", "--drop-others", "--key-file", "file", "vol"]).ok();
    reads(&bench, &["--key-file", "file"]);
}

/// Begins a rotation in which these keys stay, and does not end it.
fn begin(bench: &Bench, kept: &[(u32, &str)]) {
    let factors = |text: &str| [Factor::Passphrase(Secret::from(text))];
    runtime().block_on(async {
        let url = bench.path("vol").display().to_string();
        let bucket = store::open(&url, &StoreOptions::default()).unwrap();
        let (own, options) = (factors(PASSPHRASE), OpenOptions::default());
        let rekeying = volume::rekey(bucket, &own, &options).await.unwrap();
        let kept: Vec<_> = kept.iter().map(|(id, text)| (*id, factors(text))).collect();
        let kept: Vec<(u32, &[Factor])> = kept.iter().map(|(id, factors)| (*id, &factors[..])).collect();
        let cost = KdfCost::Fixed { log_n: 15 };
        Box::pin(volume::begin_epoch(rekeying, &own, &kept, cost, &options)).await.unwrap();
    });
}

#[test]
fn an_unfinished_rotation_is_told_and_the_next_one_ends_it() {
    let bench = bench();
    begin(&bench, &[(0, PASSPHRASE)]);
    for told in [bench.run(&["key", "list", "vol"]), bench.on_volume("check", &[])] {
        assert!(
            told.code == 0 && told.stderr.contains("rotation of the volume's key is unfinished"),
            "{}",
            told.stderr
        );
    }
    assert_eq!(is_rotating(&bench), [true, true]);
    let rotate = ["key", "rotate", "--passphrase-file", "right", "vol"];
    let replacing = [&rotate[..], &["--new-passphrase-file", "new"]].concat();
    bench.run(&replacing).refused(Exit::SlotRefused, "cannot be replaced in the middle");
    let ended = bench.run(&[&rotate[..], &["--progress", "json"]].concat());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("Going on with a rotation"), "{}", ended.stderr);
    let last = ended.stderr.lines().rfind(|line| line.starts_with('{')).unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert!(last["what"] == "rotate" && last["is_done"] == true, "{last}");
    assert!(last["bytes"] == last["total_bytes"] && last["bytes"].as_u64().unwrap() > BYTES as u64, "{last}");
    reads(&bench, &["--passphrase-file", "right"]);
    assert!(!bench.run(&["key", "list", "vol"]).stderr.contains("unfinished"));
    assert_eq!(is_rotating(&bench), [false, false]);
}

/// Whether `key list` and `check` tell a program that a rotation is unfinished.
fn is_rotating(bench: &Bench) -> [bool; 2] {
    let keys = bench.run(&["key", "list", "--json", "vol"]).ok();
    let keys: serde_json::Value = serde_json::from_str(&keys).unwrap();
    let check = bench.on_volume("check", &["--json"]).ok();
    let check: serde_json::Value = serde_json::from_str(check.lines().last().unwrap()).unwrap();
    [&keys["is_rotating"], &check["summary"]["is_rotating"]].map(|told| told.as_bool().unwrap())
}
