//! `mount -o remount`: changes what the kernel alone decides about a mount that is there, and refuses all else.

use std::path::Path;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::client::ask_quietly;
use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::runtime;
use crate::control::{self, Request};
use crate::fuse;

const WORD: &str = "remount";
/// Words that change nothing in the kernel and nothing here.
const FOR_OTHERS: [&str; 13] = [
    "defaults", "_netdev", "nofail", "auto", "noauto", "user", "nouser", "users", "owner", "group", "loud",
    "silent", "iversion",
];
const FOR_OTHERS_STARTS: [&str; 7] = ["x-", "X-", "comment=", "user=", "uhelper=", "helper=", "subtype="];

/// What a remount asks for. mount(8) adds what stands in fstab, or in the list of mounts, in an order of its own, so that no
/// position tells what is asked anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remount {
    /// The flags that it sets and clears, in the order of its words.
    flags: Vec<(MountFlags, bool)>,
    /// All words that have to be as the mount has them already.
    others: Vec<String>,
}

impl Remount {
    /// Whether lists of options ask for one.
    #[must_use]
    pub fn is_asked<S: AsRef<str>>(lists: &[S]) -> bool {
        words(lists).any(|word| word == WORD)
    }

    /// Reads lists of options; `None` if they ask for a mount.
    #[must_use]
    pub fn parse<S: AsRef<str>>(lists: &[S]) -> Option<Self> {
        if !Self::is_asked(lists) {
            return None;
        }
        let mut read = Self::default();
        if words(lists).any(|word| matches!(word, "ro" | "rw")) {
            // So mount(8) begins, and then it leaves out `exec` and `async`: what it does not mention is not to be.
            read.flags.extend([(MountFlags::NOEXEC, false), (MountFlags::SYNCHRONOUS, false)]);
        }
        for word in words(lists).filter(|word| !is_for_others(word)) {
            match flag(word) {
                Some(change) => read.flags.push(change),
                None => read.others.push(normal(word)),
            }
        }
        Some(read)
    }

    /// Remounts what is mounted at `dir`.
    ///
    /// # Errors
    /// When no volume is mounted there, it was opened for reading only, or the kernel refuses. Names the first option that
    /// cannot be changed, without its value.
    pub fn run(&self, dir: &Path) -> CommandResult {
        let failed = |exit, why: &str| {
            CommandError::new(exit, format!("cannot change how {} is mounted: {why}", dir.display()))
        };
        let point = dir.canonicalize().map_err(|e| failed(Exit::NotMounted, &e.to_string()))?;
        if fuse::owner_of(&point).is_none() || fuse::mount_point_of(&point).as_ref() != Some(&point) {
            return Err(failed(Exit::NotMounted, "no volume is mounted there"));
        }
        let given = given(&point);
        if let Some(word) = self.others.iter().find(|word| !has(&given, last(&self.others, word))) {
            return Err(cannot_change(word));
        }
        let now = rustix::fs::statvfs(&point).map_err(|e| failed(Exit::Failure, &e.to_string()))?;
        let flags = self.laid_over(now.f_flag);
        let is_opened = now.f_flag.contains(StatVfsMountFlags::RDONLY) && !flags.contains(MountFlags::RDONLY);
        if is_opened && is_reader(&point) {
            return Err(failed(Exit::Usage, "the volume was opened for reading only")
                .hint("unmount it, and mount it again without `ro`"));
        }
        rustix::mount::mount_remount(&point, flags, c"").map_err(|error| match error {
            Errno::BUSY => failed(Exit::NotUnmounted, "files are open there for writing"),
            Errno::PERM => failed(Exit::AccessDenied, "only root may"),
            error => failed(Exit::Failure, &error.to_string()),
        })
    }

