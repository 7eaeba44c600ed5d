//! `coffer check` and `coffer repair`: what they print, and how they end.

use std::fs;

use coffer::base::Ino;
use coffer::cli::exit::Exit;
use coffer::vfs::{Caller, RenameMode};
use serde_json::Value;

use crate::support::{Bench, flip_byte, runtime};

fn populated() -> Bench {
    let bench = Bench::with_volume();
    bench.change(async |vfs| {
        for name in [&b"whole"[..], b"hurt"] {
            let attr = vfs.create(&Caller::default(), Ino::ROOT, name, 0o644, true).await.unwrap();
            vfs.write(attr.ino, 0, &[name[0]; 200_000], true).await.unwrap();
            vfs.sync_all().await.unwrap();
        }
        vfs.mkdir(&Caller::default(), Ino::ROOT, b"dir", 0o755).await.unwrap();
        vfs.rename(Ino::ROOT, b"hurt", Ino::ROOT, b"dir\n\x1b", RenameMode::Replace).await.unwrap();
    });
    bench
}

/// The segment with the contents of the second file.
fn newest_segment(bench: &Bench) -> std::path::PathBuf {
    let newest =
        bench.objects("d").into_iter().max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    newest.unwrap()
}

fn code(exit: Exit) -> i32 {
    i32::from(exit.code())
}

#[test]
fn a_sound_volume_is_said_to_be_in_one_line() {
    let bench = populated();
    let text = bench.on_volume("check", &[]).ok();
    assert!(text.starts_with("checked commit ") && text.ends_with(": nothing is wrong\n"), "{text}");
    let text = bench.on_volume("check", &["--read-data", "--json"]).ok();
    let summary: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(summary["summary"]["is_clean"], true);
    assert!(summary["summary"]["read_bytes"].as_u64().unwrap() > 400_000, "{text}");
    let text = bench.on_volume("repair", &["--yes"]).ok();
    assert!(text.starts_with("0 things done; checked commit "), "{text}");
}

#[test]
fn lost_contents_are_named_by_file_and_range_and_end_with_34() {
    let bench = populated();
    flip_byte(&newest_segment(&bench), 100_000);
    assert_eq!(bench.on_volume("check", &[]).code, 0, "that is found by reading only");
    let ended = bench.on_volume("check", &["--read-data"]);
    assert_eq!(ended.code, code(Exit::FilesDamaged), "{}", ended.stderr);
    let text = String::from_utf8(ended.stdout).unwrap();
    let line = "files: /dir\\n\\x1b: bytes 65536 to 131071 cannot be read, because segment ";
    assert!(text.contains(line) && text.contains("was altered there"), "{text}");

    let json = bench.on_volume("check", &["--read-data", "--json"]);
    let lines: Vec<Value> = String::from_utf8(json.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((&lines[0]["severity"], &lines[0]["problem"]), (&"files".into(), &"blocks-lost".into()));
    assert_eq!(
        (&lines[0]["path"], &lines[0]["ranges"]),
        (&"/dir\n\u{1b}".into(), &serde_json::json!([[65536, 131_072]]))
    );
    assert_eq!(lines[1]["summary"]["findings"]["files"], 1);
}

#[test]
fn a_missing_segment_is_named_and_a_repair_leaves_its_files_as_they_are() {
    let bench = populated();
    fs::remove_file(newest_segment(&bench)).unwrap();
    for command in [&["check"][..], &["repair", "--yes"]] {
        let ended = bench.on_volume(command[0], &command[1..]);
        assert_eq!(ended.code, code(Exit::FilesDamaged), "{}", ended.stderr);
        let text = String::from_utf8(ended.stdout).unwrap();
        assert!(text.contains("files: /dir\\n\\x1b: bytes 0 to 199999 cannot be read"), "{text}");
        assert!(!text.contains("whole"), "{text}");
    }
    assert_eq!(bench.on_volume("cat", &["whole"]).ok(), "w".repeat(200_000));
}

#[test]
fn a_repair_does_nothing_without_an_answer_and_what_it_said_with_one() {
    let bench = populated();
    bench.on_volume("repair", &[]).ok();
    bench.miscount_files();
    let before = bench.objects("");
    let planned = "repair: the volume: notes 4 inodes and 400000 bytes.\n";
    for (args, words) in [(&["--dry-run"][..], "1 thing would be done"), (&[], "no terminal to ask on")] {
        let ended = bench.on_volume("repair", args);
        assert_eq!((ended.code, ended.stdout.as_slice()), (code(Exit::NotRepaired), planned.as_bytes()));
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
        assert_eq!(bench.objects(""), before);
    }
    let json = bench.on_volume("repair", &["--yes", "--json"]).ok();
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["place"], &lines[1]["summary"]["is_clean"]), (&"the volume".into(), &true.into()));
    assert_eq!(bench.on_volume("repair", &["--yes"]).ok().lines().count(), 1, "and nothing the second time");
}

