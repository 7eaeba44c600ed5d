//! Turns the errors of the other rooms into what a user sees: sentence, hints, exit code.

use std::path::Path;

use super::error::{CommandError, sentence};
use super::exit::Exit;
use crate::control::{self, ControlError, FailureKind};
use crate::data::DataError;
use crate::fuse::MountError;
use crate::keys::{Factor, FactorName, KeyError};
use crate::maint::MaintError;
use crate::meta::MetaError;
use crate::meta::engine::EngineError;
use crate::store::StoreError;
use crate::vault::VaultError;
use crate::vfs::VfsError;
use crate::volume::VolumeError;

const NEWER: &str = "install a newer version of coffer";
const DAMAGED_HEADER: &str =
    "somebody may have altered the bucket; earlier headers are still there as header/1, header/2 and so on";
const PUT_BACK: &str = "nothing was opened. If you have put a backup into the bucket yourself, \
    `coffer mount --accept-rollback` with an admin key goes on from there; `--read-only --forensic` only looks";
const EXPECT: &str = "if you know why, give the volume's fingerprint with --expect to begin anew on this machine; \
    another machine tells it (`coffer fingerprint`), and `coffer init` did";
const TAMPERED: &str =
    "somebody or something has altered or removed an object in the bucket; `coffer inspect` shows it";

const OLD_KEY: &str = "what was not in use any more when the key was rotated waits to be deleted, and is no fault; \
    anything else of that key was put there by somebody";
const NEW_KEY: &str = "the key was rotated meanwhile: run the command again";

/// How a state folder that was full comes to know what was committed.
const UNNOTED: &str = "make room there, and open the volume once: `coffer ls URL`";
const ELSEWHERE: &str = "everything up to now is in the bucket. The mount ends when the last file there is closed, with that \
    namespace (most often a container's), or when its own process is ended: `coffer status` shows it";

/// What to do about what a mount could not send.
pub const TAKEN_OVER: &str =
    "`coffer recover URL` lists what is kept, and writes it to a directory with --to DIR";

/// An error of the bucket. Its message carries its advice after the last semicolon.
#[must_use]
pub fn store(error: &StoreError) -> CommandError {
    let exit = store_exit(error);
    let text = sentence(error);
    match text.rsplit_once("; ") {
        // That what waits is written then is a mount's advice: a command that ends here leaves nothing waiting.
        Some((what, _)) if matches!(error, StoreError::Full { .. }) => {
            CommandError::new(exit, what).hint("make room there, and run the command again")
        }
        Some((what, _)) if is_local(error) => {
            CommandError::new(exit, what).hint("check the path, and whether its disk is mounted")
        }
        Some((what, advice)) if exit != Exit::Failure => CommandError::new(exit, what).hint(advice),
        _ => CommandError::new(exit, text),
    }
}

/// Whether what does not exist is a local directory.
fn is_local(error: &StoreError) -> bool {
    matches!(error, StoreError::NoBucket { bucket } if local_path(bucket).is_some())
}

/// The directory that a URL of a local bucket names.
fn local_path(url: &str) -> Option<&Path> {
    let path = Path::new(url.strip_prefix("file://").unwrap_or(url));
    path.is_absolute().then_some(path)
}

fn store_exit(error: &StoreError) -> Exit {
    match error {
        StoreError::Full { object, .. } if local_path(object).is_some() => Exit::LocalWrite,
        StoreError::BadUrl { .. } | StoreError::Settings { .. } => Exit::Usage,
        StoreError::NoBucket { .. } => Exit::BucketMissing,
        StoreError::NotFound { .. } | StoreError::Unfit { .. } => Exit::Tampered,
        StoreError::Denied { .. } | StoreError::Credentials { .. } => Exit::AccessDenied,
        StoreError::Unavailable { .. } | StoreError::Full { .. } => Exit::StoreUnreachable,
        StoreError::IgnoresPreconditions { .. } | StoreError::Misbehaves { .. } => Exit::StoreUnfit,
        StoreError::AlreadyExists { .. } | StoreError::Other { .. } => Exit::Failure,
    }
}

