//! The options that unlock a volume or set a new key, and the secrets they stand for.

use std::path::PathBuf;

use clap::Args;

use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::passphrase::{self, WITHOUT_TERMINAL, WITHOUT_TERMINAL_NEW};
use crate::keys::{Factor, FactorName, Secret};

const UNLOCKING: &str = "Unlocking (asks for a passphrase unless told otherwise)";
const FIRST_KEY: &str = "Key (asks for a passphrase unless told otherwise)";

/// How to open the volume.
#[derive(Args, Clone, Debug, Default)]
pub struct UnlockArgs {
    /// Read the passphrase from a file that only you can read; one newline at its end is dropped
    #[arg(long, value_name = "FILE", conflicts_with_all = ["passphrase_command", "passphrase_fd"], help_heading = UNLOCKING)]
    pub passphrase_file: Option<PathBuf>,
    /// Take the passphrase from what this shell command prints
    #[arg(long, value_name = "COMMAND", conflicts_with = "passphrase_fd", help_heading = UNLOCKING)]
    pub passphrase_command: Option<String>,
    /// Read the passphrase from an open file descriptor (0 is standard input)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..), help_heading = UNLOCKING)]
    pub passphrase_fd: Option<i32>,
    /// Use this key file, alone or together with a passphrase, as the key was set up
    #[arg(long, value_name = "FILE", env = "COFFER_KEY_FILE", hide_env_values = true, help_heading = UNLOCKING)]
    pub key_file: Option<PathBuf>,
    /// Ask for the recovery code instead
    #[arg(long, conflicts_with_all = ["recovery_code_file", "passphrase_fd"], help_heading = UNLOCKING)]
    pub recovery_code: bool,
    /// Read the recovery code from a file instead
    #[arg(long, value_name = "FILE", help_heading = UNLOCKING)]
    pub recovery_code_file: Option<PathBuf>,
    /// Try this key only: its number in `coffer key list`
    #[arg(long, value_name = "N", help_heading = UNLOCKING)]
    pub key_slot: Option<u32>,
}

/// Where a new key comes from.
#[derive(Args, Clone, Debug, Default)]
pub struct NewSources {
    /// Read the new passphrase from a file that only you can read; one newline at its end is dropped
    #[arg(long, value_name = "FILE", conflicts_with_all = ["new_passphrase_command", "new_passphrase_fd"])]
    pub new_passphrase_file: Option<PathBuf>,
    /// Take the new passphrase from what this shell command prints
    #[arg(long, value_name = "COMMAND", conflicts_with = "new_passphrase_fd")]
    pub new_passphrase_command: Option<String>,
    /// Read the new passphrase from an open file descriptor (0 is standard input)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub new_passphrase_fd: Option<i32>,
    /// Use this file as a key; without a passphrase option it opens the volume alone
    #[arg(long, value_name = "FILE")]
    pub new_key_file: Option<PathBuf>,
}

/// The key of a new slot.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "New key (asks for a passphrase unless told otherwise)")]
pub struct NewKeyArgs {
    /// Where it comes from.
    #[command(flatten)]
    pub sources: NewSources,
    /// Ask for a passphrase as well as using --new-key-file: both are needed then
    #[arg(long, requires = "new_key_file", conflicts_with_all = ["new_passphrase_file", "new_passphrase_command", "new_passphrase_fd"])]
    pub new_passphrase: bool,
}

/// Another key in place of the one that unlocks.
#[derive(Args, Clone, Debug, Default)]
#[command(
    next_help_heading = "Another key in place of the one that unlocks (it stays unless told otherwise)"
)]
pub struct ReplaceArgs {
    /// Ask for a new passphrase
    #[arg(long, conflicts_with_all = ["new_passphrase_file", "new_passphrase_command", "new_passphrase_fd"])]
    pub new_passphrase: bool,
    /// Where else it comes from.
    #[command(flatten)]
    pub sources: NewSources,
}

