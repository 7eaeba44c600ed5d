//! A log file that is written under its name: when that names another file or none, as after a rotation, it is opened anew.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::{CommandError, CommandResult};
use super::exit::Exit;

/// Only whoever runs the program can read the log.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// At the end of whatever the file has become: it may have been cut to nothing.
const FLAGS: OFlags = OFlags::WRONLY.union(OFlags::APPEND).union(OFlags::CREATE).union(OFlags::CLOEXEC);

/// The log file.
#[derive(Debug)]
pub struct LogFile {
    /// Where it lies, from before anything was mounted: by its path it could lie below the mount that writes it.
    dir: File,
    name: OsString,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    is_standard_error: bool,
}

impl LogFile {
    /// Opens the file at `path` for appending.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn open(path: &Path) -> CommandResult<Self> {
        let Some(name) = path.file_name() else {
            let message = format!("cannot log to {}: it is not the name of a file", path.display());
            return Err(CommandError::new(Exit::LocalWrite, message));
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let opened = File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| {
            let file = open_in(&dir, name)?;
            Ok((dir, file))
        });
        let (dir, file) = opened.map_err(|e| CommandError::writing(path, &e))?;
        let open = Mutex::new(Open { file, is_standard_error: false });
        Ok(Self { dir, name: name.to_owned(), open })
    }

    /// Has standard error go there from now on, too.
    ///
    /// # Errors
    /// Those of dup2(2).
    pub fn take_standard_error(&self) -> io::Result<()> {
        let mut open = self.open.lock();
        rustix::stdio::dup2_stderr(&open.file)?;
        open.is_standard_error = true;
        Ok(())
    }

    /// Whether the name still names what is open. What cannot be told is taken to be as it was.
    fn is_there(&self, open: &Open) -> bool {
        let id = |stat: &Stat| (stat.st_dev, stat.st_ino);
        match (rustix::fs::statat(&self.dir, &self.name, AtFlags::empty()), rustix::fs::fstat(&open.file)) {
            (Ok(named), Ok(opened)) => id(&named) == id(&opened),
            (Err(Errno::NOENT), _) => false,
            _ => true,
        }
    }
}

fn open_in(dir: &File, name: &std::ffi::OsStr) -> io::Result<File> {
    Ok(File::from(rustix::fs::openat(dir, name, FLAGS, MODE)?))
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut open = self.open.lock();
        if !self.is_there(&open)
            // Where there can be none, the old one goes on.
            && let Ok(file) = open_in(&self.dir, &self.name)
        {
            if open.is_standard_error {
                rustix::stdio::dup2_stderr(&file)?;
            }
            open.file = file;
        }
        open.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_log_file_is_followed_by_its_name_and_may_be_cut() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        let log = LogFile::open(&path).unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        (&log).write_all(b"one\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::rename(&path, &old).unwrap();
        (&log).write_all(b"two\n").unwrap();
        assert_eq!((read(&old), read(&path)), ("one\n".into(), "two\n".into()));
        // As logrotate does with `create`.
        fs::rename(&path, &old).unwrap();
        fs::write(&path, "").unwrap();
        (&log).write_all(b"three\n").unwrap();
        assert_eq!((read(&old), read(&path)), ("two\n".into(), "three\n".into()));
        // And with `copytruncate`: nothing is written behind a hole.
        fs::copy(&path, &old).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        (&log).write_all(b"four\n").unwrap();
        assert_eq!((read(&old), read(&path)), ("three\n".into(), "four\n".into()));
    }

    #[test]
    fn where_no_new_file_can_be_opened_the_old_one_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        let log = LogFile::open(&path).unwrap();
        fs::rename(&path, &old).unwrap();
        fs::create_dir(&path).unwrap();
        (&log).write_all(b"still\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "still\n");
    }
}
