//! Each way to fail has its own exit code and one sentence that says what, where and what to do.

use std::fs;

use coffer::base::Ino;
use coffer::cli::exit::Exit;
use coffer::vfs::Caller;

use crate::support::{Bench, flip_byte, runtime};

#[test]
fn a_command_line_that_makes_no_sense_is_a_usage_error() {
    let bench = Bench::new();
    for args in [
        &["init"][..],
        &["mount", "vol"],
        &["frobnicate"],
        &["ls", "vol", "--passphrase", "secret"],
        &["cat", "vol"],
        &["key", "list", "vol", "--nonsense"],
        &["init", "--kdf-log-n", "14", "vol"],
        &["mount", "--memory", "12 parsecs", "vol", "m"],
        &["ls", "--passphrase-file", "right", "--passphrase-fd", "0", "vol"],
    ] {
        assert_eq!(bench.run(args).code, 2, "{args:?}");
    }
    bench.run(&["ls", "ftp://host/x"]).refused(Exit::Usage, "ftp");
    bench.run(&["ls", ""]).refused(Exit::Usage, "the URL is empty");
}

#[test]
fn a_url_with_credentials_is_refused_without_repeating_them() {
    let ended = Bench::new().run(&["ls", "s3://key:hunter2@bucket/x"]);
    ended.refused(Exit::Usage, "bucket");
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
}

#[test]
fn a_bucket_in_the_spelling_of_another_program_is_not_taken_for_a_directory() {
    let bench = Bench::new();
    let init = |url| bench.run(&["init", "--kdf-log-n", "15", "--passphrase-file", "right", url]);
    for url in ["s3:my-bucket", "gs:bucket", "az:container", "b2:bucket/home", "S3:/bucket"] {
        init(url).refused(Exit::Usage, "no `//` after it");
        assert!(!bench.path(url).exists(), "{url}");
    }
    init("./s3:my-bucket").ok();
    assert!(bench.path("s3:my-bucket/header").is_dir());
    bench.run(&["ls", "--passphrase-file", "right", "s3:my-bucket"]).refused(Exit::Usage, "written with ./");
}

#[test]
fn a_word_that_names_neither_a_volume_nor_a_directory_is_told_as_such() {
    let bench = Bench::new();
    bench.run(&["init", "--passphrase-file", "right", "hone"]).refused(Exit::BucketMissing, "write ./hone");
    assert!(!bench.path("hone").exists());
    bench.run(&["ls", "hone"]).refused(Exit::BucketMissing, "neither the name of a volume");
    fs::create_dir(bench.path("hone")).unwrap();
    bench.run(&["init", "--kdf-log-n", "15", "--passphrase-file", "right", "hone"]).ok();
}

#[test]
fn an_unknown_mount_option_is_named_but_not_its_value() {
    let bench = Bench::with_volume();
    fs::create_dir(bench.path("m")).unwrap();
    let ended = bench.run(&["mount", "-o", "rw,passphrase=hunter2", "vol", "m"]);
    ended.refused(Exit::Usage, "unknown mount option \"passphrase\"");
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    // What gives up a protection is typed each time; a list may come from a file.
    bench.run(&["mount", "-o", "ro,takeover", "vol", "m"]).refused(Exit::Usage, "say --takeover");
}

#[test]
fn an_interval_that_would_cost_requests_without_end_is_refused() {
    let bench = Bench::new();
    for option in ["--heartbeat", "--read-timeout"] {
        bench.run(&["mount", option, "0s", "vol", "m"]).refused(Exit::Usage, "1s is the least");
        bench.run(&["mount", option, "999ms", "vol", "m"]).refused(Exit::Usage, "1s is the least");
    }
}

#[test]
fn where_no_volume_is_none_is_opened_and_nothing_is_asked() {
    let bench = Bench::new();
    fs::create_dir(bench.path("empty")).unwrap();
    for command in ["ls", "key list"] {
        let words: Vec<&str> = command.split(' ').collect();
        bench.run(&[&words[..], &["empty"]].concat()).refused(Exit::NoVolume, "no volume at");
        bench.run(&[&words[..], &["absent"]].concat()).refused(Exit::BucketMissing, "does not exist");
    }
    bench.run(&["init", "absent/vol"]).refused(Exit::BucketMissing, "does not exist");
    assert!(!bench.path("absent").exists());
}

