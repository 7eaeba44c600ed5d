//! Reads the comma lists of `-o` as mount(8), fstab(5) and systemd write them.

use super::error::{CommandError, CommandResult};

/// What `-o` asks for. `None` leaves the default or the command's own flag in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `ro` or `rw`.
    pub read_only: Option<bool>,
    /// Other users may enter.
    pub allow_other: bool,
    /// The superuser may enter.
    pub allow_root: bool,
    /// `nosuid` or `suid`.
    pub nosuid: Option<bool>,
    /// `nodev` or `dev`.
    pub nodev: Option<bool>,
    /// `noexec` or `exec`.
    pub noexec: Option<bool>,
    /// `noatime` or one of the words that want access times.
    pub noatime: Option<bool>,
    /// The kernel checks modes and owners.
    pub default_permissions: bool,
    /// The name shown in the first column of `mount`.
    pub fsname: Option<String>,
    /// Long flags of `coffer mount` given as `name=value`, for fstab lines that have no other place for them.
    pub settings: Vec<(String, String)>,
}

/// Long flags of `coffer mount` that fstab may give as options.
pub const SETTINGS: [&str; 13] = [
    "passphrase-file",
    "passphrase-command",
    "key-file",
    "recovery-code-file",
    "cache-size",
    "memory",
    "dirty-limit",
    "commit-age",
    "state-dir",
    "log-file",
    "log",
    "takeover",
    "foreground",
];

/// Words that mean something to mount(8), fstab(5) or systemd only.
const IGNORED: [&str; 17] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "group",
    "owner",
    "nofail",
    "_netdev",
    "async",
    "nodiratime",
    "diratime",
    "loud",
    "silent",
    "nolazytime",
    "iversion",
];

impl MountOptions {
    /// Reads every list in turn; a later word overrides an earlier one.
    ///
    /// # Errors
    /// Names the first option that coffer does not know.
    pub fn parse<S: AsRef<str>>(lists: &[S]) -> CommandResult<Self> {
        let mut options = Self::default();
        for word in lists.iter().flat_map(|list| list.as_ref().split(',')) {
            options.take(word.trim())?;
        }
        if options.allow_other && options.allow_root {
            return Err(CommandError::usage("-o allow_other and -o allow_root exclude each other"));
        }
        Ok(options)
    }

    fn take(&mut self, word: &str) -> CommandResult {
        match word {
            "ro" => self.read_only = Some(true),
            "rw" => self.read_only = Some(false),
            "allow_other" => self.allow_other = true,
            "allow_root" => self.allow_root = true,
            "nosuid" => self.nosuid = Some(true),
            "suid" => self.nosuid = Some(false),
            "nodev" => self.nodev = Some(true),
            "dev" => self.nodev = Some(false),
            "noexec" => self.noexec = Some(true),
            "exec" => self.noexec = Some(false),
            "noatime" => self.noatime = Some(true),
            "atime" | "relatime" | "strictatime" | "norelatime" | "nostrictatime" => {
                self.noatime = Some(false);
            }
            "default_permissions" => self.default_permissions = true,
            "" => {}
            _ if IGNORED.contains(&word) || is_for_others(word) => {}
            _ => return self.take_setting(word),
        }
        Ok(())
    }

    fn take_setting(&mut self, word: &str) -> CommandResult {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        if name == "fsname" && !value.is_empty() {
            self.fsname = Some(value.to_owned());
            return Ok(());
        }
        if name == "subtype" {
            return Ok(());
        }
        let name = name.replace('_', "-");
        if !SETTINGS.contains(&name.as_str()) {
            return Err(CommandError::usage(format!("unknown mount option {word:?}"))
                .hint("`coffer mount --help` lists the options that -o takes"));
        }
        self.settings.push((name, value.to_owned()));
        Ok(())
    }
}

fn is_for_others(word: &str) -> bool {
    ["x-", "X-", "comment=", "user=", "uhelper=", "helper="].iter().any(|start| word.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_fstab_line_reads_as_it_means() {
        let line =
            "rw,nosuid,nodev,noatime,_netdev,nofail,x-systemd.automount,user,passphrase-file=/etc/coffer.key";
        let options = MountOptions::parse(&[line, "ro,cache_size=1G"]).unwrap();
        let want = MountOptions {
            read_only: Some(true),
            nosuid: Some(true),
            nodev: Some(true),
            noatime: Some(true),
            settings: vec![
                ("passphrase-file".into(), "/etc/coffer.key".into()),
                ("cache-size".into(), "1G".into()),
            ],
            ..MountOptions::default()
        };
        assert_eq!(options, want);
    }

    #[test]
    fn the_later_word_wins_and_an_unknown_one_is_named() {
        assert_eq!(MountOptions::parse(&["ro,rw,exec,noexec"]).unwrap().read_only, Some(false));
        let error = MountOptions::parse(&["ro,allow_toher"]).unwrap_err();
        assert!(error.to_string().contains("allow_toher"), "{error}");
        assert!(MountOptions::parse(&["allow_other,allow_root"]).is_err());
        assert!(
            MountOptions::parse(&["passphrase=hunter2"]).is_err(),
            "a secret has no place on a command line"
        );
    }
}
