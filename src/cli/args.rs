//! The command line: one definition that feeds parser, help and examples.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Parser, Subcommand};

use super::exit::Exit;
use super::logging::LogArgs;
use super::progress::ProgressArgs;
use super::{
    cat, check, completions, config, cp, export, fingerprint, gc, import, init, inspect, key, limit, ls,
    mount, probe, quota, recover, repair, status, sync, umount, warm,
};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Yellow.on_default().bold())
    .usage(AnsiColor::Yellow.on_default().bold())
    .literal(AnsiColor::Green.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

/// Mount an untrusted cloud bucket as a private POSIX drive
#[derive(Debug, Parser)]
#[command(
    name = "coffer",
    version,
    styles = STYLES,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = overview(),
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Read settings from this file only, not from ~/.config/coffer/config.toml and /etc/coffer/config.toml
    #[arg(long, value_name = "FILE", env = "COFFER_CONFIG", global = true, hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// How much to log.
    #[command(flatten)]
    pub log: LogArgs,
    /// How progress is shown.
    #[command(flatten)]
    pub progress: ProgressArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a volume in a bucket
    #[command(after_help = init::EXAMPLES)]
    Init(init::InitArgs),
    /// Mount a volume on a directory
    #[command(after_help = mount::EXAMPLES)]
    Mount(Box<mount::MountArgs>),
    /// Unmount, after everything is in the bucket
    #[command(after_help = umount::EXAMPLES)]
    Umount(umount::UmountArgs),
    /// Tell whether everything is safe, and what is going on
    #[command(after_help = status::EXAMPLES)]
    Status(status::StatusArgs),
    /// Wait until everything written so far is in the bucket
    #[command(after_help = sync::EXAMPLES)]
    Sync(sync::SyncArgs),
    /// Limit how fast a mount sends and receives
    #[command(after_help = limit::LIMIT_EXAMPLES)]
    Limit(limit::LimitArgs),
    /// Have mounts send nothing for a while
    #[command(after_help = limit::PAUSE_EXAMPLES)]
    Pause(limit::PauseArgs),
    /// Have paused mounts send again
    #[command(after_help = limit::RESUME_EXAMPLES)]
    Resume(limit::ResumeArgs),
    /// Read a tree of a mount ahead of its use
    #[command(after_help = warm::EXAMPLES)]
    Warm(warm::WarmArgs),
    /// List files of a volume without mounting it
    #[command(after_help = ls::EXAMPLES)]
    Ls(ls::LsArgs),
    /// Print files of a volume without mounting it
    #[command(after_help = cat::EXAMPLES)]
    Cat(cat::CatArgs),
    /// Copy files out of a volume without mounting it
    #[command(after_help = cp::EXAMPLES)]
    Cp(cp::CpArgs),
    /// Copy a whole tree out of a volume, faithful in every attribute
    #[command(after_help = export::EXAMPLES)]
    Export(export::ExportArgs),
    /// Copy a whole tree into a volume, faithful in every attribute
    #[command(after_help = import::EXAMPLES)]
    Import(import::ImportArgs),
    /// Give back what is stored and not used, or tell how much that is
    #[command(after_help = gc::EXAMPLES)]
    Gc(gc::GcArgs),
    /// Show or set what a volume may hold
    #[command(after_help = quota::EXAMPLES)]
    Quota(quota::QuotaArgs),
    /// Find out what is wrong with a volume, if anything
    #[command(after_help = check::EXAMPLES)]
    Check(check::CheckArgs),
    /// Put a volume back in order that a check has found something wrong with
    #[command(after_help = repair::EXAMPLES)]
    Repair(repair::RepairArgs),
    /// Take back what a mount could not send because another one took over
    #[command(after_help = recover::EXAMPLES)]
    Recover(recover::RecoverArgs),
    /// Tell which volume it is, in words to be compared on another machine
    #[command(after_help = fingerprint::EXAMPLES)]
    Fingerprint(fingerprint::FingerprintArgs),
    /// List, add, change and remove the keys that open a volume
    #[command(subcommand, after_help = key::EXAMPLES)]
    Key(key::KeyCommand),
    /// Show which settings are in force, and where each comes from
    #[command(subcommand, after_help = config::EXAMPLES)]
    Config(config::ConfigCommand),
    /// Print what a shell needs to complete commands and options
    #[command(after_help = completions::COMPLETIONS_EXAMPLES)]
    Completions(completions::CompletionsArgs),
    /// Print or write the manual pages
    #[command(after_help = completions::MAN_EXAMPLES)]
    Man(completions::ManArgs),
    /// Show what a stored object is
    #[command(after_help = inspect::EXAMPLES)]
    Inspect(inspect::InspectArgs),
    /// Tell what a store can do, and how fast
    #[command(after_help = probe::EXAMPLES)]
    Probe(probe::ProbeArgs),
}

impl Command {
    /// Whether long work ends in what a program reads.
    #[must_use]
    pub const fn is_for_program(&self) -> bool {
        match self {
            Self::Check(args) => args.json,
            Self::Repair(args) => args.json,
            Self::Gc(args) => args.json,
            Self::Quota(args) => args.json,
            _ => false,
        }
    }
}

fn overview() -> String {
    format!(
        "\
URLs:
  /srv/volume, file:///srv/volume   a local directory
  s3://bucket/prefix                Amazon S3 and what speaks its language (AWS_* variables)
  az://container/prefix             Azure Blob Storage (AZURE_* variables)
  gs://bucket/prefix                Google Cloud Storage (GOOGLE_* variables)
  memory:                           this process's memory, for trials

Start:
  coffer init s3://my-bucket/home
  coffer mount s3://my-bucket/home ~/vault
  coffer status
  coffer umount ~/vault

{}",
        Exit::table()
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:\n  coffer "), "{}", command.get_name());
        }
    }
}