/// An error of header, slots or factors, where `given` was to unlock.
#[must_use]
pub fn keys(error: &KeyError, given: &[Factor]) -> CommandError {
    let (exit, hint) = match error {
        KeyError::NewerFormat { .. } => (Exit::NewerFormat, Some(NEWER)),
        KeyError::NotAHeader
        | KeyError::TooLarge { .. }
        | KeyError::Damaged { .. }
        | KeyError::KdfOutOfRange(_)
        | KeyError::NotTheNext { .. } => (
            Exit::HeaderDamaged,
            Some(
                "somebody may have altered the bucket; earlier headers are kept as header/1, header/2 and so on",
            ),
        ),
        KeyError::WrongKey => return wrong_key(given),
        KeyError::TooManySlots { .. } => (
            Exit::WrongKey,
            Some("`--key-slot N` tries that key, and no other; `coffer key list URL` shows the numbers"),
        ),
        KeyError::NoSlotForFactors { .. } | KeyError::SlotTakesOther { .. } => {
            (Exit::WrongKey, Some("`coffer key list URL` shows what the keys are"))
        }
        KeyError::Rotating => (Exit::SlotRefused, Some("`coffer key rotate URL` goes on with it")),
        KeyError::EpochsFull => (
            Exit::SlotRefused,
            Some("copy what is in it into a new volume: `coffer export`, `coffer import`"),
        ),
        KeyError::NotAdmin
        | KeyError::LastAdminSlot
        | KeyError::NoSuchSlot(_)
        | KeyError::OpensAlready(_)
        | KeyError::SlotsFull
        | KeyError::BadLabel => (Exit::SlotRefused, None),
        KeyError::BadRecoveryCode(_) => (Exit::WrongKey, None),
        KeyError::FactorCount | KeyError::Empty { .. } | KeyError::KeyFileTooLarge { .. } => {
            (Exit::NoSecret, None)
        }
    };
    CommandError::new(exit, sentence(error)).maybe_hint(hint)
}

fn wrong_key(given: &[Factor]) -> CommandError {
    let kinds: Vec<&str> = given.iter().map(|factor| word(factor.name())).collect();
    let what = if kinds.is_empty() { "key".to_owned() } else { kinds.join(" or ") };
    let error = CommandError::new(Exit::WrongKey, format!("wrong {what}"));
    match given {
        [Factor::Passphrase(_)] => error.hint(
            "check caps lock and keyboard layout, and whether it was changed on another machine; a recovery code of the \
             volume opens it too (--recovery-code)",
        ),
        _ => error,
    }
}

/// A kind of factor in words.
#[must_use]
pub const fn word(factor: FactorName) -> &'static str {
    match factor {
        FactorName::Passphrase => "passphrase",
        FactorName::KeyFile => "key file",
        FactorName::RecoveryCode => "recovery code",
    }
}

/// A volume where a new one was to be made.
#[must_use]
pub fn volume_exists(url: &str) -> CommandError {
    CommandError::new(Exit::VolumeExists, format!("there is a volume at {url} already"))
        .hint("choose another prefix; an existing volume is never overwritten")
}

/// No volume where one was to be opened.
#[must_use]
pub fn no_volume(url: &str) -> CommandError {
    let error = CommandError::new(Exit::NoVolume, format!("there is no volume at {url}"));
    match local_path(url).and_then(|path| control::find(path).ok()) {
        Some(mount) => error.hint(format!("{} is mounted there: give that URL", mount.url)),
        None => error.hint("check the URL, or create a volume there with `coffer init`"),
    }
}

