//! Grows a directory tree with everything a filesystem can hold, from a seed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// How many files of each kind to grow.
#[derive(Clone, Copy)]
pub(crate) struct Tree {
    pub(crate) dirs: usize,
    /// Files of up to 32 KiB, most of them far smaller, some empty.
    pub(crate) small: usize,
    /// Files of 256 KiB to 4 MiB.
    pub(crate) large: usize,
    pub(crate) hard_links: usize,
    pub(crate) symlinks: usize,
    pub(crate) sparse: usize,
    /// Of pipes and sockets each; of devices, when the caller may make them.
    pub(crate) specials: usize,
}

impl Tree {
    /// More than five thousand files, about 60 MiB.
    pub(crate) const FULL: Tree =
        Tree { dirs: 260, small: 5_000, large: 14, hard_links: 150, symlinks: 200, sparse: 6, specials: 6 };
    /// Every kind of file, but quickly written.
    pub(crate) const SMALL: Tree =
        Tree { dirs: 30, small: 300, large: 2, hard_links: 20, symlinks: 20, sparse: 2, specials: 2 };

    /// Grows the tree below the existing, empty directory `root`.
    pub(crate) fn grow(self, root: &Path, seed: u64) {
        let dirs = vec![root.to_owned()];
        let mut grower = Grower {
            rng: SmallRng::seed_from_u64(seed),
            root: root.to_owned(),
            dirs,
            files: Vec::new(),
            count: 0,
        };
        grower.grow_dirs(self.dirs);
        for _ in 0..self.small {
            let len = grower.small_len();
            grower.file(len);
        }
        for _ in 0..self.large {
            let len = grower.rng.random_range(256 * 1024..4 * 1024 * 1024);
            grower.file(len);
        }
        (0..self.sparse).for_each(|_| grower.sparse());
        (0..self.hard_links).for_each(|_| grower.hard_link());
        (0..self.symlinks).for_each(|_| grower.symlink());
        (0..self.specials).for_each(|_| grower.special());
        grower.dress();
    }
}

struct Grower {
    rng: SmallRng,
    root: PathBuf,
    dirs: Vec<PathBuf>,
    /// Everything but directories, without further names of the same file.
    files: Vec<PathBuf>,
    count: u32,
}

impl Grower {
    fn grow_dirs(&mut self, count: usize) {
        for _ in 0..count {
            let path = self.new_path();
            std::fs::create_dir(&path).expect("mkdir");
            self.dirs.push(path);
        }
        // One path that is far deeper than it is wide.
        let mut deep = self.root.join("deep");
        for level in 0..60 {
            std::fs::create_dir(&deep).expect("mkdir");
            self.dirs.push(deep.clone());
            deep.push(format!("level {level} of a long way down"));
        }
        // And one directory that stays empty, whatever the dice say.
        let empty = self.root.join("empty");
        std::fs::create_dir(&empty).expect("mkdir");
        self.files.push(empty);
    }

    fn small_len(&mut self) -> usize {
        match self.rng.random_range(0..10) {
            0 => 0,
            1..=5 => self.rng.random_range(1..2_000),
            6..=8 => self.rng.random_range(1..8_192),
            _ => self.rng.random_range(8_192..32_768),
        }
    }

    fn file(&mut self, len: usize) {
        let path = self.new_path();
        std::fs::write(&path, self.content(len)).expect("write");
        self.files.push(path);
    }

