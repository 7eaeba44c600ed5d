//! The signals that end a mount, and the one that asks how it is.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::{CommandError, CommandResult};
use super::exit::Exit;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Ctrl-C.
    Interrupt,
    /// From the system or a service manager.
    Terminate,
    /// The terminal is gone.
    Hangup,
    /// Somebody wants to know how things are: no end.
    Show,
}

/// Receives them instead of dying of them.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    show: Signal,
}

impl Signals {
    /// Begins to receive. From now on no such signal ends the process by itself.
    ///
    /// # Errors
    /// When the system gives no handler.
    pub fn listen() -> CommandResult<Self> {
        let on = |kind| {
            signal(kind).map_err(|e| CommandError::new(Exit::Failure, format!("cannot handle signals: {e}")))
        };
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
            show: on(SignalKind::user_defined1())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Ask {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Ask::Interrupt,
            Some(()) = self.terminate.recv() => Ask::Terminate,
            Some(()) = self.hangup.recv() => Ask::Hangup,
            Some(()) = self.show.recv() => Ask::Show,
            else => std::future::pending().await,
        }
    }
}
