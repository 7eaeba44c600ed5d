//! `docs/FORMAT.md` is enough: `scripts/coffer-read.py`, written from it, gives volumes as Coffer does and refuses altered ones.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use coffer::base::{Entropy, FileKind, Ino, OsEntropy, SeededEntropy, SystemClock, Time};
use coffer::cli::exit::Exit;
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewVolume};
use coffer::store::{self, Bucket, StoreOptions};
use coffer::vfs::{Attr, Caller, Handle, SetAttr, Vfs, XattrMode};
use coffer::volume::{self, NewVolumeSpec, OpenOptions};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/coffer-read.py");
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1");
const FIXTURE_PASSPHRASE: &str = "the passphrase of the fixture";
const KEY_FILE: &[u8] = b"the key file of a volume for the second reader";
const CALLER: Caller = Caller { uid: 1000, gid: 100, pid: 1, umask: 0 };

/// A volume in a directory, and what opens it.
struct Bench {
    dir: TempDir,
    option: &'static str,
    secret: Vec<u8>,
}

impl Bench {
    fn new(option: &'static str, secret: &[u8]) -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap(), option, secret: secret.to_vec() };
        fs::write(bench.path("secret"), secret).unwrap();
        fs::set_permissions(bench.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        bench
    }

    fn with_fixture() -> Self {
        let bench = Self::new("--passphrase-file", FIXTURE_PASSPHRASE.as_bytes());
        let copied = Command::new("cp").args(["-r", FIXTURE]).arg(bench.path("vol")).status().unwrap();
        assert!(copied.success());
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn bucket(&self) -> Bucket {
        let options = StoreOptions { create: true, ..StoreOptions::default() };
        store::open(self.path("vol").to_str().unwrap(), &options).unwrap()
    }

    fn factors(&self) -> Vec<Factor> {
        let secret = Secret::new(self.secret.clone());
        match self.option {
            "--key-file" => vec![Factor::KeyFile(secret)],
            _ => vec![Factor::Passphrase(secret)],
        }
    }

    /// The output of `coffer inspect` on the volume.
    fn inspect(&self, args: &[&str]) -> Vec<u8> {
        done(self.coffer("inspect", args))
    }

    fn coffer(&self, name: &str, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
        command.args([name, self.option, "secret", "vol"]).args(args).current_dir(self.dir.path());
        command.env_clear().env("HOME", self.dir.path()).output().unwrap()
    }

    fn keep_records(&self) {
        fs::write(self.path("records"), self.inspect(&["--records"])).unwrap();
    }

    /// The second reader on the volume and the records that were kept.
    fn read(&self, args: &[&str]) -> Output {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let python = target.join("tools/reader/bin/python");
        assert!(python.exists(), "{} is missing: run scripts/deps", python.display());
        // Isolated: it finds Python's own modules and `cryptography`, and no file beside it.
        let mut command = Command::new(python);
        command.args(["-I", SCRIPT, "vol", self.option, "secret", "--records", "records"]).args(args);
        command.current_dir(self.dir.path()).output().unwrap()
    }

    /// It finds nothing wrong, and gives the paths, attributes and contents that Coffer does.
    async fn agrees(&self) {
        self.keep_records();
        done(self.read(&["check"]));
        let listed = String::from_utf8(done(self.read(&["ls"]))).unwrap();
        let rows = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let read: BTreeMap<String, Value> =
            rows.map(|row| (row["path"].as_str().unwrap().to_owned(), row)).collect();
        let mut options = OpenOptions::default();
        options.vfs.read_only = true;
        let opened = volume::open(self.bucket(), &self.factors(), options).await.unwrap();
        let ours = tree(&opened.vfs).await;
        opened.close().await.unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
        for (path, row) in ours {
            let mut theirs = read[&path].clone();
            // Coffer tells them in units of 512 bytes.
            let allocated = theirs["allocated"].as_u64().unwrap();
            theirs["allocated"] = json!(allocated.div_ceil(512));
            assert_eq!(theirs, row, "{path}");
        }
    }

    /// The objects below a directory of the bucket.
    fn objects(&self, below: &str) -> Vec<String> {
        let (mut found, mut queue) = (Vec::new(), vec![self.path("vol").join(below)]);
        while let Some(dir) = queue.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => queue.push(path),
                    false => {
                        let name = path.strip_prefix(self.path("vol")).unwrap();
                        found.push(name.to_str().unwrap().to_owned());
                    }
                }
            }
        }
        found.sort();
        found
    }

    /// With one bit of `file` changed it ends with an error that says `words`.
    fn refuses_flipped(&self, file: &str, at: usize, words: &str) {
        let path = self.path(file);
        let bytes = fs::read(&path).unwrap();
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        fs::write(&path, altered).unwrap();
        self.refuses(words, &format!("{file} at {at}"));
        fs::write(&path, bytes).unwrap();
    }

    /// It ends with an error that says `words`; `what` was altered.
    fn refuses(&self, words: &str, what: &str) {
        let ended = self.read(&["check"]);
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{what}: {told}");
        assert!(told.starts_with("coffer-read: ") && told.contains(words), "{what}: {told}");
    }
}