#[test]
fn what_is_not_this_volumes_is_told_and_left() {
    let bench = populated();
    let stray = bench.path("vol/d/00");
    fs::create_dir_all(&stray).unwrap();
    fs::write(stray.join("0".repeat(26)), "?").unwrap();
    let before = bench.objects("d");
    for command in [&["check"][..], &["repair", "--yes"]] {
        assert_eq!(bench.on_volume(command[0], &command[1..]).code, code(Exit::Untidy));
    }
    assert_eq!(bench.objects("d"), before);
}

#[test]
fn a_volume_that_is_mounted_is_checked_and_not_repaired() {
    let bench = populated();
    runtime().block_on(async {
        let held = bench.open_for_writing().await;
        let checked = tokio::task::block_in_place(|| bench.on_volume("check", &["--read-data"]));
        let text = checked.ok();
        assert!(text.contains("which is or was mounted") && text.contains("nothing is wrong"), "{text}");
        let refused = tokio::task::block_in_place(|| bench.on_volume("repair", &["--yes"]));
        refused.refused(Exit::VolumeInUse, &format!("process {}", std::process::id()));
        held.close().await.unwrap();
    });
}

#[test]
fn a_bucket_that_was_put_back_is_told_by_a_check_and_not_repaired() {
    let bench = populated();
    let copy = |from: &str, to: &str| {
        let status =
            std::process::Command::new("cp").arg("-a").arg(bench.path(from)).arg(bench.path(to)).status();
        assert!(status.unwrap().success());
    };
    copy("vol", "old");
    bench.change(async |_| ());
    fs::remove_dir_all(bench.path("vol")).unwrap();
    copy("old", "vol");
    let ended = bench.on_volume("check", &[]);
    assert_eq!(ended.code, code(Exit::RolledBack), "{}", ended.stderr);
    assert!(String::from_utf8(ended.stdout).unwrap().contains("this machine has seen commit"));
    bench.on_volume("repair", &["--yes"]).refused(Exit::RolledBack, "rolled back");
}

#[test]
fn records_that_cannot_be_read_end_with_35_and_name_the_object() {
    let bench = populated();
    for object in bench.objects("m") {
        let bytes = fs::read(&object).unwrap();
        flip_byte(&object, bytes.len() - 1);
        let ended = bench.on_volume("check", &["--read-data"]);
        assert_eq!(ended.code, code(Exit::TreeDamaged), "{}", ended.stderr);
        let name = object.file_name().unwrap().to_str().unwrap();
        assert!(String::from_utf8(ended.stdout).unwrap().contains(name));
        fs::write(&object, bytes).unwrap();
    }
}

#[test]
fn programs_are_told_how_far_a_check_and_a_repair_are() {
    let bench = populated();
    let last = |args: &[&str]| {
        let ended = bench.on_volume(args[0], &[&args[1..], &["--progress", "json"]].concat());
        let object: Value = serde_json::from_str(ended.stderr.lines().last().unwrap()).unwrap();
        assert_eq!((ended.code, &object["is_done"]), (0, &Value::Bool(true)), "{}", ended.stderr);
        object
    };
    let check = last(&["check"]);
    // Four inodes, three names.
    assert_eq!((&check["records"], &check["total_records"]), (&7.into(), &7.into()), "{check}");
    assert_eq!(check["total_bytes"], Value::Null);
    let check = last(&["check", "--read-data"]);
    assert!(check["total_bytes"].as_u64() > Some(400_000), "{check}");
    assert_eq!(check["bytes"], check["total_bytes"]);
    let repair = last(&["repair", "--yes"]);
    assert_eq!((&repair["step"], &repair["records"]), (&"look 2".into(), &7.into()), "{repair}");
}

#[test]
fn a_repair_that_can_put_nothing_back_foretells_that() {
    let bench = Bench::with_volume();
    bench.change(async |vfs| {
        let file = vfs.create(&Caller::default(), Ino::ROOT, b"file", 0o640, true).await.unwrap();
        vfs.write(file.ino, 0, &vec![7; 1 << 20], false).await.unwrap();
    });
    for segment in bench.objects("d") {
        fs::remove_file(segment).unwrap();
    }
    let foretold = bench.on_volume("repair", &["--dry-run", "--json"]);
    assert_eq!(foretold.code, i32::from(Exit::FilesDamaged.code()), "{}", foretold.stderr);
    assert!(foretold.stderr.contains("0 things would be done, because what is wrong cannot be put back"));
    let summary: Value = serde_json::from_slice(&foretold.stdout).unwrap();
    assert_eq!((&summary["summary"]["would"], &summary["summary"]["is_clean"]), (&0.into(), &false.into()));
}