    /// Access times stay as they are: the kernel keeps what no flag mentions.
    fn laid_over(&self, now: StatVfsMountFlags) -> MountFlags {
        let mut flags = MountFlags::empty();
        for (seen, flag) in [
            (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
            (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
            (StatVfsMountFlags::NODEV, MountFlags::NODEV),
            (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
            (StatVfsMountFlags::SYNCHRONOUS, MountFlags::SYNCHRONOUS),
        ] {
            flags.set(flag, now.contains(seen));
        }
        self.flags.iter().for_each(|(flag, is_set)| flags.set(*flag, *is_set));
        flags
    }
}

fn flag(word: &str) -> Option<(MountFlags, bool)> {
    Some(match word {
        "ro" => (MountFlags::RDONLY, true),
        "rw" => (MountFlags::RDONLY, false),
        "nosuid" => (MountFlags::NOSUID, true),
        "suid" => (MountFlags::NOSUID, false),
        "nodev" => (MountFlags::NODEV, true),
        "dev" => (MountFlags::NODEV, false),
        "noexec" => (MountFlags::NOEXEC, true),
        "exec" => (MountFlags::NOEXEC, false),
        "sync" => (MountFlags::SYNCHRONOUS, true),
        "async" => (MountFlags::SYNCHRONOUS, false),
        _ => return None,
    })
}

fn words<S: AsRef<str>>(lists: &[S]) -> impl Iterator<Item = &str> {
    lists.iter().flat_map(|list| list.as_ref().split(',')).map(str::trim)
}

fn is_for_others(word: &str) -> bool {
    let is_noted = FOR_OTHERS_STARTS.iter().any(|start| word.starts_with(start));
    word.is_empty() || word == WORD || FOR_OTHERS.contains(&word) || is_noted
}

/// The word as it is compared: settings may be written with either stroke.
fn normal(word: &str) -> String {
    let (name, value) = word.split_at(word.find('=').unwrap_or(word.len()));
    name.replace('_', "-") + value
}

fn name_of(word: &str) -> &str {
    word.split('=').next().unwrap_or(word)
}

/// The last of `words` that gives a value to what `word` does; itself if it has none.
fn last<'a>(words: &'a [String], word: &'a str) -> &'a str {
    let gives = |other: &&String| other.contains('=') && name_of(other) == name_of(word);
    if word.contains('=') { words.iter().rfind(gives).map_or(word, String::as_str) } else { word }
}

/// Whether a mount that was given `given` has `word`.
fn has(given: &[String], word: &str) -> bool {
    given.iter().any(|other| other == word) && last(given, word) == word
}

/// The words that the mount at `point` was given, and those by which the kernel lists it.
fn given(point: &Path) -> Vec<String> {
    let line = control::find(point)
        .ok()
        .and_then(|entry| std::fs::read(format!("/proc/{}/cmdline", entry.pid)).ok());
    let line = String::from_utf8_lossy(&line.unwrap_or_default()).into_owned();
    let mut given = on_the_line(line.split('\0'));
    given.extend(words(&[fuse::listed_options(point)]).map(normal));
    given
}

/// The options of a command line. A list overrides a long flag, as it does where a mount begins.
fn on_the_line<'a>(line: impl Iterator<Item = &'a str>) -> Vec<String> {
    let (mut flags, mut listed) = (Vec::new(), Vec::new());
    let mut line = line.skip(1).peekable();
    while let Some(word) = line.next() {
        let next = line.peek().copied().unwrap_or_default();
        let list = match (word.strip_prefix("--"), word.strip_prefix('-')) {
            (Some("options"), _) => Some(next),
            (Some(flag), _) => {
                flags.push(normal(flag));
                flags.extend((!flag.contains('=')).then(|| normal(&format!("{flag}={next}"))));
                flag.strip_prefix("options=")
            }
            (None, Some(short)) => {
                short.split_once('o').map(|(_, list)| if list.is_empty() { next } else { list })
            }
            (None, None) => None,
        };
        listed.extend(words(&[list.unwrap_or_default()]).map(normal));
    }
    flags.append(&mut listed);
    flags
}

fn cannot_change(word: &str) -> CommandError {
    let name = name_of(word);
    CommandError::usage(format!("-o {name} cannot be changed while the volume is mounted")).hint(
        "a remount changes ro, rw, suid, nosuid, dev, nodev, exec, noexec, sync and async; all else has to be as it was \
         given when the volume was mounted: unmount, and mount it again",
    )
}

/// Whether the mount's process reads only, whatever the kernel lets through. Another user's cannot be asked, and refuses
/// writes by itself.
fn is_reader(point: &Path) -> bool {
    let Ok(entry) = control::find(point) else { return false };
    let status = runtime::block_on(async { ask_quietly(&entry, &Request::Status).await });
    let state = status.ok().and_then(|status| status.pointer("/volume/state")?.as_str().map(str::to_owned));
    state.is_some_and(|state| matches!(state.as_str(), "read-only" | "outdated"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_asks_for_a_mount_is_no_remount() {
        assert_eq!(Remount::parse(&["rw,noatime", "passphrase-file=/p"]), None);
    }

    #[test]
    fn flags_are_taken_wherever_they_stand_and_others_are_kept_to_be_compared() {
        let remount =
            Remount::parse(&["ro,remount,passphrase_file=/p_q,noatime,x-systemd.automount,nofail,_netdev"]);
        let now = StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV | StatVfsMountFlags::NOEXEC;
        let remount = remount.unwrap();
        assert_eq!(remount.laid_over(now), MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV);
        assert_eq!(remount.others, ["passphrase-file=/p_q", "noatime"]);
        let flags = |list: &str| Remount::parse(&[list]).unwrap().laid_over(now);
        assert_eq!(
            flags("remount,dev"),
            MountFlags::NOSUID | MountFlags::NOEXEC,
            "what is not mentioned stays"
        );
        assert_eq!(flags("rw,dev,noexec,remount"), MountFlags::NOSUID | MountFlags::NOEXEC);
        assert_eq!(
            flags("ro,remount,rw,nodev"),
            MountFlags::NOSUID | MountFlags::NODEV,
            "the later word wins"
        );
    }

    #[test]
    fn an_option_passes_if_the_mount_has_it_so() {
        let line = "mount.coffer /v /m -o rw,passphrase-file=/a_b,commit_age=1h,commit-age=5,nohold --cache-size 1G \
                    --memory=2G -fo noatime --require-locked-keys";
        let given = on_the_line(line.split(' '));
        for word in [
            "passphrase-file=/a_b",
            "commit-age=5",
            "nohold",
            "cache-size=1G",
            "memory=2G",
            "noatime",
            "require-locked-keys",
        ] {
            assert!(has(&given, word), "{word}: {given:?}");
        }
        for word in
            ["passphrase-file=/a-b", "commit-age=1h", "cache-size=2G", "http=9400", "allow-other", "/v"]
        {
            assert!(!has(&given, word), "{word}");
        }
        let asked = ["commit-age=1h".to_owned(), "commit-age=5".to_owned()];
        assert_eq!(last(&asked, "commit-age=1h"), "commit-age=5");
        assert!(!cannot_change("passphrase=hunter2").render().contains("hunter2"));
    }
}
