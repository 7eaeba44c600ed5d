//! What a machine has seen of a volume, and each way in which a bucket or a state folder does not fit it: the attack in
//! full, the error with its exit code, and that a client who was not attacked goes on working.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use coffer::base::{Ino, ManualClock};
use coffer::cli::exit::Exit;
use coffer::crypto::{AdminKey, Key};
use coffer::vfs::Caller;
use coffer::volume::OpenOptions;

use crate::support::{Bench, Ended};

const STATE: &str = "home/.local/state/coffer";

fn copy(bench: &Bench, from: &str, to: &str) {
    let _ = fs::remove_dir_all(bench.path(to));
    let status = Command::new("cp").arg("-a").arg(bench.path(from)).arg(bench.path(to)).status();
    assert!(status.unwrap().success());
}

/// Makes a directory in the volume, as the machine whose state folder is `state`.
fn commit(bench: &Bench, state: &str, name: &str) {
    let options = OpenOptions { state_dir: Some(bench.path(state)), ..OpenOptions::default() };
    bench.change_with(options, async |vfs| {
        vfs.mkdir(&Caller::default(), Ino::ROOT, name.as_bytes(), 0o755).await.unwrap();
    });
}

/// Lists the volume as the machine whose state folder is `state`.
fn ls(bench: &Bench, state: &str, more: &[&str]) -> Ended {
    bench.on_volume("ls", &[&["--state-dir", state], more].concat())
}

fn fingerprint(bench: &Bench) -> String {
    let words = bench.run(&["fingerprint", "vol"]).ok();
    assert_eq!(words.trim_end().split(' ').count(), 12, "{words}");
    words.trim_end().to_owned()
}

/// The folder of the bench's one volume in a state folder.
fn memory_of(bench: &Bench, state: &str) -> std::path::PathBuf {
    let mut folders = fs::read_dir(bench.path(state)).unwrap().map(|entry| entry.unwrap().path());
    folders.find(|path| path.is_dir()).unwrap()
}

#[test]
fn an_older_bucket_is_refused_and_the_newer_one_still_opens() {
    let bench = Bench::with_volume();
    commit(&bench, STATE, "first");
    copy(&bench, "vol", "old");
    commit(&bench, STATE, "second");
    copy(&bench, "vol", "new");
    copy(&bench, "old", "vol");
    let refused = ls(&bench, STATE, &[]);
    refused.refused(Exit::RolledBack, "offers commit 2");
    assert!(refused.stderr.contains("commit 4 was seen before"), "{}", refused.stderr);
    bench.on_volume("repair", &["--yes"]).refused(Exit::RolledBack, "rolled back");
    assert_eq!(bench.on_volume("check", &[]).code, i32::from(Exit::RolledBack.code()));

    assert_eq!(ls(&bench, "elsewhere", &[]).ok(), "first\n", "a machine that has not seen more cannot know");
    copy(&bench, "new", "vol");
    assert_eq!(ls(&bench, STATE, &[]).ok(), "first\nsecond\n");
    assert_eq!(ls(&bench, "elsewhere", &[]).ok(), "first\nsecond\n");
}

#[test]
fn two_machines_that_a_store_has_split_are_told_of_each_other() {
    let bench = Bench::with_volume();
    commit(&bench, "a", "shared");
    assert_eq!(ls(&bench, "b", &[]).ok(), "shared\n");
    copy(&bench, "vol", "split");
    commit(&bench, "a", "of a");
    copy(&bench, "vol", "of a");
    copy(&bench, "split", "vol");
    commit(&bench, "b", "of b");
    commit(&bench, "b", "more of b");

    ls(&bench, "a", &[]).refused(Exit::Forked, "its history has been exchanged");
    assert_eq!(bench.on_volume("check", &["--state-dir", "a"]).code, i32::from(Exit::Forked.code()));
    copy(&bench, "vol", "of b");
    copy(&bench, "of a", "vol");
    ls(&bench, "b", &[]).refused(Exit::RolledBack, "rolled back");
    assert_eq!(ls(&bench, "a", &[]).ok(), "of a\nshared\n", "each still reads its own");
    copy(&bench, "of b", "vol");
    assert_eq!(ls(&bench, "b", &[]).ok(), "more of b\nof b\nshared\n");
}

