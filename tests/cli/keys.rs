//! Keys: what opens a volume, what does not, and how keys are changed.

use std::io::Write;
use std::process::Stdio;

use coffer::cli::exit::Exit;

use crate::support::{Bench, Ended, PASSPHRASE};

fn init(bench: &Bench, more: &[&str]) -> Ended {
    bench.run(&[&["init", "--kdf-log-n", "15", "./vol"], more].concat())
}

#[test]
fn the_recovery_code_is_all_of_standard_output_and_opens_the_volume() {
    let bench = Bench::new();
    let code = init(&bench, &["--passphrase-file", "right"]).ok();
    assert_eq!(code.trim_end().len(), 44, "{code}");
    assert_eq!(code.lines().count(), 1);
    bench.secret("code", &code.to_lowercase());
    bench.run(&["ls", "--recovery-code-file", "code", "vol"]).ok();
    let mut mistyped = code.into_bytes();
    mistyped.swap(0, 1);
    mistyped[2] = if mistyped[2] == b'A' { b'B' } else { b'A' };
    bench.secret("mistyped", &String::from_utf8(mistyped).unwrap());
    bench.run(&["ls", "--recovery-code-file", "mistyped", "vol"]).refused(Exit::WrongKey, "mistyped");
}

#[test]
fn a_recovery_code_in_a_file_is_private_and_its_file_is_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    bench.secret("precious", "old");
    let to = |file| ["--passphrase-file", "right", "--save-recovery-code", file];
    init(&bench, &to("precious")).refused(Exit::LocalWrite, "precious exists already");
    assert!(!bench.path("vol").exists(), "a volume was made although its code could not be saved");
    assert_eq!(init(&bench, &to("code")).ok(), "");
    assert_eq!(bench.path("code").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    bench.run(&["ls", "--recovery-code-file", "code", "vol"]).ok();
}

#[test]
fn what_a_recovery_code_is_for_is_not_done_where_the_code_cannot_be_kept() {
    let bench = Bench::new();
    let to = |file| ["--passphrase-file", "right", "--save-recovery-code", file];
    init(&bench, &to("absent/code")).refused(Exit::LocalWrite, "absent/code");
    assert!(!bench.path("vol/header").exists(), "a volume was made although its code could not be saved");
    init(&bench, &to("code")).ok();
    let add = |more: &[&str]| {
        bench.run(&[&["key", "add", "--kdf-log-n", "15", "vol", "--new-recovery-code"], more].concat())
    };
    add(&to("absent/code")).refused(Exit::LocalWrite, "absent/code");
    assert!(!bench.path("vol/header/2").exists(), "a key was added although its code could not be saved");
    let with_wrong = ["--passphrase-file", "wrong", "--save-recovery-code", "other"];
    add(&with_wrong).refused(Exit::WrongKey, "wrong passphrase");
    assert!(!bench.path("other").exists(), "a file is left that no code was written to");
}

/// What was stored before its recovery code could not be shown is none of the next volume's, and nothing to warn of.
#[test]
fn a_volume_that_could_not_be_made_leaves_nothing_that_a_check_tells_of() {
    let bench = Bench::new();
    fn files_below(dir: &std::path::Path) -> usize {
        let below = |entry: std::fs::DirEntry| match entry.file_type().unwrap().is_dir() {
            true => files_below(&entry.path()),
            false => 1,
        };
        dir.read_dir().map_or(0, |entries| entries.map(|entry| below(entry.unwrap())).sum())
    }
    let mut full = bench.command(&["init", "--kdf-log-n", "15", "--passphrase-file", "right", "./vol"]);
    full.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(full.status().unwrap().code(), Some(Exit::LocalWrite as i32));
    assert_eq!(files_below(&bench.path("vol/m")), 0, "records of no volume");
    // One that dies leaves what it likes.
    let unfinished = bench.path("vol/m/AAAAAAAAAAAAAAAAAAAAAAAAAA");
    std::fs::create_dir_all(&unfinished).unwrap();
    std::fs::write(unfinished.join("of-a-volume-without-a-header"), "x").unwrap();
    init(&bench, &["--passphrase-file", "right"]).ok();
    assert!(!unfinished.join("of-a-volume-without-a-header").exists());
    bench.run(&["check", "--passphrase-file", "right", "vol"]).ok();
}

#[test]
fn a_key_file_that_can_be_guessed_is_refused() {
    let bench = Bench::new();
    bench.secret("short", &"k".repeat(31));
    bench.secret("long", &"k".repeat(32));
    init(&bench, &["--key-file", "short"])
        .refused(Exit::NoSecret, "has 31 bytes: less than 32 can be guessed");
    init(&bench, &["--key-file", "long"]).ok();
    let add = bench.run(&["key", "add", "vol", "--key-file", "long", "--new-key-file", "short"]);
    add.refused(Exit::NoSecret, "a key file is not stretched");
}

#[test]
fn who_removes_all_but_recovery_codes_is_told() {
    let bench = Bench::with_volume();
    let told = bench.run(&["key", "remove", "--passphrase-file", "right", "vol", "0"]).stderr;
    assert!(
        told.contains("warning: only a recovery code opens the volume now; `coffer key add vol`"),
        "{told}"
    );
}

