//! Obtains secrets from the terminal, a file, a command or a file descriptor; never from arguments or the environment.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::stderr;
use super::units::show_count;
use super::{sys, terminal};
use crate::crypto::equal;
use crate::keys::{KEY_FILE_BYTES_MAX, Secret};

/// Longest passphrase from a command or a descriptor.
const SECRET_BYTES_MAX: usize = 64 * 1024;
/// A new passphrase shorter than this earns a warning.
const PASSPHRASE_BYTES_WEAK: usize = 10;

/// What to do where nobody can be asked.
pub const WITHOUT_TERMINAL: &str =
    "without a terminal, use --passphrase-file, --passphrase-command, --passphrase-fd or --key-file";
/// The same for a key that is to be added.
pub const WITHOUT_TERMINAL_NEW: &str = "without a terminal, use --new-passphrase-file, --new-passphrase-command, \
     --new-passphrase-fd or --new-key-file";
/// A key file is not stretched, so that one which can be guessed opens the volume at once.
const NEW_KEY_FILE_BYTES_MIN: usize = 32;

/// Reads a file as a secret, without one newline at its end.
///
/// # Errors
/// When the file cannot be read, is empty or too long, or when others may read it.
pub fn from_file(what: &str, path: &Path) -> CommandResult<Secret> {
    let secret = key_file(what, path)?.without_newline();
    not_empty(secret, || format!("the {what} file {} is empty", path.display()))
}

/// Reads a file of key material whole: every byte counts.
///
/// # Errors
/// As [`from_file`].
pub fn key_file(what: &str, path: &Path) -> CommandResult<Secret> {
    let failed = |error: &io::Error| {
        CommandError::new(Exit::NoSecret, format!("cannot read the {what} file {}: {error}", path.display()))
    };
    let file = File::open(path).map_err(|e| failed(&e))?;
    let about = file.metadata().map_err(|e| failed(&e))?;
    if about.is_dir() {
        let message = format!("the {what} file {} is a directory", path.display());
        return Err(CommandError::new(Exit::NoSecret, message));
    }
    let mode = about.permissions().mode();
    if about.is_file() && mode & 0o077 != 0 {
        let message =
            format!("the {what} file {} is open to other users (mode {:03o})", path.display(), mode & 0o777);
        return Err(CommandError::new(Exit::NoSecret, message)
            .hint(format!("make it private with `chmod 600 {}`", path.display())));
    }
    let secret = Secret::read(file, KEY_FILE_BYTES_MAX).map_err(|e| failed(&e))?;
    not_empty(secret, || format!("the {what} file {} is empty", path.display()))
}

/// Whether a new key may consist of the contents of this file alone.
///
/// # Errors
/// When it is short enough to be guessed.
pub fn suffices_alone(path: &Path, secret: &Secret) -> CommandResult {
    let bytes = secret.expose().len();
    if bytes >= NEW_KEY_FILE_BYTES_MIN {
        return Ok(());
    }
    let message = format!(
        "the key file {} has {bytes} bytes: less than {NEW_KEY_FILE_BYTES_MIN} can be guessed",
        path.display()
    );
    Err(CommandError::new(Exit::NoSecret, message)
        .hint("unlike a passphrase a key file is not stretched; `head -c 64 /dev/urandom > FILE` makes one"))
}

/// Takes what `sh -c command` prints, without one newline at its end. The command may use the terminal.
///
/// # Errors
/// When the command cannot run, fails, or prints nothing.
pub fn from_command(command: &str) -> CommandResult<Secret> {
    let failed = |why: String| CommandError::new(Exit::NoSecret, format!("the passphrase command {why}"));
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|e| failed(format!("cannot be started: {e}")))?;
    let secret = child.stdout.take().map(|out| Secret::read(out, SECRET_BYTES_MAX));
    let status = child.wait().map_err(|e| failed(format!("cannot be waited for: {e}")))?;
    if !status.success() {
        return Err(failed(format!("failed with {status}")));
    }
    let secret = match secret {
        Some(read) => read.map_err(|e| failed(format!("cannot be read from: {e}")))?,
        None => Secret::copy_of(&[]),
    };
    not_empty(secret.without_newline(), || "the passphrase command printed nothing".to_owned())
}

/// Reads an open file descriptor to its end, without one newline there.
///
/// # Errors
/// When the descriptor is not open for reading or nothing comes out of it.
pub fn from_fd(fd: i32) -> CommandResult<Secret> {
    let failed = |error: &io::Error| {
        CommandError::new(
            Exit::NoSecret,
            format!("cannot read a passphrase from file descriptor {fd}: {error}"),
        )
    };
    let file = sys::duplicate_fd(fd).map_err(|e| failed(&e))?;
    let secret = Secret::read(file, SECRET_BYTES_MAX).map_err(|e| failed(&e))?;
    not_empty(secret.without_newline(), || format!("file descriptor {fd} gave an empty passphrase"))
}