fn done(output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// As the second reader shows names.
fn show(name: &[u8]) -> String {
    let mut shown = String::new();
    for byte in name {
        match byte {
            b' '..=b'~' if *byte != b'\\' => shown.push(char::from(*byte)),
            _ => shown.push_str(&format!("\\x{byte:02x}")),
        }
    }
    shown
}

/// Every path as Coffer has it, in the form of the second reader.
async fn tree(vfs: &Vfs) -> BTreeMap<String, Value> {
    let root = vfs.getattr(Ino::ROOT).await.unwrap();
    let mut rows = BTreeMap::from([(".".to_owned(), row(vfs, ".", &root).await)]);
    let mut queue = vec![(Ino::ROOT, Vec::new())];
    while let Some((dir, above)) = queue.pop() {
        for entry in vfs.readdir(dir, 0, 1000).await.unwrap() {
            if entry.name == b"." || entry.name == b".." {
                continue;
            }
            let path = [&above[..], &entry.name].concat();
            let attr = vfs.lookup(dir, &entry.name).await.unwrap();
            if attr.kind == FileKind::Directory {
                queue.push((attr.ino, [&path[..], b"/"].concat()));
            }
            rows.insert(show(&path), row(vfs, &show(&path), &attr).await);
        }
    }
    rows
}

async fn row(vfs: &Vfs, path: &str, attr: &Attr) -> Value {
    let time = |time: Time| json!([time.secs, time.nanos]);
    let format = match attr.kind {
        FileKind::Regular => 0o100_000,
        FileKind::Directory => 0o040_000,
        FileKind::Symlink => 0o120_000,
        FileKind::Fifo => 0o010_000,
        FileKind::CharDevice => 0o020_000,
        FileKind::BlockDevice => 0o060_000,
        FileKind::Socket => 0o140_000,
    };
    let mut xattrs = serde_json::Map::new();
    for name in vfs.list_xattr(attr.ino).await.unwrap().split(|byte| *byte == 0).filter(|n| !n.is_empty()) {
        let value = vfs.get_xattr(attr.ino, name).await.unwrap();
        xattrs.insert(show(name), HEXLOWER.encode(&value).into());
    }
    let mut row = json!({
        "path": path, "ino": attr.ino.0, "mode": format!("{:06o}", format | u32::from(attr.perm)),
        "perm": attr.perm, "uid": attr.uid, "gid": attr.gid, "nlink": attr.nlink, "rdev": attr.rdev,
        "size": attr.size, "allocated": attr.blocks, "atime": time(attr.atime), "mtime": time(attr.mtime),
        "ctime": time(attr.ctime), "btime": time(attr.btime), "xattrs": xattrs,
    });
    if attr.kind == FileKind::Symlink {
        row["target"] = show(&vfs.readlink(attr.ino).await.unwrap()).into();
    }
    if attr.kind == FileKind::Regular {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < attr.size {
            bytes.extend(vfs.read(Handle(0), attr.ino, bytes.len() as u64, 4 << 20).await.unwrap());
        }
        row["sha256"] = HEXLOWER.encode(digest(&SHA256, &bytes).as_ref()).into();
    }
    row
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededEntropy::new(7).fill(&mut bytes);
    bytes
}

async fn file(vfs: &Vfs, name: &[u8], bytes: &[u8]) -> Ino {
    let file = vfs.create(&CALLER, Ino::ROOT, name, 0o604, true).await.unwrap();
    vfs.write(file.ino, 0, bytes, true).await.unwrap();
    file.ino
}

/// Every kind of file and of body, in several commits.
async fn populate(vfs: &Vfs) {
    let text = b"compressible, and long enough for it: ".repeat(10_000);
    file(vfs, b"inline", b"a few bytes").await;
    vfs.sync_all().await.unwrap();
    let many = file(vfs, b"many blocks", &noise(3_000_001)).await;
    let packed = file(vfs, b"packed", &text).await;
    file(vfs, b"gone, and in use", b"an orphan").await;
    vfs.sync_all().await.unwrap();
    let gone = file(vfs, b"gone", &noise(200_000)).await;
    vfs.sync_all().await.unwrap();
    let sparse = file(vfs, b"sparse", b"front").await;
    vfs.write(sparse, 70 << 20, &text[..100_000], true).await.unwrap();
    let resize = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    // Cut within a block that is in a segment already, and grown again: zeros follow.
    vfs.setattr(&CALLER, packed, &resize(100_000)).await.unwrap();
    vfs.sync_all().await.unwrap();
    vfs.setattr(&CALLER, packed, &resize(200_000)).await.unwrap();
    vfs.unlink(Ino::ROOT, b"gone, and in use").await.unwrap();
    vfs.unlink(Ino::ROOT, b"gone").await.unwrap();
    vfs.forget(gone, 1);
    let shared = file(vfs, b"shared", b"").await;
    vfs.copy_file_range(many, 0, shared, 65_536, 1_000_000).await.unwrap();
    let dir = vfs.mkdir(&CALLER, Ino::ROOT, b"dir", 0o1770).await.unwrap();
    let below = vfs.mkdir(&CALLER, dir.ino, &[b'd'; 255], 0o700).await.unwrap();
    vfs.link(many, below.ino, b"hard \\ \xFF link").await.unwrap();
    vfs.symlink(&CALLER, below.ino, b"soft", b"../\xC3(/many blocks").await.unwrap();
    vfs.mknod(&CALLER, dir.ino, b"null", FileKind::CharDevice, 0o666, 0x103).await.unwrap();
    vfs.mknod(&CALLER, dir.ino, b"socket", FileKind::Socket, 0o600, 0).await.unwrap();
    vfs.set_xattr(many, b"user.empty", b"", XattrMode::Set).await.unwrap();
    vfs.set_xattr(many, b"user.large", &noise(60_000), XattrMode::Set).await.unwrap();
    vfs.set_xattr(dir.ino, b"user.\xFF", b"odd", XattrMode::Set).await.unwrap();
}

async fn make_volume(bench: &Bench, compression: Compression) {
    let header = NewVolume { compression, kdf_cost: KdfCost::Fixed { log_n: 15 } };
    let spec = NewVolumeSpec { header, quota_bytes: 0, owner: (1000, 100) };
    let clock = Arc::new(SystemClock::default());
    let (bucket, factors) = (bench.bucket(), bench.factors());
    volume::create(&bucket, &spec, &factors, Arc::new(OsEntropy), clock).await.unwrap();
    // With local state the commits have a device and a counter, which those of the fixture have not.
    let options = OpenOptions { state_dir: Some(bench.path("state")), ..OpenOptions::default() };
    let opened = volume::open(bucket, &factors, options).await.unwrap();
    populate(&opened.vfs).await;
    opened.close().await.unwrap();
}

/// A format that takes a long program to read is too large; the other tests run it without any file beside it.
#[test]
fn it_has_less_than_500_lines() {
    let script = fs::read_to_string(SCRIPT).unwrap();
    let lines = script.lines().count();
    assert!(lines < 500, "{lines} lines");
    let long: Vec<&str> = script.lines().filter(|line| line.chars().count() > 130).collect();
    assert!(long.is_empty(), "longer than 130 characters: {long:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_gives_the_fixture_as_coffer_does() {
    Bench::with_fixture().agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_gives_a_volume_with_everything_in_it_as_coffer_does() {
    for compression in [Compression::None, Compression::Lz4] {
        let bench = Bench::new("--key-file", KEY_FILE);
        make_volume(&bench, compression).await;
        bench.agrees().await;
        let records = fs::read_to_string(bench.path("records")).unwrap();
        let letters = records.lines().map(|line| HEXLOWER.decode(&line.as_bytes()[..2]).unwrap()[0]);
        let letters: BTreeSet<char> = letters.map(char::from).collect();
        assert_eq!(String::from_iter(letters), "BCDEGIMORSVX");
        let whole = done(bench.read(&["cat", "many blocks"]));
        assert!(whole == noise(3_000_001), "`cat` gives {} other bytes", whole.len());
    }
}

#[test]
fn it_opens_metadata_objects_to_the_bytes_that_coffer_does() {
    let bench = Bench::with_fixture();
    bench.keep_records();
    let objects = bench.objects("m");
    assert_eq!(objects.len(), 15);
    for object in objects {
        let theirs = done(bench.read(&["object", &object]));
        assert_eq!(
            HEXLOWER.encode(&theirs),
            HEXLOWER.encode(&bench.inspect(&["--raw", &object])),
            "{object}"
        );
    }
}

#[test]
fn it_refuses_altered_objects_and_says_which() {
    let bench = Bench::with_fixture();
    bench.keep_records();
    done(bench.read(&["check"]));
    let header = fs::read(bench.path("vol/header/1")).unwrap().len();
    bench.refuses_flipped("vol/header/1", 0, "header: not one of this format");
    bench.refuses_flipped("vol/header/1", header - 96, "header: the signature is wrong");
    bench.refuses_flipped("vol/header/1", header - 1, "header: the signature is wrong");
    let segment = bench.objects("d").remove(0);
    let file = format!("vol/{segment}");
    let end = fs::read(bench.path(&file)).unwrap().len();
    bench.refuses_flipped(&file, 4, &format!("{segment}: another head"));
    bench.refuses_flipped(&file, 8, &format!("{segment}: the commitment differs"));
    bench.refuses_flipped(&file, 64, &format!("{segment}: piece 64 does not open"));
    bench.refuses_flipped(&file, end - 5, &format!("{segment}: piece"));
    bench.refuses_flipped(&file, end - 1, &format!("{segment}: piece"));
    for object in bench.objects("m") {
        let file = format!("vol/{object}");
        bench.refuses_flipped(&file, 32, "the commitment differs");
        let end = fs::read(bench.path(&file)).unwrap().len();
        bench.refuses_flipped(&file, end - 1, &format!("{object}: piece"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_reads_a_volume_whose_key_was_rotated_while_that_is_under_way_and_after() {
    let bench = Bench::new("--key-file", KEY_FILE);
    make_volume(&bench, Compression::None).await;
    let (factors, options) = (bench.factors(), OpenOptions::default());
    for epoch in [2, 3] {
        let rekeying = volume::rekey(bench.bucket(), &factors, &options).await.unwrap();
        let kept = [(0, &factors[..])];
        Box::pin(volume::begin_epoch(rekeying, &factors, &kept, KdfCost::Fixed { log_n: 15 }, &options))
            .await
            .unwrap();
        bench.agrees().await;
        // Some is sealed with the one key and some with the other.
        let opened = volume::open(bench.bucket(), &factors, options.clone()).await.unwrap();
        file(&opened.vfs, format!("of epoch {epoch}").as_bytes(), &noise(150_000)).await;
        opened.close().await.unwrap();
        bench.agrees().await;
        Box::pin(volume::end_rotation(&bench.bucket(), &factors, &options, &|_| ())).await.unwrap();
        bench.agrees().await;
        let told = String::from_utf8(done(bench.read(&["check"]))).unwrap();
        assert!(told.contains(" of before a rotation"), "{told}");
    }
    // What is in use is refused when it is of an older epoch.
    let segment = bench.objects("d").into_iter().find(|name| {
        let head = fs::read(bench.path(&format!("vol/{name}"))).unwrap();
        head[7] == 3
    });
    let file = format!("vol/{}", segment.unwrap());
    bench.refuses_flipped(&file, 7, "is not what its record says");
    let header = fs::read(bench.path("vol/header/5")).unwrap();
    let body = std::str::from_utf8(&header[12..header.len() - 96]).unwrap();
    assert!(body.contains("\"key-epochs\"") && body.contains("\"floor\": 3"), "{body}");
}

/// Commits are folded when 1,024 newer ones exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_follows_the_chain_of_commits_through_folded_ones() {
    let bench = Bench::new("--key-file", KEY_FILE);
    make_volume(&bench, Compression::None).await;
    // The folded ones are of a device and of a machine without local state, which has no counter.
    for (state_dir, commits) in [(Some(bench.path("state")), 600_u64), (None, 1500)] {
        let options = OpenOptions { state_dir, ..OpenOptions::default() };
        let opened = volume::open(bench.bucket(), &bench.factors(), options).await.unwrap();
        let ino = opened.vfs.lookup(Ino::ROOT, b"inline").await.unwrap().ino;
        for number in 0..commits {
            opened.vfs.write(ino, 0, &number.to_le_bytes(), true).await.unwrap();
            opened.vfs.fsync(ino, false).await.unwrap();
        }
        opened.vfs.reclaim().await.unwrap();
        opened.close().await.unwrap();
    }
    bench.agrees().await;
    let records = fs::read_to_string(bench.path("records")).unwrap();
    // Behind the version: of a history the hash before it, a count, a device and a session; of a commit its hash, device
    // and session.
    for (letter, at) in [("48", 1), ("48", 34), ("48", 50), ("43", 1), ("43", 33), ("43", 49)] {
        let line = records.lines().find(|line| line.starts_with(letter)).unwrap();
        let (key, value) = line.split_once(' ').unwrap();
        let mut value = HEXLOWER.decode(value.as_bytes()).unwrap();
        value[at] ^= 1;
        let altered = format!("{key} {}", HEXLOWER.encode(&value));
        fs::write(bench.path("records"), records.replace(line, &altered)).unwrap();
        bench.refuses("another hash", &format!("byte {at} of {key}"));
    }
}

#[test]
fn it_refuses_each_segment_whose_record_says_something_else() {
    let bench = Bench::with_fixture();
    bench.keep_records();
    let records = fs::read_to_string(bench.path("records")).unwrap();
    let (segments, others): (Vec<&str>, Vec<&str>) = records.lines().partition(|line| line.starts_with("53"));
    assert_eq!(segments.len(), bench.objects("d").len());
    // Each alone, so that for one of them the segment is the last that was opened, without a record to compare it with.
    for line in segments {
        let (key, value) = line.split_once(' ').unwrap();
        let mut value = HEXLOWER.decode(value.as_bytes()).unwrap();
        *value.last_mut().unwrap() ^= 1;
        let altered = format!("{key} {}", HEXLOWER.encode(&value));
        fs::write(bench.path("records"), [&others[..], &[&altered]].concat().join("\n")).unwrap();
        bench.refuses("is not what its record says", &format!("the commitment of {key}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_says_that_it_does_not_unpack_zstandard() {
    let bench = Bench::new("--key-file", KEY_FILE);
    make_volume(&bench, Compression::Zstd).await;
    bench.keep_records();
    bench.refuses("Zstandard, which this reader does not unpack", "a volume with Zstandard");
}

#[test]
fn it_refuses_a_metadata_object_under_another_name() {
    let bench = Bench::with_fixture();
    bench.keep_records();
    let objects = bench.objects("m");
    fs::copy(bench.path(&format!("vol/{}", objects[0])), bench.path(&format!("vol/{}", objects[1]))).unwrap();
    let ended = bench.read(&["check"]);
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("the commitment differs"), "{told}");
}

#[test]
fn neither_falls_back_on_an_older_header_when_the_newest_is_damaged() {
    let bench = Bench::with_fixture();
    bench.keep_records();
    done(bench.coffer("ls", &[]));
    let mut header = fs::read(bench.path("vol/header/1")).unwrap();
    *header.last_mut().unwrap() ^= 1;
    fs::write(bench.path("vol/header/2"), header).unwrap();
    assert_eq!(bench.coffer("ls", &[]).status.code(), Some(i32::from(Exit::HeaderDamaged.code())));
    let ended = bench.read(&["ls"]);
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    // The body comes before the signature: it is the first header's, and says so.
    assert!(told.contains("header: block size or revision"), "{told}");
}