/// An error of a sealed object or a header in the bucket at `url`.
#[must_use]
pub fn vault(error: &VaultError, url: &str) -> CommandError {
    match error {
        VaultError::NoHeader => no_volume(url),
        VaultError::Store(source) => store(source),
        VaultError::Damaged(damage) if damage.object.starts_with("header") => {
            CommandError::new(Exit::HeaderDamaged, sentence(error)).hint(DAMAGED_HEADER)
        }
        VaultError::NewKey { .. } => CommandError::new(Exit::NewKey, sentence(error)).hint(NEW_KEY),
        VaultError::OldKey { .. } => CommandError::new(Exit::Tampered, sentence(error)).hint(OLD_KEY),
        VaultError::Damaged(_) | VaultError::Missing(_) => {
            CommandError::new(Exit::Tampered, sentence(error)).hint(TAMPERED)
        }
    }
}

/// Whether somebody else has written an object of that name first.
#[must_use]
pub const fn is_conflict(error: &VaultError) -> bool {
    matches!(error, VaultError::Store(StoreError::AlreadyExists { .. }))
}

/// An error of opening or making a volume, where `given` was to unlock.
#[must_use]
pub fn volume(error: &VolumeError, given: &[Factor]) -> CommandError {
    let plain = |exit| CommandError::new(exit, sentence(error));
    match error {
        VolumeError::NoVolume { url } => no_volume(url),
        VolumeError::Exists { url } => volume_exists(url),
        VolumeError::HeaderGone { url, .. } => plain(Exit::HeaderDamaged)
            .maybe_hint(local_path(url).map(|_| "check whether its disk is mounted"))
            .hint(
            "put header/ back from a copy of the bucket: without it nothing can be read there. If the volume was removed on \
             purpose, `coffer init --anew` makes another one in its place",
        ),
        VolumeError::Headless { .. } => plain(Exit::HeaderDamaged).hint(
            "put header/ back from a copy of the bucket, or choose another prefix; to give the contents up for ever, delete \
             them first",
        ),
        VolumeError::Locked => plain(Exit::VolumeInUse).hint("wait for it to end, then try again"),
        VolumeError::InUse { .. } => plain(Exit::VolumeInUse).hint(
            "unmount it there first; if that process is gone for good, `coffer mount --takeover` takes its place, and \
             --read-only mounts beside it",
        ),
        VolumeError::NewerFeatures(_) => plain(Exit::NewerFormat).hint(NEWER),
        VolumeError::State { .. } => plain(Exit::StateDir),
        VolumeError::BadUnsent { .. } => plain(Exit::Tampered)
            .hint("what came before the damage is authentic; `coffer recover --discard` removes it"),
        VolumeError::Key(source) => keys(source, given),
        VolumeError::Store(source) => store(source),
        VolumeError::Vault(source) => vault(source, "this URL"),
        VolumeError::Meta(source) => with_hint(plain(meta_exit(source))),
        VolumeError::Vfs(source) => with_hint(plain(vfs_exit(source))),
        mistrust => distrust(mistrust, plain),
    }
}

/// An error of a volume that is not what was seen before.
fn distrust(error: &VolumeError, plain: impl Fn(Exit) -> CommandError) -> CommandError {
    match error {
        VolumeError::Rollback { .. } => plain(Exit::RolledBack).hint(PUT_BACK),
        VolumeError::Fork { .. } | VolumeError::Woven { .. } | VolumeError::LogIsBack { .. } => plain(Exit::Forked).hint(PUT_BACK),
        VolumeError::HeaderRolledBack { .. } => plain(Exit::HeaderRolledBack).hint(PUT_BACK),
        VolumeError::WeakerKeys { .. } => plain(Exit::WeakerKeys)
            .hint("if an admin has made it so on purpose, mount once with --accept-rollback and an admin key"),
        VolumeError::Stale { .. } => plain(Exit::Stale)
            .hint("compare `coffer fingerprint --commit` with a machine that has just written, or allow more"),
        VolumeError::PinLost { .. } => plain(Exit::PinLost).hint(EXPECT),
        VolumeError::PinForeign { .. } => plain(Exit::PinForeign).hint(EXPECT),
        VolumeError::PinAltered { .. } => plain(Exit::PinAltered).hint(EXPECT),
        VolumeError::KeySubstituted { .. } => plain(Exit::KeySubstituted)
            .hint(
                "somebody has put a header of their own into the bucket, or one from before the key was rotated; \
                 nothing was unlocked with it",
            ),
        VolumeError::OtherVolume { .. } => plain(Exit::OtherVolume).hint(
            "if the volume there was replaced on purpose, give the new one's fingerprint with --expect; \
             `coffer init` showed it",
        ),
        VolumeError::Unexpected { .. } | VolumeError::UnexpectedCommit { .. } => plain(Exit::Unexpected)
            .hint("compare with the machine that made the volume, or that has last written: `coffer fingerprint`"),
        _ => plain(Exit::Failure),
    }
}