    /// Half text that compresses, half noise that does not.
    fn content(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        if self.rng.random() {
            self.rng.fill_bytes(&mut bytes);
        } else {
            let word = self.rng.random_range(b'a'..=b'y');
            bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = word + (at / 7 % 2) as u8);
        }
        bytes
    }

    fn sparse(&mut self) {
        let path = self.new_path();
        let file = File::create(&path).expect("create");
        let len = self.rng.random_range(100_000..4_000_000);
        file.set_len(len).expect("truncate");
        for _ in 0..self.rng.random_range(0..4) {
            let piece = self.content(5_000);
            let at = self.rng.random_range(0..len);
            file.write_all_at(&piece, at).expect("write");
        }
        self.files.push(path);
    }

    fn hard_link(&mut self) {
        let existing = self.files.choose(&mut self.rng).expect("files").clone();
        if !existing.is_dir() {
            std::fs::hard_link(existing, self.new_path()).expect("link");
        }
    }

    fn symlink(&mut self) {
        let target = match self.rng.random_range(0..4) {
            0 => OsString::from("../nowhere/at/all"),
            1 => OsString::from_vec(b"bytes \xff\xfe that are no text".to_vec()),
            2 => OsString::from("x/".repeat(self.rng.random_range(1..1_000))),
            _ => {
                let file = self.files.choose(&mut self.rng).expect("files");
                file.strip_prefix(&self.root).expect("below the root").as_os_str().to_owned()
            }
        };
        let path = self.new_path();
        symlink(target, &path).expect("symlink");
        self.files.push(path);
    }

    fn special(&mut self) {
        let mode = Mode::RUSR | Mode::WUSR;
        for kind in [FileType::Fifo, FileType::Socket] {
            let path = self.new_path();
            rustix::fs::mknodat(CWD, &path, kind, mode, 0).expect("mknod");
            self.files.push(path);
        }
        let device = rustix::fs::makedev(self.rng.random_range(1..0xFFF), self.rng.random_range(0..0xF_FFFF));
        let path = self.new_path();
        if rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, device).is_ok() {
            self.files.push(path);
        }
    }

    /// Owners, xattrs, modes and times, in this order: each step undoes something of a later one. Directories last and
    /// deepest first, because their own times change with what is done below them.
    fn dress(&mut self) {
        let mut paths = std::mem::take(&mut self.files);
        let mut dirs = std::mem::take(&mut self.dirs);
        dirs.sort_by_key(|dir| std::cmp::Reverse(dir.as_os_str().len()));
        paths.extend(dirs);
        for path in paths {
            let about = std::fs::symlink_metadata(&path).expect("stat");
            let is_link = about.is_symlink();
            if is_root() && self.rng.random_ratio(1, 4) {
                let ids = [0, 7, 1_000, 65_534, 3_000_000_000];
                let (uid, gid) =
                    (*ids.choose(&mut self.rng).expect("ids"), *ids.choose(&mut self.rng).expect("ids"));
                lchown(&path, Some(uid), Some(gid)).expect("chown");
            }
            if (about.is_file() || about.is_dir()) && self.rng.random_ratio(1, 10) {
                self.give_xattrs(&path);
            }
            if !is_link && self.rng.random_ratio(1, 3) {
                let mode = self.mode(about.is_dir());
                rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).expect("chmod");
            }
            self.date(&path);
        }
    }

    fn give_xattrs(&mut self, path: &Path) {
        for number in 0..self.rng.random_range(1..4) {
            let mut value = vec![0; *[0, 1, 30, 900].choose(&mut self.rng).expect("lengths")];
            self.rng.fill_bytes(&mut value);
            let name = format!(
                "user.{}{number}",
                ["comment", "naïve", "a.b.c"].choose(&mut self.rng).expect("names")
            );
            rustix::fs::lsetxattr(path, name.as_str(), &value, XattrFlags::empty()).expect("setxattr");
        }
    }

    fn mode(&mut self, is_dir: bool) -> u32 {
        let mode = self.rng.random_range(0..0o10000);
        // What its owner could not read again, rsync and we could not either, unless we are root.
        match (is_root(), is_dir) {
            (true, _) => mode,
            (false, true) => (mode & 0o1777) | 0o700,
            (false, false) => (mode & 0o777) | 0o600,
        }
    }

    fn date(&mut self, path: &Path) {
        let tv_sec = match self.rng.random_range(0..20) {
            0 => 86_400,
            1 => i64::from(i32::MAX) + 5,
            2 => 7_258_118_400,
            _ => self.rng.random_range(500_000_000..1_900_000_000),
        };
        let time = Timespec { tv_sec, tv_nsec: self.rng.random_range(0..1_000_000_000) };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("utimens");
    }

    fn new_path(&mut self) -> PathBuf {
        let name = self.new_name();
        self.dirs.choose(&mut self.rng).expect("directories").join(name)
    }

    /// A name that no other file has; one in eight is odd.
    fn new_name(&mut self) -> OsString {
        self.count += 1;
        let count = self.count;
        let odd = match self.rng.random_range(0..64) {
            0 => b"caf\xe9 not UTF-8 \xff\xc0\x80 ".to_vec(),
            1 => "e\u{301} and \u{e9} differ ".into(),
            2 => b" leading, trailing and\nbroken ".to_vec(),
            3 => b"-rf * $HOME `id` 'q' \"q\" \\ ;| ".to_vec(),
            4 => b"\x01\x1b[31m control \x7f ".to_vec(),
            5 => b"...".to_vec(),
            6 => "日本語のファイル🦀 ".into(),
            7 => return long_name(count),
            _ => b"file ".to_vec(),
        };
        let mut name = odd;
        name.extend_from_slice(count.to_string().as_bytes());
        OsString::from_vec(name)
    }
}

/// 255 bytes, the most that a name can have.
pub(crate) fn long_name(count: u32) -> OsString {
    let mut name = format!("{count} ").into_bytes();
    name.resize(255, b'n');
    OsString::from_vec(name)
}

/// Whether we may give files away.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A name as the kernel sees it.
pub(crate) fn bytes(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}