#[test]
fn a_commit_of_a_split_history_is_refused_by_its_hash() {
    let bench = Bench::with_volume();
    commit(&bench, "a", "shared");
    copy(&bench, "vol", "split");
    commit(&bench, "a", "of a");
    let of_a = ls_commit(&bench, "a");
    copy(&bench, "split", "vol");
    commit(&bench, "b", "of b");
    let refused = ls(&bench, "a", &[]);
    refused.refused(Exit::Forked, "commit 4 of volume");
    assert!(
        refused.stderr.contains(of_a.split_once(':').unwrap().1),
        "it says what was expected: {}",
        refused.stderr
    );
    assert_eq!(ls(&bench, "b", &[]).ok(), "of b\nshared\n");
}

/// The newest commit, as `coffer fingerprint --commit` has it.
fn ls_commit(bench: &Bench, state: &str) -> String {
    let told = bench.on_volume("fingerprint", &["--commit", "--state-dir", state]).ok();
    told.lines().nth(1).unwrap().to_owned()
}

#[test]
fn d3_a_newest_commit_that_is_too_old_is_refused_where_that_was_asked_for() {
    let bench = Bench::with_volume();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000_000_000));
    let state_dir = Some(bench.path(STATE));
    bench.change_with(OpenOptions { clock, state_dir, ..OpenOptions::default() }, async |_| ());
    let refused = ls(&bench, STATE, &["--max-staleness", "1h"]);
    refused.refused(Exit::Stale, "was made at 2023-11-14 22:13:20 UTC");
    assert!(refused.stderr.contains("it may be 3600 s old"), "{}", refused.stderr);
    bench.on_volume("check", &["--max-staleness", "1h"]).refused(Exit::Stale, "withheld");
    assert_eq!(ls(&bench, STATE, &[]).ok(), "");
    commit(&bench, STATE, "new");
    assert_eq!(ls(&bench, STATE, &["--max-staleness", "1h"]).ok(), "new\n");
}

#[test]
fn d6_a_lost_note_is_told_from_first_contact_and_trust_begins_anew_by_the_fingerprint() {
    let bench = Bench::with_volume();
    commit(&bench, STATE, "kept");
    let words = fingerprint(&bench);
    let expect = ["--expect", words.as_str()];
    // Only the note; everything of the volume.
    for everything in [false, true] {
        let memory = memory_of(&bench, STATE);
        if everything {
            fs::remove_dir_all(&memory).unwrap()
        } else {
            fs::remove_file(memory.join("pin")).unwrap()
        }
        for _ in 0..2 {
            let refused = ls(&bench, STATE, &[]);
            refused.refused(Exit::PinLost, "is gone");
            assert!(refused.stderr.contains(memory.join("pin").to_str().unwrap()), "{}", refused.stderr);
        }
        assert_eq!(ls(&bench, STATE, &expect).ok(), "kept\n");
        assert_eq!(ls(&bench, STATE, &[]).ok(), "kept\n");
    }
    fs::remove_dir_all(bench.path(STATE)).unwrap();
    let first = ls(&bench, STATE, &[]);
    assert!(
        first.stderr.contains(&words),
        "a machine that knows nothing shows what to compare: {}",
        first.stderr
    );
    assert_eq!(first.ok(), "kept\n");
    assert_eq!(ls(&bench, STATE, &[]).stderr, "", "it shows it once");
    assert_eq!(ls(&bench, "elsewhere", &expect).stderr, "", "what was compared is not shown");
}

#[test]
fn d6_notes_that_were_altered_or_are_anothers_are_refused_and_said_to_be_so() {
    let bench = Bench::with_volume();
    commit(&bench, STATE, "kept");
    let words = fingerprint(&bench);
    let pin = memory_of(&bench, STATE).join("pin");
    let good = fs::read(&pin).unwrap();
    for bytes in [&good[..good.len() - 1], &[], &[0; 208]] {
        fs::write(&pin, bytes).unwrap();
        ls(&bench, STATE, &[]).refused(Exit::PinAltered, "has been altered");
    }
    // The commit's number made less, to hide a rollback.
    let mut edited = good.clone();
    edited[31] -= 1;
    fs::write(&pin, edited).unwrap();
    ls(&bench, STATE, &[]).refused(Exit::PinAltered, "its MAC is wrong");
    assert_eq!(ls(&bench, STATE, &["--expect", words.as_str()]).ok(), "kept\n");
    assert_eq!(ls(&bench, STATE, &[]).ok(), "kept\n");

    let other = Bench::with_volume();
    commit(&other, STATE, "x");
    fs::copy(memory_of(&other, STATE).join("pin"), &pin).unwrap();
    ls(&bench, STATE, &[]).refused(Exit::PinForeign, "is of volume");
    // The note of another machine, which has seen less.
    ls(&bench, "elsewhere", &[]).ok();
    fs::copy(memory_of(&bench, "elsewhere").join("pin"), &pin).unwrap();
    ls(&bench, STATE, &[]).refused(Exit::PinForeign, "is of machine");
    assert_eq!(ls(&bench, "elsewhere", &[]).ok(), "kept\n");
}