#[test]
fn a_volume_is_never_made_over_another() {
    let bench = Bench::with_volume();
    let before: Vec<_> = bench.objects("").iter().map(|path| fs::read(path).unwrap()).collect();
    let again = bench.run(&["init", "--passphrase-file", "wrong", "vol"]);
    again.refused(Exit::VolumeExists, "a volume at");
    let after: Vec<_> = bench.objects("").iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(before == after, "the volume was changed");
}

#[test]
fn a_volume_is_never_made_over_the_contents_of_one_that_lost_its_header() {
    let bench = Bench::with_volume();
    bench.change(async |vfs| {
        let file = vfs.create(&Caller::default(), Ino::ROOT, b"file", 0o640, true).await.unwrap();
        vfs.write(file.ino, 0, &vec![7; 1 << 20], false).await.unwrap();
    });
    fs::rename(bench.path("vol/header"), bench.path("header")).unwrap();
    let init = ["init", "--kdf-log-n", "15", "--passphrase-file", "wrong", "vol"];
    bench.run(&init).refused(Exit::HeaderDamaged, "put header/ back");
    fs::rename(bench.path("header"), bench.path("vol/header")).unwrap();
    bench.on_volume("check", &["--read-data"]).ok();
}

#[test]
fn where_a_volume_was_seen_a_header_that_is_gone_is_told_and_no_other_volume_made() {
    let bench = Bench::with_volume();
    fs::create_dir_all(bench.path("from")).unwrap();
    fs::write(bench.path("from/small"), "x").unwrap();
    bench.on_volume("import", &["from", "/"]).ok();
    assert!(!bench.path("vol/d").exists(), "the file is in its record");
    fs::rename(bench.path("vol/header"), bench.path("header")).unwrap();
    bench.on_volume("ls", &[]).refused(Exit::HeaderDamaged, "was seen by this machine");
    let init = ["init", "--kdf-log-n", "15", "--passphrase-file", "wrong", "vol"];
    bench.run(&init).refused(Exit::HeaderDamaged, "put header/ back");
    // Neither does a machine that has never seen it, nor one that is told that nothing is left.
    for elsewhere in [&["--state-dir", "elsewhere"][..], &["--anew"]] {
        bench.run(&[&init[..], elsewhere].concat()).refused(Exit::HeaderDamaged, "contents of a volume");
    }
    bench.run(&["ls", "--state-dir", "elsewhere", "vol"]).refused(Exit::NoVolume, "no volume at");
    fs::rename(bench.path("header"), bench.path("vol/header")).unwrap();
    assert_eq!(bench.on_volume("cat", &["small"]).ok(), "x");

    fs::remove_dir_all(bench.path("vol")).unwrap();
    fs::create_dir(bench.path("vol")).unwrap();
    bench.run(&init).refused(Exit::HeaderDamaged, "was seen by this machine");
    bench.run(&[&init[..], &["--anew"]].concat()).ok();
    bench.run(&["ls", "--passphrase-file", "wrong", "vol"]).ok();
}

#[test]
fn what_a_making_that_was_broken_off_leaves_is_no_volume() {
    let bench = Bench::with_volume();
    fs::remove_dir_all(bench.path("vol/header")).unwrap();
    let again =
        ["init", "--kdf-log-n", "15", "--passphrase-file", "right", "--state-dir", "elsewhere", "vol"];
    bench.run(&again).ok();
    bench.run(&["ls", "--passphrase-file", "right", "--state-dir", "elsewhere", "vol"]).ok();
}

