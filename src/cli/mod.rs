//! One file per command: parses, calls, prints, maps errors to messages and exit codes.

pub mod args;
pub mod budget;
pub mod cat;
pub mod check;
pub mod client;
pub mod code_file;
pub mod completions;
pub mod config;
pub mod cover;
pub mod cp;
pub mod daemon;
pub mod deep;
pub mod error;
pub mod exit;
pub mod explain;
pub mod export;
pub mod extract;
pub mod factors;
pub mod figures;
pub mod fingerprint;
pub mod gc;
pub mod helper;
pub mod import;
pub mod init;
pub mod insert;
pub mod inspect;
pub mod inspect_records;
pub mod key;
pub mod leftovers;
pub mod limit;
pub mod local;
pub mod log_file;
pub mod logging;
pub mod ls;
pub mod made;
pub mod mount;
pub mod mount_options;
pub mod open;
pub mod outage;
pub mod passphrase;
pub mod place;
pub mod probe;
pub mod progress;
mod quiet;
pub mod quota;
pub mod reach;
pub mod recover;
pub mod remount;
pub mod repair;
pub mod report;
mod report_lines;
pub mod rotate;
mod rotate_again;
mod rotate_slots;
pub mod runtime;
pub mod serve;
pub mod signals;
pub mod source;
pub mod status;
pub mod stderr;
pub mod store_options;
pub mod supervisor;
pub mod sync;
pub mod sys;
pub mod terminal;
pub mod tree;
pub mod umount;
pub mod units;
pub mod warm;

use std::process::ExitCode;

use args::{Cli, Command};
use config::Refusal;
use error::CommandResult;

/// Runs the command line and says how it ended.
#[must_use]
pub fn run() -> ExitCode {
    let done = match config::parse(&helper::arguments(std::env::args_os())) {
        Ok(cli) => dispatch(cli),
        Err(Refusal::Config(error)) => Err(error),
        Err(Refusal::Clap(error)) => {
            // Help goes to standard output; if nobody reads it, nothing is lost.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::Exit::Usage.code()));
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::complain(&error);
            ExitCode::from(error.exit().code())
        }
    }
}

/// What commands that copy files out say by themselves of each that is damaged.
const TOLD_BY_FILE: &str = "warn,slatedb=error,coffer::vfs::damage=error";

fn dispatch(mut cli: Cli) -> CommandResult {
    if matches!(cli.command, Command::Export(_) | Command::Cp(_)) && cli.log.verbose == 0 {
        cli.log.filter.get_or_insert_with(|| TOLD_BY_FILE.to_owned());
    }
    if !matches!(cli.command, Command::Mount(_)) {
        cli.log.start(None, false)?;
    }
    cli.progress.choose(cli.command.is_for_program());
    sys::protect_memory();
    sys::keep_pages_small();
    match cli.command {
        Command::Init(args) => init::run(&args),
        Command::Mount(args) => mount::run(*args, &cli.log),
        Command::Umount(args) => umount::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Sync(args) => sync::run(&args),
        Command::Limit(args) => limit::limit(&args),
        Command::Pause(args) => limit::pause(&args),
        Command::Resume(args) => limit::resume(&args),
        Command::Warm(args) => warm::run(&args),
        Command::Ls(args) => ls::run(&args),
        Command::Cat(args) => cat::run(&args),
        Command::Cp(args) => cp::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Gc(args) => gc::run(&args),
        Command::Quota(args) => quota::run(&args),
        Command::Fingerprint(args) => fingerprint::run(&args),
        Command::Key(command) => key::run(&command),
        Command::Check(args) => check::run(&args),
        Command::Repair(args) => repair::run(&args),
        Command::Recover(args) => recover::run(&args),
        Command::Config(command) => config::run(&command, cli.config.as_ref()),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => completions::man(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Probe(args) => probe::run(&args),
    }
}
