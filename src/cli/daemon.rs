//! Goes to the background: the caller's process waits until the child is ready or has failed, and says so.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::logging::{self, Log};
use super::stderr;
use super::sys::{self, Forked};

/// Longest report a child sends.
const REPORT_BYTES_MAX: u64 = 64 * 1024;

/// Which side of the fork the caller is on.
#[derive(Debug)]
pub enum Side {
    /// The process the user started: it has a child to wait for.
    Front(Child),
    /// The process that goes on in the background.
    Back(Readiness),
}

/// The background process, seen from the one that waits for it.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    report: File,
}

/// The background process's duty to report to the one that waits.
#[derive(Debug)]
pub struct Readiness {
    report: File,
}

/// Splits the process. To be called before any thread exists, and when nothing is read any more from descriptors that the
/// caller has opened: the background keeps none of them.
///
/// # Errors
/// When the system gives no pipe or process.
pub fn split() -> CommandResult<Side> {
    let failed = |error: &dyn std::fmt::Display| {
        CommandError::new(Exit::Failure, format!("cannot go to the background: {error}"))
            .hint("use -f to stay in the foreground")
    };
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(&e))?;
    match sys::fork().map_err(|e| failed(&e))? {
        Forked::Parent(pid) => {
            drop(write);
            Ok(Side::Front(Child { pid, report: File::from(read) }))
        }
        Forked::Child => {
            drop(read);
            sys::close_inherited();
            Ok(Side::Back(Readiness { report: File::from(write) }))
        }
    }
}

impl Child {
    /// Waits for the report, prints its text to standard error and returns how to exit.
    #[must_use]
    pub fn wait(mut self) -> Exit {
        let mut report = Vec::new();
        let read = Read::take(&mut self.report, REPORT_BYTES_MAX).read_to_end(&mut report);
        if let (Ok(_), Some((code, text))) = (read, report.split_first()) {
            stderr::text(String::from_utf8_lossy(text));
            return Exit::from_code(*code);
        }
        let end = match waitpid(Some(self.pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!(" with exit status {code}"),
                (_, Some(signal)) => format!(", killed by signal {signal}"),
                _ => String::new(),
            },
            _ => String::new(),
        };
        stderr::line(format_args!("error: the background process ended before it was ready{end}"));
        Exit::Failure
    }
}

impl Readiness {
    /// Reports readiness, then lets go of the terminal: a session of its own, no standard input and output, standard
    /// error into the log's file or nowhere unless it is the log, and no directory kept busy.
    ///
    /// # Errors
    /// When `/dev/null` cannot be opened or the waiting process has gone.
    pub fn ready(mut self, message: &str, log: &Log) -> io::Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        if let Err(error) = rustix::process::setsid() {
            tracing::debug!(%error, "no session of its own");
        }
        rustix::process::chdir("/")?;
        self.send(Exit::Success, message)?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        match log {
            Log::Stderr => {}
            Log::File(file, _) => file.take_standard_error()?,
            Log::Journal => rustix::stdio::dup2_stderr(&null)?,
        }
        logging::leave_the_user();
        Ok(())
    }

    /// Reports that it did not get ready.
    pub fn failed(mut self, error: &CommandError) {
        if self.send(error.exit(), &error.render()).is_err() {
            stderr::text(error.render());
        }
    }

    fn send(&mut self, exit: Exit, text: &str) -> io::Result<()> {
        let mut report = vec![exit.code()];
        report.extend_from_slice(text.as_bytes());
        self.report.write_all(&report)
    }
}