/// The key of a volume that is being created.
#[derive(Args, Clone, Debug, Default)]
pub struct FirstKeyArgs {
    /// Read the passphrase from a file that only you can read; one newline at its end is dropped
    #[arg(long, value_name = "FILE", conflicts_with_all = ["passphrase_command", "passphrase_fd"], help_heading = FIRST_KEY)]
    pub passphrase_file: Option<PathBuf>,
    /// Take the passphrase from what this shell command prints
    #[arg(long, value_name = "COMMAND", conflicts_with = "passphrase_fd", help_heading = FIRST_KEY)]
    pub passphrase_command: Option<String>,
    /// Read the passphrase from an open file descriptor (0 is standard input)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..), help_heading = FIRST_KEY)]
    pub passphrase_fd: Option<i32>,
    /// Use this file as a key; without a passphrase option it opens the volume alone
    #[arg(long, value_name = "FILE", env = "COFFER_KEY_FILE", hide_env_values = true, help_heading = FIRST_KEY)]
    pub key_file: Option<PathBuf>,
    /// Ask for a passphrase as well as using --key-file: both are needed then
    #[arg(long, requires = "key_file", conflicts_with_all = ["passphrase_file", "passphrase_command", "passphrase_fd"], help_heading = FIRST_KEY)]
    pub passphrase: bool,
}

impl FirstKeyArgs {
    fn sources(&self) -> NewSources {
        let Self { passphrase_file, passphrase_command, passphrase_fd, key_file, .. } = self.clone();
        NewSources {
            new_passphrase_file: passphrase_file,
            new_passphrase_command: passphrase_command,
            new_passphrase_fd: passphrase_fd,
            new_key_file: key_file,
        }
    }

    /// Obtains the first key's factors.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub fn obtain(&self) -> CommandResult<Vec<Factor>> {
        self.sources().obtain(self.passphrase, "Passphrase for the new volume", WITHOUT_TERMINAL)
    }
}

impl UnlockArgs {
    /// Whether any option or variable says how to unlock.
    #[must_use]
    pub const fn is_given(&self) -> bool {
        self.passphrase_file.is_some()
            || self.passphrase_command.is_some()
            || self.passphrase_fd.is_some()
            || self.key_file.is_some()
            || self.recovery_code
            || self.recovery_code_file.is_some()
            || self.key_slot.is_some()
    }

    /// Obtains the factors; `slots` lists what each slot of the volume wants, so that only what can help is asked for.
    ///
    /// # Errors
    /// When a factor cannot be had, or when those given cannot open any slot.
    pub fn obtain(&self, slots: &[Vec<FactorName>]) -> CommandResult<Vec<Factor>> {
        let code = match (&self.recovery_code_file, self.recovery_code) {
            (Some(path), _) => Some(passphrase::from_file("recovery code", path)?),
            (None, true) => Some(passphrase::ask("Recovery code")?),
            (None, false) => None,
        };
        if let Some(code) = code {
            return Ok(vec![Factor::RecoveryCode(code)]);
        }
        let key_file = self.key_file.as_deref().map(|path| passphrase::key_file("key", path)).transpose()?;
        let given = from_sources(
            self.passphrase_file.as_deref(),
            self.passphrase_command.as_deref(),
            self.passphrase_fd,
        )?;
        let passphrase = match given {
            Some(given) => Some(given),
            None if self.needs_passphrase(slots)? => Some(passphrase::ask("Passphrase")?),
            None => None,
        };
        Ok(factors(passphrase, key_file))
    }

    fn needs_passphrase(&self, slots: &[Vec<FactorName>]) -> CommandResult<bool> {
        let wants = |kinds: &[FactorName]| slots.iter().any(|slot| same_kinds(slot, kinds));
        if self.key_file.is_some() {
            let alone = wants(&[FactorName::KeyFile]);
            return Ok(!alone && wants(&[FactorName::Passphrase, FactorName::KeyFile]));
        }
        if slots.is_empty() || wants(&[FactorName::Passphrase]) {
            return Ok(true);
        }
        let both = wants(&[FactorName::Passphrase, FactorName::KeyFile]);
        let what =
            if both { "a passphrase together with a key file" } else { "a key file or a recovery code" };
        let whose = self.key_slot.map_or("this volume".to_owned(), |slot| format!("key {slot}"));
        Err(CommandError::new(Exit::WrongKey, format!("{whose} opens with {what}"))
            .hint("give --key-file FILE, or --recovery-code"))
    }
}

