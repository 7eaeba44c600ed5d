//! `coffer completions` and `coffer man`: what shells and man(1) are to know, from the same definitions as the parser.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap_complete::Shell;
use clap_mangen::Man;

use super::config;
use super::error::{CommandError, CommandResult, stdout_error};

/// Shown at the end of `coffer completions --help`.
pub const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  coffer completions bash > ~/.local/share/bash-completion/completions/coffer
  coffer completions zsh > ~/.zfunc/_coffer
  coffer completions fish > ~/.config/fish/completions/coffer.fish";

/// Shown at the end of `coffer man --help`.
pub const MAN_EXAMPLES: &str = "\
Examples:
  coffer man ~/.local/share/man/man1
  coffer man | man -l -";

/// Arguments of `coffer completions`.
#[derive(clap::Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Arguments of `coffer man`.
#[derive(clap::Args, Debug)]
pub struct ManArgs {
    /// Write the pages of all commands into this directory instead of printing the first
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Prints the completions.
///
/// # Errors
/// When the output cannot be written.
pub fn completions(args: &CompletionsArgs) -> CommandResult {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut config::definition(), "coffer", &mut text);
    print(&text)
}

/// Prints or writes the pages.
///
/// # Errors
/// When they cannot be written.
pub fn man(args: &ManArgs) -> CommandResult {
    match &args.dir {
        Some(dir) => write_all(dir),
        None => print(&page(described()).1),
    }
}

/// The commands as they may be typed: a volume of a configuration file brings its mount point along.
fn described() -> clap::Command {
    config::definition().mut_subcommand("mount", |mount| mount.mut_arg("dir", |dir| dir.required(false)))
}

fn write_all(dir: &Path) -> CommandResult {
    std::fs::create_dir_all(dir).map_err(|e| CommandError::writing(dir, &e))?;
    let mut command = described();
    command.build();
    let mut waiting = vec![command];
    while let Some(command) = waiting.pop() {
        waiting.extend(command.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned());
        let (name, text) = page(command);
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|e| CommandError::writing(&path, &e))?;
    }
    Ok(())
}

/// A page's file name and text.
fn page(command: clap::Command) -> (String, Vec<u8>) {
    let man = Man::new(command).manual("Coffer");
    let mut text = Vec::new();
    // Writing into memory does not fail.
    let _ = man.render(&mut text);
    (man.get_filename(), text)
}

fn print(text: &[u8]) -> CommandResult {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush()).map_err(|e| stdout_error(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_mount_says_that_the_mount_point_may_be_left_out() {
        let command = described();
        let mount = command.find_subcommand("mount").unwrap().clone();
        let text = String::from_utf8(page(mount).1).unwrap();
        assert!(text.contains("<\\fIURL\\fR>") && text.contains("[\\fIDIR\\fR]"), "{text}");
    }
}
