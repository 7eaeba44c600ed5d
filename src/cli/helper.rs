//! Called by mount(8) and umount(8) under the names of their helpers, `coffer` reads their words instead of its own.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Names under which mount(8) calls for file systems of the types `coffer` and `fuse.coffer`.
const MOUNT: [&str; 2] = ["mount.coffer", "mount.fuse.coffer"];
/// Names under which umount(8) does.
const UMOUNT: [&str; 2] = ["umount.coffer", "umount.fuse.coffer"];
/// Options of both with a word after them that means nothing here: a mount namespace and a type.
const WITH_WORD: [&str; 2] = ["-N", "-t"];

/// The words of the command line, as `coffer` knows them.
pub fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let all: Vec<OsString> = given.collect();
    let called = all.first().and_then(|name| Path::new(name).file_name()).and_then(OsStr::to_str);
    match called {
        Some(name) if MOUNT.contains(&name) => mount(all),
        Some(name) if UMOUNT.contains(&name) => umount(all),
        _ => all,
    }
}

/// `mount.<type> URL DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`, as mount(8) documents it: `-f` is to do everything
/// but mount, and not to stay in the foreground. All that is not of these is `coffer mount`'s.
fn mount(all: Vec<OsString>) -> Vec<OsString> {
    let mut words = all.into_iter();
    let mut read: Vec<OsString> = words.next().into_iter().collect();
    read.push("mount".into());
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("-o") => read.extend([word].into_iter().chain(words.next())),
            Some(option) if WITH_WORD.contains(&option) => drop(words.next()),
            Some(flags) if is_of_mount(flags) => {
                if flags.contains('f') {
                    read.push("--fake".into());
                }
                read.extend(flags.matches('v').map(|_| "-v".into()));
            }
            _ => read.push(word),
        }
    }
    read
}

fn is_of_mount(flags: &str) -> bool {
    flags
        .strip_prefix('-')
        .is_some_and(|flags| !flags.is_empty() && flags.chars().all(|flag| "sfnv".contains(flag)))
}

/// `umount.<type> DIR [-flnrv] [-N NAMESPACE] [-t TYPE]`, as umount(8) documents it.
fn umount(all: Vec<OsString>) -> Vec<OsString> {
    let mut words = all.into_iter();
    let mut read: Vec<OsString> = words.next().into_iter().collect();
    read.extend(["umount".into(), "--helper".into()]);
    let mut points = Vec::new();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some(option) if WITH_WORD.contains(&option) => drop(words.next()),
            Some(flags) if flags.len() > 1 && flags.starts_with('-') => {
                if flags.contains('l') {
                    read.push("--lazy".into());
                }
            }
            _ => points.push(word),
        }
    }
    read.push("--".into());
    read.extend(points);
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> String {
        let words = arguments(line.split(' ').map(OsString::from));
        words.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn called_by_mount_it_mounts() {
        assert_eq!(words("/sbin/mount.coffer /v /m -o rw"), "/sbin/mount.coffer mount /v /m -o rw");
        assert_eq!(words("mount.fuse.coffer /v /m"), "mount.fuse.coffer mount /v /m");
        assert_eq!(words("coffer ls /v"), "coffer ls /v");
        let line = "mount.coffer /v /m -sfnv -N 123 -o rw -t fuse.coffer --read-only";
        assert_eq!(words(line), "mount.coffer mount /v /m --fake -v -o rw --read-only");
    }

    #[test]
    fn called_by_umount_it_unmounts() {
        assert_eq!(words("umount.fuse.coffer /m"), "umount.fuse.coffer umount --helper -- /m");
        let line = "umount.coffer /m -nl -f -v -N 123 -t fuse.coffer";
        assert_eq!(words(line), "umount.coffer umount --helper --lazy -- /m");
    }
}