/// An error of checking or repairing.
#[must_use]
pub fn maint(error: &MaintError) -> CommandError {
    let plain = |exit| CommandError::new(exit, sentence(error));
    match error {
        MaintError::Volume(source) => volume(source, &[]),
        MaintError::Vault(source) => vault(source, "this URL"),
        MaintError::Meta(source) => with_hint(plain(meta_exit(source))),
        MaintError::Data(source) => with_hint(plain(data_exit(source))),
        MaintError::Moving => plain(Exit::Failure),
    }
}

/// How an error of the filesystem ends a command.
#[must_use]
pub fn vfs_exit(error: &VfsError) -> Exit {
    match error {
        VfsError::NoEntry | VfsError::NotDirectory | VfsError::IsDirectory | VfsError::NameTooLong => {
            Exit::NoSuchPath
        }
        VfsError::Data(source) => data_exit(source),
        VfsError::Meta(source) => meta_exit(source),
        VfsError::Fenced => Exit::TakenOver,
        VfsError::NewKey => Exit::NewKey,
        VfsError::NotRenewed { .. } => Exit::Tampered,
        _ => Exit::Failure,
    }
}

/// How an error of stored data ends a command.
#[must_use]
pub const fn data_exit(error: &DataError) -> Exit {
    match error {
        DataError::Damaged { .. } | DataError::Missing { .. } | DataError::Extents(_) => Exit::Tampered,
        DataError::Unavailable { .. } => Exit::StoreUnreachable,
        _ => Exit::Failure,
    }
}

const fn meta_exit(error: &MetaError) -> Exit {
    match error {
        MetaError::Record { .. } | MetaError::Missing(_) | MetaError::Inconsistent { .. } => Exit::Tampered,
        MetaError::Engine(EngineError::Damaged(_) | EngineError::Missing) => Exit::Tampered,
        MetaError::Engine(EngineError::Denied(_)) => Exit::AccessDenied,
        MetaError::Engine(EngineError::Unavailable(_)) => Exit::StoreUnreachable,
        MetaError::Engine(EngineError::Fenced) => Exit::TakenOver,
        MetaError::Engine(EngineError::NewKey) => Exit::NewKey,
        _ => Exit::Failure,
    }
}

fn with_hint(error: CommandError) -> CommandError {
    match error.exit() {
        Exit::Tampered => error.hint(TAMPERED),
        Exit::NewKey => error.hint(NEW_KEY),
        Exit::StoreUnreachable => {
            error.hint("check the network, the endpoint if one is given, and the provider's status")
        }
        Exit::AccessDenied => {
            error.hint("check the credentials and that they may read, write, list and delete")
        }
        _ => error,
    }
}