#[test]
fn a_copy_of_a_header_under_a_higher_number_is_refused_by_who_needs_no_key_too() {
    let bench = Bench::with_volume();
    fs::copy(bench.path("vol/header/1"), bench.path("vol/header/9")).unwrap();
    for command in [&["key", "list"][..], &["key", "list", "--json"], &["fingerprint"], &["ls"]] {
        let said = bench.run(&[command, &["vol"]].concat());
        said.refused(Exit::HeaderDamaged, "its number is not that of its object");
    }
    fs::remove_file(bench.path("vol/header/9")).unwrap();
    bench.run(&["key", "list", "vol"]).ok();
}

#[test]
fn a_damaged_header_a_newer_one_and_a_wrong_passphrase_are_told_apart() {
    let bench = Bench::with_volume();
    let header = bench.path("vol/header/1");
    let good = fs::read(&header).unwrap();
    bench.run(&["ls", "--passphrase-file", "wrong", "vol"]).refused(Exit::WrongKey, "wrong passphrase");

    flip_byte(&header, good.len() - 1);
    bench.on_volume("ls", &[]).refused(Exit::HeaderDamaged, "damaged");
    for length in [0, 7, 11, 100, good.len() - 1] {
        fs::write(&header, &good[..length]).unwrap();
        bench.on_volume("ls", &[]).refused(Exit::HeaderDamaged, "header");
    }

    let newer = String::from_utf8_lossy(&good[12..]).find("\"format\": 1").unwrap() + 12;
    let mut bytes = good.clone();
    bytes[newer + "\"format\": ".len()] = b'9';
    fs::write(&header, &bytes).unwrap();
    bench.on_volume("ls", &[]).refused(Exit::NewerFormat, "format version 9");

    fs::write(&header, &good).unwrap();
    bench.on_volume("ls", &[]).ok();
}

#[test]
fn a_mount_point_is_looked_at_before_a_passphrase_is_asked_for() {
    let bench = Bench::with_volume();
    fs::create_dir_all(bench.path("full/of")).unwrap();
    bench.run(&["mount", "vol", "absent"]).refused(Exit::BadMountPoint, "does not exist");
    bench.run(&["mount", "vol", "right"]).refused(Exit::BadMountPoint, "not a directory");
    bench.run(&["mount", "vol", "full"]).refused(Exit::BadMountPoint, "not empty");
    // It would wait for itself when it is to save.
    let into_itself = ["mount", "-o", "nonempty", "--state-dir", "full/of/state", "vol", "full"];
    bench.run(&into_itself).refused(Exit::BadMountPoint, "lies below it");
}

#[test]
fn a_mount_that_nobody_could_ask_is_refused() {
    let bench = Bench::with_volume();
    fs::create_dir_all(bench.path("session/other")).unwrap();
    let session = bench.path("session").display().to_string();
    let point = if rustix::process::geteuid().is_root() { "/run" } else { "session" };
    // Should it be taken, nothing is mounted.
    let mut command = bench.command(&["mount", "--fake", "-o", "nonempty", "vol", point]);
    let output = command.env("XDG_RUNTIME_DIR", session).output().unwrap();
    let ended = crate::support::Ended::of(output);
    assert_eq!(ended.code, i32::from(Exit::BadMountPoint.code()), "{}", ended.stderr);
    assert!(ended.stderr.contains("control socket") && ended.stderr.contains("below it"), "{}", ended.stderr);
}

