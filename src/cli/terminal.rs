//! Reads a line from the terminal that nobody sees, and of which nothing is left but the secret.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use crate::keys::Secret;

/// Longer than the kernel's own limit for a line.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Whether there is a terminal to ask on.
#[must_use]
pub fn is_there() -> bool {
    File::options().read(true).write(true).open("/dev/tty").is_ok()
}

/// Shows `prompt` and reads a line. The kernel edits it: erasing works as anywhere else.
///
/// # Errors
/// No terminal; [`io::ErrorKind::Interrupted`] after Ctrl-C.
pub fn ask(prompt: &str) -> io::Result<Secret> {
    let tty = File::options().read(true).write(true).open("/dev/tty")?;
    let quiet = Quiet::begin(&tty)?;
    (&tty).write_all(prompt.as_bytes())?;
    let line = Line { tty: &tty, interrupt: quiet.interrupt(), is_over: false };
    let typed = Secret::read(line, LINE_BYTES_MAX)?;
    if typed.expose().last() == Some(&quiet.interrupt()) {
        (&tty).write_all(b"\n")?;
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(typed.without_newline())
}

/// A terminal that shows nothing but the end of the line, until dropped.
struct Quiet<'a> {
    tty: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn begin(tty: &'a File) -> io::Result<Self> {
        let before = tcgetattr(tty)?;
        let mut quiet = before.clone();
        quiet.input_modes.insert(InputModes::ICRNL);
        quiet.input_modes.remove(InputModes::IGNCR | InputModes::INLCR);
        quiet.local_modes.insert(LocalModes::ICANON | LocalModes::IEXTEN | LocalModes::ECHONL);
        // A signal would end the process with the terminal still mute: Ctrl-C ends the line instead.
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        let interrupt = quiet.special_codes[SpecialCodeIndex::VINTR];
        quiet.special_codes[SpecialCodeIndex::VEOL2] = interrupt;
        tcsetattr(tty, OptionalActions::Now, &quiet)?;
        Ok(Self { tty, before })
    }

    fn interrupt(&self) -> u8 {
        self.before.special_codes[SpecialCodeIndex::VINTR]
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to restore.
        let _ = tcsetattr(self.tty, OptionalActions::Now, &self.before);
    }
}

/// One line of a terminal, straight from the kernel into the reader's memory.
struct Line<'a> {
    tty: &'a File,
    interrupt: u8,
    is_over: bool,
}

impl Read for Line<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.is_over {
            return Ok(0);
        }
        let count = self.tty.read(buf)?;
        let last = buf.get(..count).and_then(<[u8]>::last);
        self.is_over = last.is_none_or(|last| *last == b'\n' || *last == self.interrupt);
        Ok(count)
    }
}
