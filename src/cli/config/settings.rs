//! Which options are settings: they may come from the environment and from configuration files.

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, Command};

/// What the variables of all settings begin with.
pub const ENVIRONMENT_PREFIX: &str = "COFFER_";

/// Options of `coffer mount` that no file can give: somebody has to type them each time, because they give up a protection
/// or mean nothing from afar, or they say which file it is.
pub const ON_THE_LINE_ONLY: [&str; 12] = [
    "accept-rollback",
    "config",
    "fake",
    "fault",
    "forensic",
    "foreground",
    "help",
    "http-anywhere",
    "passphrase-fd",
    "recovery-code",
    "takeover",
    "verbose",
];

/// `coffer mount` with the options that all commands have, of the whole `definition`.
#[must_use]
pub(super) fn of_mount(definition: &Command) -> Command {
    let mount = definition.find_subcommand("mount").cloned().unwrap_or_default();
    mount.args(definition.get_arguments().filter(|arg| arg.is_global_set()).cloned())
}

/// Whether `name`, without its dashes, is an option of [`of_mount`] that may come from elsewhere than the command line.
#[must_use]
pub fn is_setting(mount: &Command, name: &str) -> bool {
    !ON_THE_LINE_ONLY.contains(&name) && mount.get_arguments().any(|arg| arg.get_long() == Some(name))
}

/// The variable that stands for an option.
pub(super) fn variable(long: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", long.replace('-', "_").to_uppercase())
}

/// Gives every setting but `except` its variable, in every command that has the setting.
pub(super) fn with_environment(command: Command, except: &[&str]) -> Command {
    let Some(mount) = command.find_subcommand("mount").cloned() else { return command };
    give_variables(command, &mount, except)
}

fn give_variables(command: Command, mount: &Command, except: &[&str]) -> Command {
    let command = command.mut_args(|arg| match arg.get_long() {
        Some(long) if arg.get_env().is_none() && is_setting(mount, long) && !except.contains(&long) => {
            let variable = variable(long);
            read_as_words(arg).env(variable).hide_env_values(true)
        }
        _ => arg,
    });
    command.mut_subcommands(|inner| give_variables(inner, mount, except))
}

/// A flag has no value on the command line, but has one elsewhere.
pub(super) fn read_as_words(arg: Arg) -> Arg {
    match arg.get_action() {
        ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
        _ => arg,
    }
}

/// The definition for a first look at the command line.
pub(super) fn loosened(command: Command) -> Command {
    command.mut_subcommand("mount", |mount| mount.mut_arg("dir", |dir| dir.required(false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::config::definition;

    #[test]
    fn every_option_of_mount_has_its_variable() {
        let definition = definition();
        for arg in of_mount(&definition).get_arguments() {
            let Some(long) = arg.get_long() else { continue };
            let is_setting = !ON_THE_LINE_ONLY.contains(&long) || long == "config";
            let expected = is_setting.then(|| variable(long));
            assert_eq!(arg.get_env().map(|name| name.to_str().unwrap().to_owned()), expected, "--{long}");
        }
    }

    #[test]
    fn a_variable_means_the_same_in_every_command() {
        fn walk(command: &Command) {
            for arg in command.get_arguments() {
                if let (Some(long), Some(name)) = (arg.get_long(), arg.get_env()) {
                    assert_eq!(name.to_str(), Some(variable(long).as_str()), "{}", command.get_name());
                }
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&definition());
    }

    #[test]
    fn what_must_be_typed_each_time_still_exists() {
        let definition = definition();
        let mount = of_mount(&definition);
        for name in ON_THE_LINE_ONLY.iter().filter(|name| **name != "help") {
            assert!(mount.get_arguments().any(|arg| arg.get_long() == Some(name)), "--{name}");
        }
    }
}