/// Asks on the terminal, without echo.
///
/// # Errors
/// When there is no terminal, or nothing is typed.
pub fn ask(prompt: &str) -> CommandResult<Secret> {
    let typed = ask_or_nothing(prompt)?;
    not_empty(typed, || format!("the {} is empty", prompt.to_lowercase()))
}

/// As [`ask`]; nothing may be typed.
///
/// # Errors
/// When there is no terminal.
pub fn ask_or_nothing(prompt: &str) -> CommandResult<Secret> {
    ask_with(prompt, WITHOUT_TERMINAL)
}

/// As [`ask_or_nothing`]; `instead` says what to do without a terminal.
fn ask_with(prompt: &str, instead: &str) -> CommandResult<Secret> {
    terminal::ask(&format!("{prompt}: ")).map_err(|error| {
        if error.kind() == io::ErrorKind::Interrupted {
            return CommandError::silent(Exit::Interrupted);
        }
        let what = prompt.to_lowercase();
        let message = match error.raw_os_error() {
            Some(libc::ENXIO | libc::ENOENT | libc::ENOTTY) => {
                format!("there is no terminal to ask for the {what} on")
            }
            _ => format!("cannot ask for the {what}: {error}"),
        };
        CommandError::new(Exit::NoSecret, message).hint(instead)
    })
}

/// Asks twice for a passphrase that is to be set; `instead` says what to do without a terminal.
///
/// # Errors
/// As [`ask`], and when the two differ.
pub fn ask_new(prompt: &str, instead: &str) -> CommandResult<Secret> {
    let typed = ask_with(prompt, instead)?;
    let first = not_empty(typed, || format!("the {} is empty", prompt.to_lowercase()))?;
    let again = ask("The same again")?;
    if !equal(first.expose(), again.expose()) {
        return Err(CommandError::new(Exit::NoSecret, "the two passphrases differ"));
    }
    warn_if_weak(first.expose());
    Ok(first)
}

/// Says so on standard error when a new passphrase can be guessed: whoever has the bucket can try for years.
pub fn warn_if_weak(passphrase: &[u8]) {
    if passphrase.len() < PASSPHRASE_BYTES_WEAK {
        stderr::line(format_args!(
            "warning: a passphrase of {} can be guessed by whoever holds the bucket; several words are safer",
            show_count(String::from_utf8_lossy(passphrase).chars().count() as u64, "character", "characters")
        ));
    }
}

fn not_empty(secret: Secret, message: impl FnOnce() -> String) -> CommandResult<Secret> {
    if secret.expose().is_empty() { Err(CommandError::new(Exit::NoSecret, message())) } else { Ok(secret) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn private_file(content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        (dir, path)
    }

    #[test]
    fn one_newline_at_the_end_is_not_part_of_a_passphrase() {
        for (content, want) in
            [(&b"a b"[..], &b"a b"[..]), (b"a b\n", b"a b"), (b"a\n\n", b"a\n"), (b" \n", b" ")]
        {
            let (_dir, path) = private_file(content);
            assert_eq!(from_file("passphrase", &path).unwrap().expose(), want);
        }
        let (_dir, path) = private_file(b"\x00key\n");
        assert_eq!(
            key_file("key", &path).unwrap().expose(),
            b"\x00key\n",
            "a key file counts to its last byte"
        );
    }

    #[test]
    fn an_empty_secret_is_refused() {
        for content in [&b""[..], b"\n"] {
            let (_dir, path) = private_file(content);
            let error = from_file("passphrase", &path).unwrap_err();
            assert_eq!(error.exit(), Exit::NoSecret);
            assert!(error.to_string().contains("is empty"), "{error}");
        }
        assert_eq!(from_command("true").unwrap_err().exit(), Exit::NoSecret);
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o601] {
            let (_dir, path) = private_file(b"x");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = from_file("passphrase", &path).unwrap_err();
            assert!(error.render().contains("chmod 600"), "{}", error.render());
        }
    }

    #[test]
    fn a_secret_of_unreasonable_length_is_refused() {
        let (_dir, path) = private_file(&vec![b'x'; KEY_FILE_BYTES_MAX + 1]);
        assert!(from_file("passphrase", &path).is_err());
        let (_dir, path) = private_file(&vec![b'x'; KEY_FILE_BYTES_MAX]);
        assert_eq!(from_file("passphrase", &path).unwrap().expose().len(), KEY_FILE_BYTES_MAX);
    }

    #[test]
    fn a_command_gives_its_output_and_a_failing_one_nothing() {
        assert_eq!(from_command("echo 'a  b'").unwrap().expose(), b"a  b");
        let error = from_command("echo secret; exit 3").unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