#[test]
fn an_older_header_is_refused_by_whoever_has_seen_the_newer_one() {
    let bench = Bench::with_volume();
    let key = |verb, more: &[&str]| {
        bench.run(&[&["key", verb, "--passphrase-file", "right", "vol"], more].concat())
    };
    key("add", &["--kdf-log-n", "15", "--new-passphrase-file", "wrong"]).ok();
    ls(&bench, "elsewhere", &[]).ok();
    key("remove", &["2"]).ok();
    bench.run(&["ls", "--passphrase-file", "wrong", "vol"]).refused(Exit::WrongKey, "wrong passphrase");

    // The store hides the newest header, and the removed key opens the volume again.
    let newest = bench.path("vol/header/3");
    let bytes = fs::read(&newest).unwrap();
    fs::remove_file(&newest).unwrap();
    let refused = ls(&bench, STATE, &[]);
    refused.refused(Exit::HeaderRolledBack, "has revision 2, but revision 3 was seen");
    let removed = bench.run(&["ls", "--passphrase-file", "wrong", "vol"]);
    removed.refused(Exit::HeaderRolledBack, "revision 2");
    key("add", &["--new-recovery-code"]).refused(Exit::HeaderRolledBack, "revision 2");
    bench.on_volume("check", &[]).refused(Exit::HeaderRolledBack, "revision 2");
    bench.on_volume("repair", &["--yes"]).refused(Exit::HeaderRolledBack, "revision 2");
    assert_eq!(ls(&bench, "elsewhere", &[]).code, 0, "it has not seen the newer one");
    fs::write(&newest, bytes).unwrap();
    ls(&bench, STATE, &[]).ok();
}

#[test]
fn a3_a_passphrase_that_is_stretched_less_than_any_before_is_refused() {
    let bench = Bench::new();
    bench.run(&["init", "--kdf-log-n", "16", "--passphrase-file", "right", "./vol"]).ok();
    let add = [
        "key",
        "add",
        "--kdf-log-n",
        "15",
        "--new-passphrase-file",
        "wrong",
        "--passphrase-file",
        "right",
        "vol",
    ];
    bench.run(&[&add[..], &["--state-dir", "elsewhere"]].concat()).ok();
    let refused = ls(&bench, STATE, &[]);
    refused.refused(Exit::WeakerKeys, "is stretched at a cost of 262144");
    assert!(refused.stderr.contains("524288 was the least before"), "{}", refused.stderr);
    assert_eq!(ls(&bench, "elsewhere", &[]).code, 0, "the machine that did it knows of it");
    bench.run(&["key", "remove", "--passphrase-file", "right", "--state-dir", "elsewhere", "vol", "2"]).ok();
    ls(&bench, STATE, &[]).ok();
}

/// A header that says what `header` says, of an admin key that the store has made, properly signed.
fn forge(header: &[u8], revision: u64) -> Vec<u8> {
    let key = AdminKey::from_seed(Key::from_bytes([7; 32]));
    let body = String::from_utf8(header[12..header.len() - 96].to_vec()).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&body).unwrap();
    json["admin_public_key"] = data_encoding::HEXLOWER.encode(key.public()).into();
    json["revision"] = revision.into();
    let body = serde_json::to_vec(&json).unwrap();
    let mut bytes = [&header[..8], &(body.len() as u32).to_be_bytes(), &body, &[0; 32]].concat();
    let signature = key.sign_header(&bytes);
    bytes.extend_from_slice(&signature);
    bytes
}

#[test]
fn a1_keys_that_the_store_has_exchanged_are_refused_before_a_passphrase_is_tried() {
    let bench = Bench::with_volume();
    ls(&bench, STATE, &[]).ok();
    let header = fs::read(bench.path("vol/header/1")).unwrap();
    fs::write(bench.path("vol/header/2"), forge(&header, 2)).unwrap();
    for passphrase in ["right", "wrong"] {
        let refused = bench.run(&["ls", "--passphrase-file", passphrase, "vol"]);
        refused.refused(Exit::KeySubstituted, "the admin key of volume");
        assert!(refused.stderr.contains("was seen before"), "{}", refused.stderr);
    }
    let add = ["key", "add", "--new-recovery-code", "--passphrase-file", "right", "vol"];
    bench.run(&add).refused(Exit::KeySubstituted, "the admin key of volume");
    // Who has never seen it is not taken in either: slots are bound to the admin key.
    ls(&bench, "elsewhere", &[]).refused(Exit::WrongKey, "wrong passphrase");
    fs::remove_file(bench.path("vol/header/2")).unwrap();
    ls(&bench, STATE, &[]).ok();
    ls(&bench, "elsewhere", &[]).ok();
}