#[test]
fn a_mount_over_what_lets_it_into_its_bucket_is_refused() {
    let bench = Bench::new();
    for dir in ["home/.aws", "m", "state"] {
        fs::create_dir_all(bench.path(dir)).unwrap();
    }
    fs::write(bench.path("home/.aws/config"), "[profile corp]\ncredential_process = true\n").unwrap();
    let ended = |url: &str, point: &str, more: &[&str], variables: &[(&str, &str)]| {
        let fixed = ["mount", "--fake", "-o", "nonempty", "--state-dir", "state", url, point];
        let mut command = bench.command(&[&fixed[..], more].concat());
        command.envs(variables.iter().map(|(name, path)| (name, bench.path(path))));
        crate::support::Ended::of(command.output().unwrap())
    };
    let (token, google) = ("AZURE_FEDERATED_TOKEN_FILE", "GOOGLE_APPLICATION_CREDENTIALS");
    let corp = ["--aws-profile", "corp"];
    for (url, more, variables, what) in [
        ("s3://b", &corp[..], &[][..], "shared AWS file"),
        ("az://b", &["--ca-file", "home/ca.pem"], &[], "file of certificates"),
        ("az://b", &[], &[(token, "home/token")], "file of a token"),
        ("gs://b", &[], &[(google, "home/key.json")], "file of credentials"),
    ] {
        ended(url, "home", more, variables).refused(Exit::BadMountPoint, &format!("the {what} "));
        assert_eq!(ended(url, "m", more, variables).code, 0, "{what}");
    }
    let elsewhere = [("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")];
    fs::rename(bench.path("home/.aws/config"), bench.path("config")).unwrap();
    assert_eq!(ended("s3://b", "home", &corp, &elsewhere).code, 0);
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    let bench = Bench::with_volume();
    let ended = bench.run(&["ls", "--passphrase-file", "right", "--state-dir", "right/below", "vol"]);
    ended.refused(Exit::StateDir, "right/below");
    let mut command = bench.command(&["ls", "--passphrase-file", "right", "vol"]);
    let homeless = command.env_remove("HOME").output().unwrap();
    let root = rustix::process::geteuid().is_root();
    assert_eq!(homeless.status.code(), Some(if root { 0 } else { i32::from(Exit::StateDir.code()) }));
}

#[test]
fn where_nothing_is_mounted_status_sync_and_umount_say_so() {
    let bench = Bench::new();
    bench.run(&["status", "home"]).refused(Exit::NotMounted, "no volume is mounted at home");
    bench.run(&["sync", "home"]).refused(Exit::NotMounted, "no volume is mounted at home");
    bench.run(&["umount", "home"]).refused(Exit::NotMounted, "no volume is mounted at home");
}

#[test]
fn a_volume_that_is_being_written_is_not_mounted_a_second_time() {
    let bench = Bench::with_volume();
    fs::create_dir(bench.path("m")).unwrap();
    runtime().block_on(async {
        let held = bench.open_for_writing().await;
        for foreground in [&["-f"][..], &[]] {
            let args = [&["mount", "--passphrase-file", "right"], foreground, &["vol", "m"]].concat();
            let ended = tokio::task::block_in_place(|| bench.run(&args));
            ended.refused(Exit::VolumeInUse, &format!("process {}", std::process::id()));
        }
        held.close().await.unwrap();
    });
}

#[test]
fn an_altered_block_fails_its_file_and_no_other() {
    let bench = Bench::with_volume();
    bench.change(async |vfs| {
        for name in [&b"whole"[..], b"hurt"] {
            let attr =
                vfs.create(&Caller::default(), coffer::base::Ino::ROOT, name, 0o644, true).await.unwrap();
            vfs.write(attr.ino, 0, &[name[0]; 200_000], true).await.unwrap();
            vfs.sync_all().await.unwrap();
        }
    });
    let newest =
        bench.objects("d").into_iter().max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    flip_byte(&newest.unwrap(), 100_000);
    let whole = bench.on_volume("cat", &["whole"]);
    assert_eq!(whole.ok(), "w".repeat(200_000));
    assert_eq!(bench.on_volume("cat", &["hurt"]).code, i32::from(Exit::Tampered.code()));
    let exported = bench.on_volume("export", &["/", "out"]);
    assert_eq!(exported.code, i32::from(Exit::Tampered.code()), "{}", exported.stderr);
    let told = exported.stderr.lines().filter(|line| line.contains("damaged")).count();
    assert_eq!(told, 1, "once: {}", exported.stderr);
    assert_eq!(fs::read(bench.path("out/whole")).unwrap(), vec![b'w'; 200_000]);
    assert!(!bench.path("out/hurt").exists(), "half a file has its name");
    assert_eq!(fs::read_dir(bench.path("out")).unwrap().count(), 1, "a partial file was left behind");
}