impl NewKeyArgs {
    /// Obtains the factors of a new key.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub fn obtain(&self, prompt: &str) -> CommandResult<Vec<Factor>> {
        self.sources.obtain(self.new_passphrase, prompt, WITHOUT_TERMINAL_NEW)
    }
}

impl ReplaceArgs {
    /// Obtains the factors of the new key, if there is to be one.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub fn obtain(&self) -> CommandResult<Option<Vec<Factor>>> {
        let is_given = self.new_passphrase || self.sources.is_given();
        let obtain = || self.sources.obtain(self.new_passphrase, "New passphrase", WITHOUT_TERMINAL_NEW);
        is_given.then(obtain).transpose()
    }
}

impl NewSources {
    /// Whether any is named.
    #[must_use]
    pub const fn is_given(&self) -> bool {
        self.new_passphrase_file.is_some()
            || self.new_passphrase_command.is_some()
            || self.new_passphrase_fd.is_some()
            || self.new_key_file.is_some()
    }

    /// Obtains the factors; a passphrase is asked for if `asks`, or if there is nothing else.
    fn obtain(&self, asks: bool, prompt: &str, instead: &str) -> CommandResult<Vec<Factor>> {
        let key_file =
            self.new_key_file.as_deref().map(|path| passphrase::key_file("key", path)).transpose()?;
        let given = from_sources(
            self.new_passphrase_file.as_deref(),
            self.new_passphrase_command.as_deref(),
            self.new_passphrase_fd,
        )?;
        let passphrase = match given {
            Some(given) => {
                passphrase::warn_if_weak(given.expose());
                Some(given)
            }
            None if key_file.is_none() || asks => Some(passphrase::ask_new(prompt, instead)?),
            None => None,
        };
        if let (None, Some(path), Some(secret)) = (&passphrase, &self.new_key_file, &key_file) {
            passphrase::suffices_alone(path, secret)?;
        }
        Ok(factors(passphrase, key_file))
    }
}

fn from_sources(
    file: Option<&std::path::Path>,
    command: Option<&str>,
    fd: Option<i32>,
) -> CommandResult<Option<Secret>> {
    match (file, command, fd) {
        (Some(path), _, _) => passphrase::from_file("passphrase", path).map(Some),
        (None, Some(command), _) => passphrase::from_command(command).map(Some),
        (None, None, Some(fd)) => passphrase::from_fd(fd).map(Some),
        (None, None, None) => Ok(None),
    }
}

fn factors(passphrase: Option<Secret>, key_file: Option<Secret>) -> Vec<Factor> {
    let passphrase = passphrase.map(Factor::Passphrase);
    let key_file = key_file.map(Factor::KeyFile);
    passphrase.into_iter().chain(key_file).collect()
}

fn same_kinds(slot: &[FactorName], kinds: &[FactorName]) -> bool {
    slot.len() == kinds.len() && kinds.iter().all(|kind| slot.contains(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use FactorName::{KeyFile, Passphrase, RecoveryCode};

    fn asks(key_file: bool, slots: &[Vec<FactorName>]) -> Option<bool> {
        let args = UnlockArgs { key_file: key_file.then(|| "k".into()), ..UnlockArgs::default() };
        args.needs_passphrase(slots).ok()
    }

    #[test]
    fn a_passphrase_is_asked_for_only_where_it_can_help() {
        let code = vec![RecoveryCode];
        let plain = [vec![Passphrase], code.clone()];
        let file = [vec![KeyFile], code.clone()];
        let both = [vec![KeyFile, Passphrase], code];
        assert_eq!(asks(false, &plain), Some(true));
        assert_eq!(asks(true, &file), Some(false));
        assert_eq!(asks(true, &both), Some(true));
        assert_eq!(asks(false, &file), None);
        assert_eq!(asks(false, &both), None);
        assert_eq!(asks(true, &plain), Some(false));
    }
}