#[test]
fn a_recovery_code_is_in_its_file_before_it_opens_anything() {
    let bench = Bench::new();
    let to = |file| ["--passphrase-file", "right", "--kdf-log-n", "15", "--save-recovery-code", file];
    bench.run_until_stored(&[&["init", "./vol"], &to("code")[..]].concat(), "vol/header/1");
    let add = ["key", "add", "vol", "--new-recovery-code"];
    bench.run_until_stored(&[&add[..], &to("second")].concat(), "vol/header/2");
    for code in ["code", "second"] {
        bench.run(&["ls", "--recovery-code-file", code, "vol"]).ok();
    }
}

#[test]
fn a_recovery_code_that_cannot_be_shown_opens_nothing() {
    let bench = Bench::new();
    let to_nowhere = |args: &[&str]| {
        let mut command =
            bench.command(&[args, &["--kdf-log-n", "15", "--passphrase-file", "right"]].concat());
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        Ended::of(command.stdout(full).output().unwrap())
    };
    let said = "nothing was done, because the recovery code could not be shown";
    to_nowhere(&["init", "./vol"]).refused(Exit::LocalWrite, said);
    assert!(!bench.path("vol/header/1").exists());
    init(&bench, &["--passphrase-file", "right"]).ok();
    for change in [&["add", "vol", "--new-recovery-code"][..], &["rotate", "vol", "--drop-others"]] {
        to_nowhere(&[&["key"], change].concat()).refused(Exit::LocalWrite, said);
        assert!(!bench.path("vol/header/2").exists());
        bench.on_volume("ls", &[]).ok();
    }
}

/// A volume whose slots 0 and 2 to 9 open with a passphrase each, the last with that in `ninth`.
fn with_nine_passphrases() -> Bench {
    let bench = Bench::with_volume();
    for number in 2..=9 {
        bench.secret("ninth", &format!("the passphrase of key {number}, which nobody else has"));
        let add = ["key", "add", "--kdf-log-n", "15", "--passphrase-file", "right"];
        bench.run(&[&add[..], &["--new-passphrase-file", "ninth", "vol"]].concat()).ok();
    }
    bench
}

#[test]
fn the_ninth_passphrase_opens_its_slot_when_that_is_named() {
    let bench = with_nine_passphrases();
    let ninth = |words: &[&str], more: &[&str]| {
        bench.run(&[words, &["--passphrase-file", "ninth", "vol"], more].concat())
    };
    ninth(&["ls"], &[]).refused(Exit::WrongKey, "`--key-slot N` tries that key");
    let slot = ["--key-slot", "9"];
    std::fs::create_dir(bench.path("empty")).unwrap();
    for (words, more) in [
        (&["ls"][..], &[][..]),
        (&["check"], &[]),
        (&["repair", "--yes"], &[]),
        (&["fingerprint", "--commit"], &[]),
        (&["gc", "--dry-run"], &[]),
        (&["quota"], &[]),
        (&["inspect", "--records"], &[]),
        (&["import"], &["empty", "/"]),
        (&["key", "passwd", "--slot", "2", "--new-passphrase-file", "wrong"], &[]),
        (&["key", "remove"], &["2"]),
    ] {
        ninth(&[words, &slot].concat(), more).ok();
    }
    ninth(&["recover", "--key-slot", "9"], &[]).refused(Exit::NothingToRecover, "nothing of this volume");
    let mut command = bench.command(&["ls", "vol"]);
    command.env("COFFER_KEY_SLOT", "9").env("COFFER_PASSPHRASE_FILE", "ninth");
    Ended::of(command.output().unwrap()).ok();
    ninth(&["ls", "--key-slot", "8"], &[]).refused(Exit::WrongKey, "wrong passphrase");
    ninth(&["ls", "--key-slot", "77"], &[]).refused(Exit::WrongKey, "the volume has no key 77");
    ninth(&["key", "rotate", "--drop-others"], &slot).ok();
    ninth(&["ls"], &[]).ok();
}

#[test]
fn a_passphrase_is_not_given_to_a_second_key_however_many_there_are() {
    let bench = with_nine_passphrases();
    let add = ["key", "add", "--kdf-log-n", "15", "--passphrase-file", "right", "vol"];
    let same = [&add[..], &["--new-passphrase-file", "ninth"]].concat();
    bench.run(&same).refused(Exit::SlotRefused, "slot 9 opens with the same already");
}

#[test]
fn who_removes_the_last_recovery_code_is_told() {
    let bench = Bench::with_volume();
    let code = bench.run(&["key", "add", "--new-recovery-code", "--passphrase-file", "right", "vol"]);
    assert_eq!(code.ok().trim_end().len(), 44);
    let remove = |slot| bench.run(&["key", "remove", "--passphrase-file", "right", "vol", slot]).stderr;
    assert!(!remove("1").contains("no recovery code"), "there is another");
    let told = remove("2");
    assert!(told.contains("no recovery code now; `coffer key add --new-recovery-code vol` makes"), "{told}");
}

