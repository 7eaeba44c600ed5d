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
const FOR_OTHERS: [&str; 4] = ["defaults", "_netdev", "nofail", "noauto"];

/// The flags that a remount sets and clears, in the order of its words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remount(Vec<(MountFlags, bool)>);

impl Remount {
    /// Reads lists of options; `None` if they ask for a mount. What stands before the word `remount` mount(8) has taken from
    /// fstab or from the list of mounts, so that it is as the mount has it already, and only what is the kernel's counts.
    ///
    /// # Errors
    /// Names the first option after it that cannot be changed, without its value.
    pub fn parse<S: AsRef<str>>(lists: &[S]) -> CommandResult<Option<Self>> {
        let words = || lists.iter().flat_map(|list| list.as_ref().split(',')).map(str::trim);
        let Some(at) = words().position(|word| word == WORD) else { return Ok(None) };
        let mut flags = Vec::new();
        for (index, word) in words().enumerate() {
            match flag(word) {
                Some(change) => flags.push(change),
                None if index <= at || is_for_others(word) => {}
                None => return Err(cannot_change(word)),
            }
        }
        Ok(Some(Self(flags)))
    }

    /// Remounts what is mounted at `dir`.
    ///
    /// # Errors
    /// When no volume is mounted there, it was opened for reading only, or the kernel refuses.
    pub fn run(&self, dir: &Path) -> CommandResult {
        let failed = |exit, why: &str| {
            CommandError::new(exit, format!("cannot change how {} is mounted: {why}", dir.display()))
        };
        let point = dir.canonicalize().map_err(|e| failed(Exit::NotMounted, &e.to_string()))?;
        if fuse::owner_of(&point).is_none() || fuse::mount_point_of(&point).as_ref() != Some(&point) {
            return Err(failed(Exit::NotMounted, "no volume is mounted there"));
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
        self.0.iter().for_each(|(flag, is_set)| flags.set(*flag, *is_set));
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

fn is_for_others(word: &str) -> bool {
    let is_noted = word.starts_with("x-") || word.starts_with("X-");
    word.is_empty() || word == WORD || FOR_OTHERS.contains(&word) || is_noted
}

fn cannot_change(word: &str) -> CommandError {
    let name = word.split('=').next().unwrap_or(word);
    CommandError::usage(format!("-o {name} cannot be changed while the volume is mounted")).hint(
        "a remount changes ro, rw, suid, nosuid, dev, nodev, exec, noexec, sync and async; for all else unmount, and mount \
         again",
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
        assert_eq!(Remount::parse(&["rw,noatime", "passphrase-file=/p"]).unwrap(), None);
    }

    #[test]
    fn what_mount_8_repeats_is_let_pass_and_what_is_asked_anew_must_be_the_kernels() {
        let remount = Remount::parse(&["rw,passphrase-file=/p,noatime,remount,ro,x-systemd.automount"]);
        let now = StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV;
        let flags = remount.unwrap().unwrap().laid_over(now);
        assert_eq!(flags, MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV);
        for word in ["passphrase=hunter2", "cache-size=1G", "noatime", "allow_other", "nonsense"] {
            let error = Remount::parse(&["rw,remount", word]).unwrap_err().render();
            assert!(error.contains("while the volume is mounted") && !error.contains("hunter2"), "{error}");
        }
        assert_eq!(Remount::parse(&["remount,rw,dev"]).unwrap().unwrap().laid_over(now), MountFlags::NOSUID);
    }
}