#[test]
fn another_volume_of_the_same_passphrase_in_its_place_is_refused() {
    let bench = Bench::with_volume();
    commit(&bench, STATE, "mine");
    let mine = fingerprint(&bench);
    copy(&bench, "vol", "kept");
    let elsewhere = ["--state-dir", "elsewhere"];
    fs::remove_dir_all(bench.path("vol")).unwrap();
    bench
        .run(
            &[&["init", "--kdf-log-n", "15", "--passphrase-file", "right", "./vol"], &elsewhere[..]].concat(),
        )
        .ok();
    let theirs = fingerprint(&bench);
    assert_ne!(mine, theirs);
    for url in ["vol", "vol/", &format!("file://{}", bench.path("vol").display())] {
        let refused = bench.run(&["ls", "--passphrase-file", "right", url]);
        refused.refused(Exit::OtherVolume, "was seen there before");
    }
    ls(&bench, STATE, &["--expect", mine.as_str()]).refused(Exit::Unexpected, &theirs);
    ls(&bench, "elsewhere", &["--expect", mine.as_str()]).refused(Exit::Unexpected, &mine);
    assert_eq!(ls(&bench, "elsewhere", &[]).ok(), "");

    assert_eq!(ls(&bench, STATE, &["--expect", theirs.as_str()]).ok(), "", "it was replaced on purpose");
    assert_eq!(ls(&bench, STATE, &[]).ok(), "");
    copy(&bench, "kept", "vol");
    ls(&bench, STATE, &[]).refused(Exit::OtherVolume, "was seen there before");
    assert_eq!(ls(&bench, STATE, &["--expect", mine.as_str()]).ok(), "mine\n");
    fs::remove_dir_all(bench.path("vol/header")).unwrap();
    ls(&bench, STATE, &[]).refused(Exit::HeaderDamaged, "was seen by this machine");
    ls(&bench, "third", &[]).refused(Exit::NoVolume, "no volume");
}

#[test]
fn at_first_contact_the_fingerprint_and_a_commit_tell_a_volume_and_its_state() {
    let bench = Bench::new();
    let made = bench.run(&["init", "--kdf-log-n", "15", "--passphrase-file", "right", "./vol"]);
    let words = fingerprint(&bench);
    assert!(made.stderr.contains(&words), "{}", made.stderr);
    assert_eq!(ls(&bench, STATE, &[]).stderr, "", "the machine that made it knows it");
    copy(&bench, "vol", "old");
    commit(&bench, STATE, "new");
    let told = ls_commit(&bench, STATE);
    commit(&bench, STATE, "newer");
    let upper = words.to_uppercase();
    let both = ["--expect", upper.as_str(), "--expect-commit", told.as_str()];
    assert_eq!(ls(&bench, "elsewhere", &both).ok(), "new\nnewer\n", "it goes on from the commit");
    copy(&bench, "vol", "newest");
    copy(&bench, "old", "vol");
    let refused = ls(&bench, "a third", &both);
    refused.refused(Exit::Unexpected, "is not there, and not");
    let (number, hash) = told.split_once(':').unwrap();
    copy(&bench, "newest", "vol");
    let wrong = format!("{number}:{}{}", if hash.starts_with('0') { '1' } else { '0' }, &hash[1..]);
    ls(&bench, "a third", &["--expect-commit", &wrong]).refused(Exit::Unexpected, hash);
    bench.on_volume("check", &["--expect-commit", &wrong]).refused(Exit::Unexpected, hash);
    assert_eq!(ls(&bench, "a third", &both).ok(), "new\nnewer\n");

    for (flag, value) in
        [("--expect", "zoo"), ("--expect", "zoo zoo"), ("--expect-commit", "7"), ("--expect-commit", "7:ab")]
    {
        assert_eq!(ls(&bench, STATE, &[flag, value]).code, 2, "{flag} {value}");
    }
}

#[test]
fn a_state_folder_that_cannot_be_used_does_not_keep_a_volume_from_being_made() {
    let bench = Bench::new();
    let args =
        ["init", "--kdf-log-n", "15", "--passphrase-file", "right", "--state-dir", "right/below", "./vol"];
    let made = bench.run(&args);
    assert!(made.stderr.contains("cannot remember the volume"), "{}", made.stderr);
    made.ok();
    assert!(Path::new(&bench.path("vol/header/1")).exists());
}
