//! Where a new recovery code goes: standard output, or a file that is there before anything is changed for the code's sake.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::{CommandError, CommandResult};
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

    /// Writes the code, so that it outlives a loss of power.
    fn write(mut self, text: &str) -> io::Result<PathBuf> {
        self.file.write_all(text.as_bytes())?;
        self.file.write_all(b"\n")?;
        self.file.sync_all()?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        self.is_written = true;
        Ok(self.path.clone())
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

/// A recovery code that its owner has been given, before anything opens with it.
#[derive(Debug)]
#[must_use]
pub struct Handed {
    /// Where it is; nowhere if it was shown.
    path: Option<PathBuf>,
    once: &'static str,
}

/// Gives the code to its owner: into `file`, or on standard output, framed by words if that is a terminal. It is to be
/// done before the code opens anything: nobody is helped by a key that nobody has. `once` says from when on it counts.
///
/// # Errors
/// When it cannot be written. Then what it is for is not to be done.
pub fn hand_over(code: &RecoveryCode, file: Option<CodeFile>, once: &'static str) -> CommandResult<Handed> {
    let text = code.reveal();
    if let Some(file) = file {
        let name = file.path.display().to_string();
        let path = file.write(text.as_str()).map_err(|e| not_given(&format!("cannot write {name}: {e}")))?;
        stderr::line(format_args!(
            "The recovery code is in {name} and counts once {once}; keep it away from this machine."
        ));
        return Ok(Handed { path: Some(path), once });
    }
    let mut out = io::stdout().lock();
    let framed = out.is_terminal();
    if framed {
        stderr::line(format_args!(
            "\nRecovery code, shown this once. It opens the volume if your key is lost, once {once}:\n"
        ));
    }
    let indent = if framed { "    " } else { "" };
    let written = writeln!(out, "{indent}{}", text.as_str()).and_then(|()| out.flush());
    written.map_err(|e| not_given(&format!("cannot write the output: {e}")))?;
    stderr::line(if framed {
        "\nWrite it down and keep it away from this machine.".to_owned()
    } else {
        format!("The recovery code is on standard output, this once, and counts once {once}.")
    });
    Ok(Handed { path: None, once })
}

fn not_given(why: &str) -> CommandError {
    CommandError::new(
        Exit::LocalWrite,
        format!("nothing was done, because the recovery code could not be shown: {why}"),
    )
}

impl Handed {
    /// `error`, and what it means for the code. Only where it is `certain` that nothing opens with it is its file removed.
    #[must_use]
    pub fn after(self, error: CommandError, certain: bool, url: &str) -> CommandError {
        match self.path {
            _ if !certain => error.hint(format!(
                "keep the recovery code: it counts once {}, and `coffer key list {url}` tells whether that is so",
                self.once
            )),
            Some(path) => match std::fs::remove_file(&path) {
                Ok(()) => error,
                Err(_) => error.hint(format!("the recovery code in {} opens nothing", path.display())),
            },
            None => error.hint("the recovery code that was shown opens nothing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SeededEntropy;

    #[test]
    fn the_file_of_a_code_goes_only_if_nothing_can_open_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code");
        let code = RecoveryCode::random(&SeededEntropy::new(1));
        let failed = || CommandError::new(Exit::SlotRefused, "somebody was first");
        for certain in [false, true] {
            let file = CodeFile::create(Some(&path)).unwrap();
            let handed = hand_over(&code, file, "it is there").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap().trim_end(), code.reveal().as_str());
            let told = handed.after(failed(), certain, "vol").render();
            assert_eq!(path.exists(), !certain);
            assert_eq!(
                told.contains("keep the recovery code: it counts once it is there"),
                !certain,
                "{told}"
            );
            let _ = std::fs::remove_file(&path);
        }
        let shown = Handed { path: None, once: "it is there" }.after(failed(), true, "vol").render();
        assert!(shown.contains("that was shown opens nothing"), "{shown}");
        drop(CodeFile::create(Some(&path)).unwrap());
        assert!(!path.exists(), "none was written to it");
    }
}