/// An error of mounting or unmounting.
#[must_use]
pub fn mount(error: &MountError) -> CommandError {
    let (exit, hint) = match error {
        MountError::Dead(path) => {
            (Exit::BadMountPoint, Some(format!("take it away with `coffer umount {}`", path.display())))
        }
        MountError::Missing(path) => {
            (Exit::BadMountPoint, Some(format!("create it with `mkdir -p {}`", path.display())))
        }
        MountError::NotDirectory(_) | MountError::NotEmpty(_) | MountError::AlreadyMounted { .. } => {
            (Exit::BadMountPoint, None)
        }
        MountError::Refused { .. } => {
            (Exit::BadMountPoint, is_root_without_rights().then(|| NO_RIGHTS.to_owned()))
        }
        MountError::NoHelper(_) => (Exit::Failure, is_root_without_rights().then(|| NO_RIGHTS.to_owned())),
        MountError::NoFuse(_) => {
            (Exit::Failure, Some("a container has to be given the device: `--device /dev/fuse`".to_owned()))
        }
        MountError::Busy(path) => {
            (Exit::NotUnmounted, Some(format!("see who uses it with `fuser -vm {}`", path.display())))
        }
        MountError::Elsewhere { .. } | MountError::Lingers(_) => {
            (Exit::NotUnmounted, Some(ELSEWHERE.to_owned()))
        }
        MountError::Holds { .. }
        | MountError::AlsoAt { .. }
        | MountError::Covered(_)
        | MountError::NotUnmounted { .. } => (Exit::NotUnmounted, None),
        MountError::BadOption(_) => (Exit::Usage, None),
        _ => (Exit::Failure, None),
    };
    CommandError::new(exit, sentence(error)).maybe_hint(hint)
}

/// What root lacks that has to ask the helper of ordinary users.
const NO_RIGHTS: &str = "root may not mount here: a container needs the capability CAP_SYS_ADMIN and a security profile that \
    lets it mount";

/// Root asks the helper only when it may not mount by itself.
fn is_root_without_rights() -> bool {
    rustix::process::geteuid().is_root()
}

/// What there is to do about a mount that cannot be asked.
const UNKNOWN: &str = "it was mounted with another XDG_RUNTIME_DIR or home, in another container, or its session has ended; \
    `umount` or `fusermount3 -u` unmounts it, which succeeds when everything is in the bucket";

/// An error of talking to a running mount.
#[must_use]
pub fn control(error: &ControlError) -> CommandError {
    let plain = |exit| CommandError::new(exit, sentence(error));
    match error {
        ControlError::NotMounted(_) => plain(Exit::NotMounted).hint("`coffer status` lists your mounts"),
        ControlError::OfAnother { uid, .. } => {
            plain(Exit::NotMounted).hint(format!("only that user can ask it: `sudo -u '#{uid}' coffer ...`"))
        }
        ControlError::Unknown(_) => plain(Exit::NotMounted).hint(UNKNOWN),
        ControlError::Gone(point) => plain(Exit::NotMounted)
            .hint(format!("if the mount is still listed, `coffer umount {}` removes it", point.display())),
        ControlError::Died { point, .. } => plain(Exit::NotMounted)
            .hint(format!("`coffer umount {}` takes the dead mount away", point.display())),
        ControlError::Stranger { .. } => plain(Exit::AccessDenied),
        ControlError::NoRuntimeDir | ControlError::UnsafeDir(_) | ControlError::PathTooLong(_) => {
            plain(Exit::StateDir)
        }
        ControlError::Failed(failure) => match failure.kind {
            FailureKind::Busy => plain(Exit::NotUnmounted)
                .hint("close what uses it (`fuser -vm DIR` lists it), or take it away with --lazy"),
            FailureKind::Elsewhere => plain(Exit::NotUnmounted).hint(ELSEWHERE),
            FailureKind::TakenOver => plain(Exit::TakenOver).hint(TAKEN_OVER),
            FailureKind::Unnoted => plain(Exit::StateDir).hint(UNNOTED),
            FailureKind::Lost | FailureKind::NotSaved | FailureKind::NotUnmounted => {
                plain(Exit::NotUnmounted)
            }
            FailureKind::BadRequest | FailureKind::NotCleaned | FailureKind::Other => plain(Exit::Failure),
        },
        ControlError::Broken { .. } | ControlError::Io { .. } => plain(Exit::Failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_store_that_does_not_answer_and_nothing_waits_for_room() {
        let full =
            |object: &str| store(&StoreError::Full { object: object.into(), detail: "no room".into() });
        assert_eq!(full("/srv/volume").exit(), Exit::LocalWrite);
        assert_eq!(full("s3://b/p").exit(), Exit::StoreUnreachable);
        assert_eq!(full("/srv/volume").hints(), ["make room there, and run the command again"]);
    }
}
