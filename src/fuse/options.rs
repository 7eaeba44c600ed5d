//! How a volume is mounted, and the `-o` words for it.

use fuser::SessionACL;

use super::MountError;
use crate::vfs::Atime;

/// Options of one mount. The kernel always checks permissions by the files' modes (`default_permissions`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// Follow another writer instead of writing.
    pub read_only: bool,
    /// Let other users in.
    pub allow_other: bool,
    /// Let root in, besides the user who mounts.
    pub allow_root: bool,
    /// Mount over a directory that has entries.
    pub nonempty: bool,
    /// Honour setuid and setgid bits.
    pub suid: bool,
    /// Honour device nodes.
    pub dev: bool,
    /// Allow programs to be executed.
    pub exec: bool,
    /// When reading changes access times.
    pub atime: Atime,
    /// Whether listing a directory does.
    pub directory_atime: bool,
    /// Refuse to be unmounted by others while changes are not in the bucket yet.
    pub hold: bool,
    /// Make every write durable before it returns.
    pub sync: bool,
    /// What the list of mounts calls this one: the bucket's URL without credentials.
    pub source_name: String,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            allow_other: false,
            allow_root: false,
            nonempty: false,
            suid: false,
            dev: false,
            exec: true,
            atime: Atime::default(),
            directory_atime: true,
            hold: true,
            sync: false,
            source_name: "coffer".into(),
        }
    }
}

impl MountOptions {
    /// Applies a comma-separated list as `mount -o` takes it; words meant for other programs are let pass.
    ///
    /// # Errors
    /// [`MountError::BadOption`] for the first word that is not known.
    pub fn apply(&mut self, list: &str) -> Result<(), MountError> {
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "ro" => self.read_only = true,
                "rw" => self.read_only = false,
                "allow_other" => self.allow_other = true,
                "allow_root" => self.allow_root = true,
                "nonempty" => self.nonempty = true,
                "suid" => self.suid = true,
                "nosuid" => self.suid = false,
                "dev" => self.dev = true,
                "nodev" => self.dev = false,
                "exec" => self.exec = true,
                "noexec" => self.exec = false,
                "atime" | "relatime" | "nostrictatime" => self.atime = Atime::Relative,
                "strictatime" => self.atime = Atime::Always,
                "noatime" => self.atime = Atime::Never,
                "diratime" => self.directory_atime = true,
                "nodiratime" => self.directory_atime = false,
                "sync" => self.sync = true,
                "async" => self.sync = false,
                "hold" => self.hold = true,
                "nohold" => self.hold = false,
                "defaults"
                | "default_permissions"
                | "auto"
                | "noauto"
                | "nofail"
                | "_netdev"
                | "user"
                | "nouser"
                | "users"
                | "owner"
                | "group" => {}
                word if word.starts_with("x-") || word.starts_with("comment=") => {}
                word => return Err(MountError::BadOption(word.to_owned())),
            }
        }
        Ok(())
    }

    /// Whose requests are answered. The kernel knows only its owner and everybody; `fuser` sorts out the rest.
    pub(super) const fn acl(&self) -> SessionACL {
        match (self.allow_other, self.allow_root) {
            (true, _) => SessionACL::All,
            (false, true) => SessionACL::RootAndOwner,
            (false, false) => SessionACL::Owner,
        }
    }

    /// Whether the kernel lets users in whom `fuser` then refuses.
    pub(super) fn filters(&self) -> bool {
        self.acl() == SessionACL::RootAndOwner
    }

    /// The words that fusermount3 takes for these options.
    pub(super) fn words(&self) -> Vec<&'static str> {
        let mut words = vec!["default_permissions"];
        words.extend(self.admits_others().then_some("allow_other"));
        words.push(if self.read_only { "ro" } else { "rw" });
        words.push(if self.suid { "suid" } else { "nosuid" });
        words.push(if self.dev { "dev" } else { "nodev" });
        words.extend((!self.exec).then_some("noexec"));
        words.extend((self.atime == Atime::Never).then_some("noatime"));
        words.extend(self.sync.then_some("sync"));
        words
    }

    pub(super) const fn admits_others(&self) -> bool {
        self.allow_other || self.allow_root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_fstab_is_understood() {
        let mut options = MountOptions::default();
        options.apply("rw,noexec,noatime,nohold,allow_other,_netdev,x-systemd.automount,,nofail").unwrap();
        assert!(
            !options.exec
                && options.atime == Atime::Never
                && options.allow_other
                && !options.read_only
                && !options.suid
        );
        assert!(!options.hold && MountOptions::default().hold);
        assert_eq!(
            options.words(),
            ["default_permissions", "allow_other", "rw", "nosuid", "nodev", "noexec", "noatime"]
        );
    }

    #[test]
    fn an_unknown_word_is_named() {
        let error = MountOptions::default().apply("ro,writeback_cache").unwrap_err();
        assert_eq!(error.to_string(), "mount option \"writeback_cache\" is not supported");
    }

    #[test]
    fn the_later_word_wins() {
        let mut options = MountOptions::default();
        options.apply("ro,rw,suid,nosuid,sync").unwrap();
        assert!(!options.read_only && !options.suid && options.sync);
    }

    #[test]
    fn root_alone_is_let_in_by_filtering_everybody() {
        let mut options = MountOptions::default();
        options.apply("allow_root").unwrap();
        assert_eq!(options.acl(), SessionACL::RootAndOwner);
        assert!(options.admits_others());
    }
}
