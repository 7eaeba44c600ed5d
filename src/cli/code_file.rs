//! Where a new recovery code goes: standard output, or a file that is there before anything is changed for the code's sake.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::{CommandError, CommandResult, stdout_error};
use super::exit::Exit;
use super::stderr;
use crate::keys::RecoveryCode;

/// A new file for a recovery code; removed again if none is written to it.
#[derive(Debug)]
pub struct CodeFile {
    path: PathBuf,
    file: File,
    is_written: bool,
}

impl CodeFile {
    /// Makes the file at `path`, if one is wanted, for its owner alone.
    ///
    /// # Errors
    /// When it is there already, or cannot be written.
    pub fn create(path: Option<&Path>) -> CommandResult<Option<Self>> {
        let Some(path) = path else { return Ok(None) };
        refuse_existing(Some(path))?;
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = made.map_err(|e| CommandError::writing(path, &e))?;
        Ok(Some(Self { path: path.to_owned(), file, is_written: false }))
    }

    fn write(mut self, text: &str) -> CommandResult {
        let written = self.file.write_all(text.as_bytes());
        let written = written.and_then(|()| self.file.write_all(b"\n")).and_then(|()| self.file.sync_all());
        written.map_err(|e| lost(CommandError::writing(&self.path, &e)))?;
        self.is_written = true;
        stderr::line(format_args!(
            "The recovery code is in {}; keep it away from this machine.",
            self.path.display()
        ));
        Ok(())
    }
}

impl Drop for CodeFile {
    fn drop(&mut self) {
        if !self.is_written {
            // One that stays is empty, and said to be there already by the next try.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Refuses the name of a file that is there, before anything is asked.
///
/// # Errors
/// When it is there.
pub fn refuse_existing(path: Option<&Path>) -> CommandResult {
    match path.filter(|path| path.symlink_metadata().is_ok()) {
        None => Ok(()),
        Some(path) => Err(CommandError::new(Exit::LocalWrite, format!("{} exists already", path.display()))
            .hint("give the name of a new file to --save-recovery-code")),
    }
}

/// Gives the code to its owner: into `file`, or on standard output, framed by words if that is a terminal.
///
/// # Errors
/// When it cannot be written; the slot is there all the same.
pub fn hand_over(code: &RecoveryCode, file: Option<CodeFile>) -> CommandResult {
    let text = code.reveal();
    if let Some(file) = file {
        return file.write(text.as_str());
    }
    let mut out = io::stdout().lock();
    let framed = out.is_terminal();
    if framed {
        stderr::line("\nRecovery code, shown this once. It opens the volume if your key is lost:\n");
    }
    let indent = if framed { "    " } else { "" };
    let written = writeln!(out, "{indent}{}", text.as_str()).and_then(|()| out.flush());
    written.map_err(|e| lost(stdout_error(&e)))?;
    if framed {
        stderr::line("\nWrite it down and keep it away from this machine.");
    }
    Ok(())
}

fn lost(error: CommandError) -> CommandError {
    CommandError::new(Exit::LocalWrite, format!("the recovery code could not be shown: {error}"))
        .hint("the volume is there; make another code with `coffer key add --new-recovery-code URL`")
}
