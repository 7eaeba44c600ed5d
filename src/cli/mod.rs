//! One file per command: parses, calls, prints, maps errors to messages and exit codes.

pub mod args;
pub mod budget;
pub mod cat;
pub mod check;
pub mod client;
pub mod cp;
pub mod daemon;
pub mod error;
pub mod exit;
pub mod explain;
pub mod export;
pub mod extract;
pub mod factors;
pub mod fingerprint;
pub mod gc;
pub mod init;
pub mod inspect;
pub mod inspect_records;
pub mod key;
pub mod local;
pub mod logging;
pub mod ls;
pub mod mount;
pub mod mount_options;
pub mod open;
pub mod passphrase;
pub mod probe;
pub mod progress;
pub mod recover;
pub mod repair;
pub mod runtime;
pub mod serve;
pub mod signals;
pub mod status;
pub mod store_options;
pub mod sync;
pub mod sys;
pub mod terminal;
pub mod tree;
pub mod umount;
pub mod units;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use error::CommandResult;

/// Runs the command line and says how it ended.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse_from(arguments(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output; if nobody reads it, nothing is lost.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::Exit::Usage.code()));
        }
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{}", error.render());
            ExitCode::from(error.exit().code())
        }
    }
}

fn dispatch(cli: Cli) -> CommandResult {
    if !matches!(cli.command, Command::Mount(_)) {
        cli.log.start(None)?;
    }
    sys::protect_memory();
    sys::keep_pages_small();
    match cli.command {
        Command::Init(args) => init::run(&args),
        Command::Mount(args) => mount::run(*args, &cli.log),
        Command::Umount(args) => umount::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Sync(args) => sync::run(&args),
        Command::Ls(args) => ls::run(&args),
        Command::Cat(args) => cat::run(&args),
        Command::Cp(args) => cp::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Gc(args) => gc::run(&args),
        Command::Fingerprint(args) => fingerprint::run(&args),
        Command::Key(command) => key::run(&command),
        Command::Check(args) => check::run(&args),
        Command::Repair(args) => repair::run(&args),
        Command::Recover(args) => recover::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Probe(args) => probe::run(&args),
    }
}

/// The arguments with `mount` put in where mount(8) calls us by the name of a helper, as for fstab entries of the
/// types `coffer` and `fuse.coffer`.
fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = given.collect();
    let called = all.first().and_then(|name| Path::new(name).file_name()).unwrap_or_default();
    if called == "mount.coffer" || called == "mount.fuse.coffer" {
        all.insert(1, "mount".into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn called_by_mount_it_mounts() {
        let words = |line: &str| arguments(line.split(' ').map(OsString::from));
        assert_eq!(
            words("/sbin/mount.coffer /v /m -o rw"),
            ["/sbin/mount.coffer", "mount", "/v", "/m", "-o", "rw"]
        );
        assert_eq!(words("coffer ls /v"), ["coffer", "ls", "/v"]);
    }
}
