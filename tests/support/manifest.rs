//! Everything that a tree promises to keep, as lines that can be compared.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;

/// One line for every file below a directory, by path: kind, mode, owner, links, device, size, time, xattrs, content.
#[derive(PartialEq, Eq)]
pub(crate) struct Manifest {
    lines: BTreeMap<Vec<u8>, String>,
}

impl Manifest {
    /// Reads the whole tree.
    pub(crate) fn of(root: &Path) -> Manifest {
        let mut lines = BTreeMap::new();
        let mut links = HashMap::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(below) = pending.pop() {
            let path = root.join(&below);
            let about = std::fs::symlink_metadata(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if about.is_dir() {
                pending.extend(sorted_names(&path).into_iter().map(|name| below.join(name)));
            }
            let line = describe(&path, &below, &about, &mut links);
            lines.insert(below.as_os_str().as_bytes().to_vec(), line);
        }
        Manifest { lines }
    }

    /// How many files of all kinds it lists.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Panics with the first differences, if there are any.
    pub(crate) fn assert_same(&self, other: &Manifest, what: &str) {
        let mut differences = Vec::new();
        let paths: std::collections::BTreeSet<_> = self.lines.keys().chain(other.lines.keys()).collect();
        for path in paths {
            let (left, right) = (self.lines.get(path), other.lines.get(path));
            if left != right {
                let show = |line: Option<&String>| line.map_or("(absent)".to_owned(), Clone::clone);
                differences.push(format!("{}\n  - {}\n  + {}", path.escape_ascii(), show(left), show(right)));
            }
        }
        let shown = differences.iter().take(10).map(String::as_str).collect::<Vec<_>>().join("\n");
        assert!(differences.is_empty(), "{what}: {} of {} differ\n{shown}", differences.len(), self.len());
    }
}

fn sorted_names(dir: &Path) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    // Last first: the walk takes from the end, and a group of hard links is named after its first member.
    let mut names: Vec<_> = entries.map(|entry| entry.expect("a directory entry").file_name()).collect();
    names.sort_by(|a, b| b.cmp(a));
    names
}

fn describe(path: &Path, below: &Path, about: &Metadata, links: &mut HashMap<u64, PathBuf>) -> String {
    let kind = about.file_type();
    let content = if kind.is_file() {
        sha256_of(path)
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path).expect("readlink");
        format!("-> {}", target.as_os_str().as_bytes().escape_ascii())
    } else {
        String::new()
    };
    let kind_name = match () {
        () if kind.is_file() => "file",
        () if kind.is_dir() => "dir",
        () if kind.is_symlink() => "symlink",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () if kind.is_char_device() => "char",
        () => "block",
    };
    // What a directory's size and link count mean is up to each filesystem.
    let (size, nlink) = if kind.is_dir() { (0, 0) } else { (about.size(), about.nlink()) };
    let first = if nlink > 1 {
        links
            .entry(about.ino())
            .or_insert_with(|| below.to_owned())
            .as_os_str()
            .as_bytes()
            .escape_ascii()
            .to_string()
    } else {
        String::new()
    };
    format!(
        "{kind_name} mode={:o} owner={}:{} nlink={nlink} same-as=[{first}] rdev={} size={size} mtime={}.{:09} xattrs=[{}] {content}",
        about.mode() & 0o7777,
        about.uid(),
        about.gid(),
        about.rdev(),
        about.mtime(),
        about.mtime_nsec(),
        xattrs_of(path)
    )
}

/// Reads a file to its end and hashes it.
pub(crate) fn sha256_of(path: &Path) -> String {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            0 => return HEXLOWER.encode(hash.finish().as_ref()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Names and values of all xattrs of a file, not following a link.
pub(crate) fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 * 1024];
    let count = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(count) => count,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => panic!("listxattr {}: {error}", path.display()),
    };
    let names = names[..count].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names.map(|name| (name.to_vec(), xattr(path, name))).collect()
}

fn xattr(path: &Path, name: &[u8]) -> Vec<u8> {
    let mut value = vec![0; 64 * 1024];
    let count = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value[..])
        .unwrap_or_else(|error| panic!("getxattr {} {}: {error}", path.display(), name.escape_ascii()));
    value.truncate(count);
    value
}

fn xattrs_of(path: &Path) -> String {
    let each = xattrs(path).into_iter().map(|(name, value)| {
        let hash = aws_lc_rs::digest::digest(&SHA256, &value);
        format!("{}={}", name.escape_ascii(), HEXLOWER.encode(&hash.as_ref()[..8]))
    });
    each.collect::<Vec<_>>().join(",")
}