#[test]
fn a_passphrase_comes_from_a_file_a_command_or_a_descriptor() {
    let bench = Bench::with_volume();
    bench.secret("newline", &format!("{PASSPHRASE}\n"));
    bench.run(&["ls", "--passphrase-file", "newline", "vol"]).ok();
    bench.run(&["ls", "--passphrase-command", "cat right; echo", "vol"]).ok();
    let mut command = bench.command(&["ls", "--passphrase-fd", "0", "vol"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(PASSPHRASE.as_bytes()).unwrap();
    Ended::of(child.wait_with_output().unwrap()).ok();
    let mut command = bench.command(&["ls", "vol"]);
    Ended::of(command.env("COFFER_PASSPHRASE_FILE", "right").output().unwrap()).ok();
}

#[test]
fn a_secret_that_cannot_be_had_is_told_from_a_wrong_one() {
    let bench = Bench::with_volume();
    bench.secret("empty", "");
    bench.secret("open", PASSPHRASE);
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(bench.path("open"), readable).unwrap();
    let ls = |flag: &str, value: &str| bench.run(&["ls", flag, value, "vol"]);
    ls("--passphrase-file", "absent").refused(Exit::NoSecret, "absent");
    ls("--passphrase-file", "empty").refused(Exit::NoSecret, "empty");
    ls("--passphrase-file", "open").refused(Exit::NoSecret, "chmod 600 open");
    ls("--key-file", "open").refused(Exit::NoSecret, "chmod 600 open");
    ls("--passphrase-file", "home").refused(Exit::NoSecret, "directory");
    ls("--passphrase-command", "exit 3").refused(Exit::NoSecret, "exit status: 3");
    ls("--passphrase-command", "true").refused(Exit::NoSecret, "printed nothing");
    ls("--passphrase-fd", "77").refused(Exit::NoSecret, "descriptor 77");
    bench.run(&["ls", "vol"]).refused(Exit::NoSecret, "no terminal");
}

#[test]
fn a_key_file_opens_alone_or_together_with_a_passphrase_as_it_was_set_up() {
    let bench = Bench::new();
    bench.secret("key", "\0 a key file counts to its last byte \n");
    bench.secret("almost", "\0 a key file counts to its last byte ");
    init(&bench, &["--key-file", "key"]).ok();
    bench.run(&["ls", "--key-file", "key", "vol"]).ok();
    bench.run(&["ls", "--key-file", "almost", "vol"]).refused(Exit::WrongKey, "wrong key file");
    bench.run(&["ls", "vol"]).refused(Exit::WrongKey, "opens with a key file");

    let both = Bench::new();
    both.secret("key", "k");
    init(&both, &["--key-file", "key", "--passphrase-file", "right"]).ok();
    both.run(&["ls", "--key-file", "key", "--passphrase-file", "right", "vol"]).ok();
    both.run(&["ls", "--passphrase-file", "right", "vol"])
        .refused(Exit::WrongKey, "no slot takes passphrase");
    both.run(&["ls", "--key-file", "key", "--passphrase-file", "wrong", "vol"])
        .refused(Exit::WrongKey, "wrong passphrase or key file");
}

#[test]
fn keys_are_added_changed_and_removed_and_the_last_stays() {
    let bench = Bench::with_volume();
    let key = |words: &[&str]| bench.run(&[&["key"], words].concat());
    let right = ["--passphrase-file", "right"];
    let new_wrong = ["--kdf-log-n", "15", "--new-passphrase-file", "wrong"];
    key(&[&["add", "--label", "laptop", "--role", "data", "vol"], &right[..], &new_wrong[..]].concat()).ok();
    bench.run(&["ls", "--passphrase-file", "wrong", "vol"]).ok();
    let list = key(&["list", "vol"]).ok();
    assert!(
        list.lines().nth(3).is_some_and(|line| line.contains("2  data") && line.ends_with("laptop")),
        "{list}"
    );

    let by_data = [&["remove", "vol", "0"][..], &["--passphrase-file", "wrong"]].concat();
    key(&by_data).refused(Exit::SlotRefused, "admin");
    key(&[&["remove", "vol", "2"], &right[..]].concat()).ok();
    bench.run(&["ls", "--passphrase-file", "wrong", "vol"]).refused(Exit::WrongKey, "wrong passphrase");

    key(&[&["passwd", "vol"], &right[..], &new_wrong[..]].concat()).ok();
    bench.on_volume("ls", &[]).refused(Exit::WrongKey, "wrong passphrase");
    let wrong = ["--passphrase-file", "wrong"];
    key(&[&["remove", "vol", "1"], &wrong[..]].concat()).ok();
    key(&[&["remove", "vol", "0"], &wrong[..]].concat()).refused(Exit::SlotRefused, "last admin");
    key(&[&["remove", "vol", "9"], &wrong[..]].concat()).refused(Exit::SlotRefused, "no slot 9");
    let json: serde_json::Value = serde_json::from_str(&key(&["list", "--json", "vol"]).ok()).unwrap();
    assert_eq!(json["slots"].as_array().unwrap().len(), 1);
}
