//! Splits the comma lists of `-o` into what mounting understands and what are settings of `coffer mount`.

use super::config::ON_THE_LINE_ONLY;
use super::error::{CommandError, CommandResult};
use super::explain;
use crate::fuse;

/// What `-o` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// For the kernel.
    pub kernel: fuse::MountOptions,
    /// Long flags of `coffer mount` given as `name=value`, for fstab lines, which have no other place for them.
    pub settings: Vec<(String, String)>,
}

/// Long flags of `coffer mount` that may be given as options.
pub const SETTINGS: [&str; 31] = [
    "passphrase-file",
    "passphrase-command",
    "key-file",
    "recovery-code-file",
    "key-slot",
    "cache-size",
    "memory",
    "dirty-limit",
    "commit-age",
    "poll-interval",
    "fsync-timeout",
    "heartbeat",
    "http",
    "upload-limit",
    "download-limit",
    "expect",
    "expect-commit",
    "max-staleness",
    "state-dir",
    "log-file",
    "log-format",
    "log-to",
    "endpoint",
    "region",
    "read-timeout",
    "addressing",
    "unsigned-payload",
    "ca-file",
    "storage-class",
    "aws-profile",
    "require-locked-keys",
];

/// Words that mean something to mount(8), fstab(5) or systemd only.
const FOR_OTHERS: [&str; 4] = ["norelatime", "loud", "silent", "iversion"];
const FOR_OTHERS_STARTS: [&str; 5] = ["X-", "user=", "uhelper=", "helper=", "subtype="];

impl MountOptions {
    /// Reads every list in turn; a later word overrides an earlier one.
    ///
    /// # Errors
    /// Names the first option that is not known, without its value.
    pub fn parse<S: AsRef<str>>(lists: &[S]) -> CommandResult<Self> {
        let mut options = Self::default();
        for word in lists.iter().flat_map(|list| list.as_ref().split(',')) {
            options.take(word.trim())?;
        }
        if options.kernel.allow_other && options.kernel.allow_root {
            return Err(CommandError::usage("-o allow_other and -o allow_root exclude each other"));
        }
        Ok(options)
    }

    fn take(&mut self, word: &str) -> CommandResult {
        if FOR_OTHERS.contains(&word) || FOR_OTHERS_STARTS.iter().any(|start| word.starts_with(start)) {
            return Ok(());
        }
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        if name == "fsname" && !value.is_empty() {
            value.clone_into(&mut self.kernel.source_name);
            return Ok(());
        }
        let shown = name;
        let name = name.replace('_', "-");
        if SETTINGS.contains(&name.as_str()) {
            self.settings.push((name, value.to_owned()));
            return Ok(());
        }
        if ON_THE_LINE_ONLY.contains(&name.as_str()) {
            return Err(CommandError::usage(format!("-o {shown}: a list of options cannot give that"))
                .hint(format!("if you mean it, say --{name} to `coffer mount`")));
        }
        self.kernel.apply(word).map_err(|error| match error {
            // Only the name: the value might be a secret that somebody hoped to pass this way.
            fuse::MountError::BadOption(_) => CommandError::usage(format!("unknown mount option {shown:?}"))
                .hint("`coffer mount --help` lists the options that -o takes"),
            other => explain::mount(&other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::Atime;

    #[test]
    fn an_fstab_line_reads_as_it_means() {
        let line = "rw,suid,noatime,_netdev,nofail,x-systemd.automount,user,passphrase-file=/etc/coffer.key";
        let options = MountOptions::parse(&[line, "ro,cache_size=1G,fsname=vault"]).unwrap();
        assert!(options.kernel.read_only && options.kernel.suid && options.kernel.atime == Atime::Never);
        assert_eq!(options.kernel.source_name, "vault");
        let settings = [("passphrase-file", "/etc/coffer.key"), ("cache-size", "1G")];
        assert_eq!(options.settings, settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn the_later_word_wins_and_an_unknown_one_is_named() {
        assert!(!MountOptions::parse(&["ro,rw"]).unwrap().kernel.read_only);
        let error = MountOptions::parse(&["ro,allow_toher"]).unwrap_err();
        assert!(error.to_string().contains("allow_toher"), "{error}");
        assert!(MountOptions::parse(&["allow_other,allow_root"]).is_err());
        for typed in ["takeover", "accept-rollback", "accept_rollback", "forensic"] {
            let error = MountOptions::parse(&[typed]).unwrap_err().render();
            assert!(error.contains(&format!("say --{}", typed.replace('_', "-"))), "{error}");
        }
        let secret = MountOptions::parse(&["passphrase=hunter2"]).unwrap_err();
        assert!(!secret.render().contains("hunter2"), "{}", secret.render());
    }
}
