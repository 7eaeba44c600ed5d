//! `coffer config`: which volumes are named, which settings are in force, and where each comes from.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory};
use serde_json::{Value, json};

use super::file::{Config, Section};
use super::{apply, is_setting, settings};
use crate::cli::args::Cli;
use crate::cli::error::{CommandError, CommandResult, stdout_error};

/// Shown at the end of `coffer config --help`.
pub const EXAMPLES: &str = "\
Settings are the options of `coffer mount`. The nearest counts: the command line, -o, a variable COFFER_*, the volume's section \
of a file, [defaults] of a file, and what is built in. Files are ~/.config/coffer/config.toml (or below $XDG_CONFIG_HOME) and, \
behind it, /etc/coffer/config.toml; only their owner may be able to write to them.

  [defaults]
  memory = \"512MiB\"

  [volume.photos]
  url = \"s3://bucket/photos\"
  mountpoint = \"~/Photos\"                        # then `coffer mount photos` is enough
  passphrase-command = \"secret-tool lookup coffer photos\"
  options = \"noatime,allow_other\"                # as after -o

Examples:
  coffer config list
  coffer config show photos
  coffer config show --json | jq .settings.memory
  coffer mount photos";

/// `coffer config ...`.
#[derive(clap::Subcommand, Debug)]
pub enum ConfigCommand {
    /// List the volumes that have a name
    List(ListArgs),
    /// Show the settings of a mount, and where each comes from
    Show(ShowArgs),
}

/// Arguments of `coffer config list`.
#[derive(clap::Args, Debug)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `coffer config show`.
#[derive(clap::Args, Debug)]
pub struct ShowArgs {
    /// The volume's name; without one, the settings of a volume that has none
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A setting in force.
struct Line {
    name: String,
    value: Option<String>,
    source: String,
}

/// Shows.
///
/// # Errors
/// When a file cannot be used, or there is no volume of that name.
pub fn run(command: &ConfigCommand, only: Option<&PathBuf>) -> CommandResult {
    let config = Config::load(only)?;
    let text = match command {
        ConfigCommand::List(args) => list(&config, args.json),
        ConfigCommand::Show(args) => show(&config, args)?,
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| stdout_error(&e))
}

fn list(config: &Config, json: bool) -> String {
    let of = |name: &String| (name.clone(), config.url(name), config.mountpoint(name));
    let volumes: Vec<_> = config.volumes.keys().map(of).collect();
    if json {
        let volumes: Vec<Value> = volumes
            .iter()
            .map(|(name, url, point)| json!({ "name": name, "url": url, "mountpoint": point }))
            .collect();
        return format!("{:#}\n", json!({ "files": config.files, "volumes": volumes }));
    }
    let rows = volumes
        .into_iter()
        .map(|(name, url, point)| [name, url.unwrap_or_default().to_owned(), point.unwrap_or("").to_owned()]);
    table(rows.collect())
}

fn show(config: &Config, args: &ShowArgs) -> CommandResult<String> {
    let volume = match &args.name {
        None => None,
        Some(name) => Some(config.volume(name).ok_or_else(|| unknown(config, name))?),
    };
    let lines = in_force(config, args.name.as_deref(), volume)?;
    if args.json {
        let settings: serde_json::Map<String, Value> = lines
            .into_iter()
            .map(|line| (line.name, json!({ "value": line.value, "source": line.source })))
            .collect();
        let all = json!({ "files": config.files, "volume": args.name, "settings": settings });
        return Ok(format!("{all:#}\n"));
    }
    let row = |line: Line| [line.name, line.value.unwrap_or_else(|| "-".to_owned()), line.source];
    Ok(table(lines.into_iter().map(row).collect()))
}

fn unknown(config: &Config, name: &str) -> CommandError {
    let files: Vec<String> = config.files.iter().map(|file| file.display().to_string()).collect();
    let place = if files.is_empty() { "there is no configuration file".to_owned() } else { files.join(", ") };
    CommandError::usage(format!("no volume has the name {name:?} ({place})"))
        .hint("`coffer config list` lists the names; `coffer config --help` shows a file")
}

/// What `coffer mount NAME` would go by, in the order of its help.
fn in_force(config: &Config, name: Option<&str>, volume: Option<&Section>) -> CommandResult<Vec<Line>> {
    let given = apply::Given { volume: name.map(str::to_owned), ..apply::Given::default() };
    let definition = settings::with_environment(Cli::command(), &[]);
    let path = ["mount".to_owned()];
    let applied = apply::apply(definition.clone(), &path, config, volume, &given);
    // Only the defaults are of interest: a volume and a directory have to be named, and any will do.
    let words = ["coffer", "mount", name.unwrap_or("memory:"), "/"];
    let matches =
        applied.try_get_matches_from(words).map_err(|error| match super::blame(error, config, volume) {
            super::Refusal::Config(error) => error,
            super::Refusal::Clap(error) => CommandError::usage(error.to_string().trim_end().to_owned()),
        })?;
    let mount = settings::of_mount(&definition);
    let Some(given) = matches.subcommand_matches("mount") else { return Ok(Vec::new()) };
    let mut lines = Vec::new();
    for name in ["url", "mountpoint"] {
        if let Some(setting) = volume.and_then(|section| section.get(name)) {
            let (value, source) = (Some(setting.value.clone()), setting.place.to_string());
            lines.push(Line { name: name.to_owned(), value, source });
        }
    }
    for arg in mount.get_arguments() {
        if let Some(long) = arg.get_long().filter(|long| is_setting(&mount, long)) {
            lines.push(line(arg, long, given, config, volume));
        }
    }
    Ok(lines)
}

fn line(arg: &Arg, long: &str, given: &ArgMatches, config: &Config, volume: Option<&Section>) -> Line {
    let id = arg.get_id().as_str();
    let raw = given.try_get_raw(id).ok().flatten();
    let value = raw.map(|words| words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(","));
    let setting = config.setting(volume, long);
    let (value, source) = match (given.value_source(id), setting) {
        (Some(ValueSource::EnvVariable), _) => (value, settings::variable(long)),
        (_, Some(setting)) => (Some(setting.value.clone()), setting.place.to_string()),
        (Some(_), None) => (value, "built in".to_owned()),
        (None, None) => (None, "not set".to_owned()),
    };
    Line { name: long.to_owned(), value, source }
}

/// Columns that line up; nothing follows the last one.
fn table(rows: Vec<[String; 3]>) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    let line =
        |[a, b, c]: &[String; 3]| format!("{a:<first$}  {b:<second$}  {c}").trim_end().to_owned() + "\n";
    rows.iter().map(line).collect()
}
