//! The exit codes of `coffer`. A number, once given, keeps its meaning for ever.

/// How a command ended, as the shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// Something else went wrong; the message says what.
    Failure = 1,
    /// The command line cannot be understood, or a setting not be used.
    Usage = 2,
    /// Nothing that is a volume is stored at this URL.
    NoVolume = 10,
    /// The passphrase, key file or recovery code opens no slot.
    WrongKey = 11,
    /// A newer coffer made this volume.
    NewerFormat = 12,
    /// The volume's header is damaged.
    HeaderDamaged = 13,
    /// A volume is already there.
    VolumeExists = 14,
    /// The bucket or directory does not exist.
    BucketMissing = 15,
    /// The store refuses these credentials.
    AccessDenied = 16,
    /// The store does not answer.
    StoreUnreachable = 17,
    /// Another mount is writing to this volume.
    VolumeInUse = 18,
    /// The directory cannot be mounted on.
    BadMountPoint = 19,
    /// A stored object is missing or not what was written.
    Tampered = 20,
    /// The bucket shows an older state than was seen.
    RolledBack = 21,
    /// The state directory cannot be used.
    StateDir = 22,
    /// Some data is not in the bucket yet.
    NotSafeYet = 23,
    /// No volume is mounted there.
    NotMounted = 24,
    /// A passphrase, key file or recovery code could not be obtained.
    NoSecret = 25,
    /// No such file or directory in the volume.
    NoSuchPath = 26,
    /// A local file could not be written.
    LocalWrite = 27,
    /// Some files were not copied.
    Partial = 28,
    /// The store lacks something that safety needs.
    StoreUnfit = 29,
    /// Another mount took the volume over.
    TakenOver = 30,
    /// The mount is busy, or ended before all data was in the bucket.
    NotUnmounted = 31,
    /// A key slot cannot be added, changed or removed.
    SlotRefused = 32,
    /// A check found only what does no harm.
    Untidy = 33,
    /// A check found contents of files damaged.
    FilesDamaged = 34,
    /// A check found the tree, the records or the history damaged.
    TreeDamaged = 35,
    /// A repair was not carried out.
    NotRepaired = 36,
    /// The bucket shows another history than was seen.
    Forked = 37,
    /// The newest commit is older than was allowed.
    Stale = 38,
    /// This machine's note of what it has seen is gone.
    PinLost = 39,
    /// This machine's note of what it has seen is another volume's or machine's.
    PinForeign = 40,
    /// This machine's note of what it has seen was altered.
    PinAltered = 41,
    /// The bucket shows an older header than was seen.
    HeaderRolledBack = 42,
    /// A passphrase is stretched less than any was.
    WeakerKeys = 43,
    /// The volume has other keys than were seen.
    KeySubstituted = 44,
    /// Another volume is where one was seen.
    OtherVolume = 45,
    /// The volume or a commit is not the one that was expected by name.
    Unexpected = 46,
    /// Nothing of the volume is kept on this machine to be recovered.
    NothingToRecover = 47,
    /// The volume's key was rotated while it was in use here.
    NewKey = 48,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// Every code with the line that documents it.
    pub const ALL: [(Self, &'static str); 43] = [
        (Self::Success, "done"),
        (Self::Failure, "something else went wrong"),
        (Self::Usage, "the command line or a setting cannot be used"),
        (Self::NoVolume, "no volume at this URL"),
        (Self::WrongKey, "wrong passphrase, key file or recovery code"),
        (Self::NewerFormat, "the volume needs a newer coffer"),
        (Self::HeaderDamaged, "the volume's header is damaged"),
        (Self::VolumeExists, "a volume already exists there"),
        (Self::BucketMissing, "the bucket or directory does not exist"),
        (Self::AccessDenied, "no credentials, or the store refuses them"),
        (Self::StoreUnreachable, "the store does not answer"),
        (Self::VolumeInUse, "another mount is writing to the volume"),
        (Self::BadMountPoint, "the directory cannot be mounted on"),
        (Self::Tampered, "a stored object is missing or altered"),
        (Self::RolledBack, "the bucket shows an older state than was seen"),
        (Self::StateDir, "the state directory cannot be used"),
        (Self::NotSafeYet, "status: some data is not in the bucket yet"),
        (Self::NotMounted, "no volume is mounted there"),
        (Self::NoSecret, "a passphrase, key file or code could not be read"),
        (Self::NoSuchPath, "no such file or directory in the volume"),
        (Self::LocalWrite, "a local file cannot be written"),
        (Self::Partial, "some files were not copied"),
        (Self::StoreUnfit, "the store lacks what safety needs"),
        (Self::TakenOver, "another mount took the volume over"),
        (Self::NotUnmounted, "the mount is busy, or ended with unsaved data"),
        (Self::SlotRefused, "the key slot cannot be changed"),
        (Self::Untidy, "check: only harmless things are wrong"),
        (Self::FilesDamaged, "check: contents of files are damaged"),
        (Self::TreeDamaged, "check: the tree itself is damaged"),
        (Self::NotRepaired, "the repair was not carried out"),
        (Self::Forked, "the bucket shows another history than was seen"),
        (Self::Stale, "the newest commit is older than --max-staleness"),
        (Self::PinLost, "this machine's note of what it saw is gone"),
        (Self::PinForeign, "this machine's note of what it saw is another's"),
        (Self::PinAltered, "this machine's note of what it saw was altered"),
        (Self::HeaderRolledBack, "the bucket shows an older header than was seen"),
        (Self::WeakerKeys, "a passphrase is stretched less than any was"),
        (Self::KeySubstituted, "the volume has other keys than were seen"),
        (Self::OtherVolume, "another volume is where one was seen"),
        (Self::Unexpected, "not the volume or commit that was expected"),
        (Self::NothingToRecover, "recover: nothing is kept on this machine"),
        (Self::NewKey, "the volume has a new key since it was opened"),
        (Self::Interrupted, "ended by Ctrl-C"),
    ];

    /// The number given to the shell.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The exit that `code` stands for, when a child process reports it.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().map(|(exit, _)| exit).find(|e| e.code() == code).unwrap_or(Self::Failure)
    }

    /// The table at the end of `coffer --help`.
    #[must_use]
    pub fn table() -> String {
        let mut text = String::from("Exit codes:\n");
        for (exit, meaning) in Self::ALL {
            text.push_str(&format!("  {:>3}  {meaning}\n", exit.code()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented_once_and_in_order() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|(exit, _)| exit.code()).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
        for (exit, _) in Exit::ALL {
            assert_eq!(Exit::from_code(exit.code()), exit);
        }
        assert_eq!(Exit::from_code(99), Exit::Failure);
    }
}
