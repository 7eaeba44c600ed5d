//! The error a user sees: one sentence, its causes, what to do next, and an exit code.

use std::error::Error;
use std::fmt;
use std::path::Path;

use super::exit::Exit;

/// Why a command failed.
#[derive(Debug)]
pub struct CommandError {
    exit: Exit,
    message: String,
    hints: Vec<String>,
    silent: bool,
}

/// The result of a command.
pub type CommandResult<T = ()> = Result<T, CommandError>;

impl CommandError {
    /// An error with its sentence: lower case, without a full stop.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hints: Vec::new(), silent: false }
    }

    /// An error of the command line itself.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// An exit code without a message, where the output has already said all.
    #[must_use]
    pub fn silent(exit: Exit) -> Self {
        Self { silent: true, ..Self::new(exit, "") }
    }

    /// Appends the causes of `source` to the sentence, each once.
    #[must_use]
    pub fn because(mut self, source: &(dyn Error + 'static)) -> Self {
        self.message = joined(self.message, Some(source));
        self
    }

    /// Adds a sentence that tells what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds a hint when there is one.
    #[must_use]
    pub fn maybe_hint(self, hint: Option<impl Into<String>>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Says what was being done: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// A local file that could not be read.
    #[must_use]
    pub fn reading(path: &Path, source: &std::io::Error) -> Self {
        Self::new(Exit::Failure, format!("cannot read {}: {source}", path.display()))
    }

    /// A local file that could not be written.
    #[must_use]
    pub fn writing(path: &Path, source: &std::io::Error) -> Self {
        Self::new(Exit::LocalWrite, format!("cannot write {}: {source}", path.display()))
    }

    /// How the process will end.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// What to do next.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        self.silent
    }

    /// The text for the terminal: `error: ...` and a `hint: ...` for each hint; empty for a silent one.
    #[must_use]
    pub fn render(&self) -> String {
        if self.silent {
            return String::new();
        }
        let mut text = format!("error: {}\n", self.message);
        for hint in &self.hints {
            text.push_str(&format!("hint: {hint}\n"));
        }
        text
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The sentence of an error of another room together with its causes.
#[must_use]
pub fn sentence(error: &(dyn Error + 'static)) -> String {
    joined(error.to_string(), error.source())
}

fn joined(mut text: String, mut next: Option<&(dyn Error + 'static)>) -> String {
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

/// Standard output failed: silence when the reader went away, as for other tools in a pipe.
#[must_use]
pub fn stdout_error(error: &std::io::Error) -> CommandError {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        CommandError::silent(Exit::Success)
    } else {
        CommandError::new(Exit::LocalWrite, format!("cannot write the output: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer failed")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_are_told_once_in_one_sentence() {
        let cause = std::io::Error::other("disk on fire");
        let error = CommandError::new(Exit::Failure, "cannot go on").because(&Outer(cause)).hint("run");
        assert_eq!(error.render(), "error: cannot go on: outer failed: disk on fire\nhint: run\n");
        let again = CommandError::new(Exit::Failure, "outer failed")
            .because(&Outer(std::io::Error::other("outer failed")));
        assert_eq!(again.render(), "error: outer failed\n");
    }

    #[test]
    fn a_closed_pipe_ends_quietly() {
        let error = stdout_error(&std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!((error.render().as_str(), error.exit()), ("", Exit::Success));
    }
}
