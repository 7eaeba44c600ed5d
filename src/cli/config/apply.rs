//! Puts what the configuration says behind the command line: names become URLs, settings become defaults.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::file::{Config, Section};
use super::settings::{ON_THE_LINE_ONLY, read_as_words, variable};

/// The argument that says which volume.
pub(super) const URL: &str = "url";
/// Arguments that are mount points of running mounts.
const POINTS: [&str; 2] = ["point", "points"];
/// Ways to the same secret: whoever says one of them means none of the others, wherever they stand.
pub(super) const SECRETS: [&str; 6] = [
    "passphrase",
    "passphrase-command",
    "passphrase-fd",
    "passphrase-file",
    "recovery-code",
    "recovery-code-file",
];

/// What means nothing where one of [`SECRETS`] stands nearer: the others, and which key it is tried on.
pub(super) const OF_A_SECRET: [&str; 7] = [
    "key-slot",
    "passphrase",
    "passphrase-command",
    "passphrase-fd",
    "passphrase-file",
    "recovery-code",
    "recovery-code-file",
];

/// What the command line itself says.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The volume, as it was given.
    pub(super) volume: Option<String>,
    /// Which options are there, by their long names, those in `-o` lists among them.
    pub(super) names: BTreeSet<String>,
}

impl Given {
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let is_typed = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let typed = matches.ids().map(clap::Id::as_str).filter(|id| is_typed(id));
        let mut names: BTreeSet<String> = typed.map(|id| id.replace('_', "-")).collect();
        if let Ok(Some(lists)) = matches.try_get_many::<String>("options") {
            let words = lists.flat_map(|list| list.split(','));
            names.extend(words.map(|word| word.split('=').next().unwrap_or(word).trim().replace('_', "-")));
        }
        let volume = matches.try_get_one::<String>(URL).ok().flatten().cloned();
        Self { volume, names }
    }

    pub(super) fn says_a_secret(&self) -> bool {
        SECRETS.iter().any(|name| self.names.contains(*name))
    }
}

/// The definition of the command line in which the command at `path`, and options that all have, know what `config` says.
pub(super) fn apply(
    command: Command,
    path: &[String],
    config: &Config,
    volume: Option<&Section>,
    given: &Given,
) -> Command {
    let command = command.mut_args(|arg| {
        let setting = arg.get_long().and_then(|long| config.setting(volume, long));
        match setting.filter(|_| arg.is_global_set()).map(|setting| setting.value.clone()) {
            Some(value) => arg.default_value(value),
            None => arg,
        }
    });
    apply_at(command, path, config, volume, given)
}

fn apply_at(
    command: Command,
    path: &[String],
    config: &Config,
    volume: Option<&Section>,
    given: &Given,
) -> Command {
    if let Some((name, rest)) = path.split_first() {
        return command.mut_subcommand(name, |inner| apply_at(inner, rest, config, volume, given));
    }
    let is_secret_nearer =
        given.says_a_secret() || SECRETS.iter().any(|name| std::env::var_os(variable(name)).is_some());
    let named = given.volume.as_deref();
    let is_mount = command.get_name() == "mount";
    command.mut_args(|arg| {
        let id = arg.get_id().as_str().to_owned();
        match id.as_str() {
            URL => return arg.value_parser(url_or_name(config.clone())),
            id if POINTS.contains(&id) => return arg.value_parser(point_or_name(config.clone())),
            "dir" if is_mount => {
                return match named.and_then(|name| config.mountpoint(name)) {
                    Some(point) => arg.required(false).default_value(point.to_owned()),
                    None => arg,
                };
            }
            _ => {}
        }
        let Some(long) = arg.get_long().map(str::to_owned) else { return arg };
        let is_told_nearer = OF_A_SECRET.contains(&long.as_str()) && is_secret_nearer;
        if ON_THE_LINE_ONLY.contains(&long.as_str()) || long == "options" || is_told_nearer {
            return arg;
        }
        match config.setting(volume, &long) {
            Some(setting) => read_as_words(arg).default_value(setting.value.clone()),
            None => arg,
        }
    })
}

/// Takes the name of a volume for its URL.
fn url_or_name(config: Config) -> impl TypedValueParser<Value = String> {
    move |text: &str| Ok::<_, Infallible>(config.url(text).unwrap_or(text).to_owned())
}

/// Takes the name of a volume for the directory where it is mounted.
fn point_or_name(config: Config) -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(move |path| {
        path.to_str().and_then(|name| config.mountpoint(name)).map(PathBuf::from).unwrap_or(path)
    })
}
