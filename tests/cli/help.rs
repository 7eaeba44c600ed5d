//! The whole help as one text, so that every change of it is seen and read.

use std::fmt::Write as _;
use std::path::Path;

use clap::Command;
use coffer::cli::config;

use crate::snapshot;
use crate::support::Bench;

/// With `COFFER_TEST_ACCEPT` set, the text is what it is now: read the difference before it is committed.
#[test]
fn the_help_of_every_command_is_as_it_was_read_last() {
    let mut command = config::definition().term_width(100).max_term_width(100);
    command.build();
    let mut text = String::new();
    show(command, "", &mut text);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help.txt");
    let read = snapshot::expected(&path, &text);
    let difference = text.lines().zip(read.lines()).find(|(is, was)| is != was);
    assert!(text == read, "COFFER_TEST_ACCEPT=1 accepts it; first difference: {difference:?}");
}

fn show(mut command: Command, above: &str, text: &mut String) {
    let name = format!("{above}{}", command.get_name());
    let _ = write!(text, "==== {name} --help\n{}\n", command.render_long_help());
    let inner: Vec<Command> =
        command.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned().collect();
    for command in inner {
        show(command, &format!("{name} "), text);
    }
}

#[test]
fn no_line_of_help_is_longer_than_a_terminal_is_wide() {
    let mut command = config::definition().term_width(100).max_term_width(100);
    command.build();
    let mut text = String::new();
    show(command, "", &mut text);
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn help_names_the_variable_of_every_option_that_has_one() {
    let shown = Bench::new().run(&["mount", "-h"]).ok();
    let definition = config::definition();
    let mount = definition.find_subcommand("mount").unwrap();
    for variable in mount.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(clap::Arg::get_env) {
        assert!(shown.contains(variable.to_str().unwrap()), "{variable:?} is not in {shown}");
    }
}
