//! Reads configuration files: what they say, and on which line.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Command, CommandFactory};
use serde::Deserialize;
use toml::{Spanned, Value};

use super::settings::{is_setting, of_mount};
use crate::cli::args::Cli;
use crate::cli::error::{CommandError, CommandResult};

/// Longest configuration file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The system's file, read before the user's.
const SYSTEM_FILE: &str = "/etc/coffer/config.toml";
/// Keys of a volume's section that are no options of their own.
const URL: &str = "url";
const MOUNTPOINT: &str = "mountpoint";
const OPTIONS: &str = "options";

/// What the configuration files say together.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    /// For every volume that does not say otherwise.
    pub(super) defaults: Section,
    /// By name.
    pub(super) volumes: BTreeMap<String, Section>,
    /// The files that were read, the system's first.
    pub(super) files: Vec<PathBuf>,
}

/// Settings by name.
pub(super) type Section = BTreeMap<String, Setting>;

/// One line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// As it would be given on the command line.
    pub(super) value: String,
    /// Where it stands.
    pub(super) place: Place,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    file: PathBuf,
    line: usize,
    section: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} [{}]", self.file.display(), self.line, self.section)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    defaults: BTreeMap<Spanned<String>, Spanned<Value>>,
    volume: BTreeMap<Spanned<String>, BTreeMap<Spanned<String>, Spanned<Value>>>,
}

impl Config {
    /// Reads `only`, or else the system's and the user's file, as far as they exist.
    ///
    /// # Errors
    /// When a file is not ours to trust, cannot be read, or says what cannot be understood.
    pub(super) fn load(only: Option<&PathBuf>) -> CommandResult<Self> {
        let mut config = Self::default();
        match only {
            Some(path) => config.add(&crate::cli::logging::absolute(path)?, true)?,
            None => {
                for path in usual_files() {
                    config.add(&path, false)?;
                }
            }
        }
        Ok(config)
    }

    /// The volume of this name.
    #[must_use]
    pub(super) fn volume(&self, name: &str) -> Option<&Section> {
        self.volumes.get(name)
    }

    /// A setting of a volume, or of all.
    #[must_use]
    pub(super) fn setting<'a>(&'a self, volume: Option<&'a Section>, name: &str) -> Option<&'a Setting> {
        volume.and_then(|section| section.get(name)).or_else(|| self.defaults.get(name))
    }

    /// The mount options of a volume, or of all.
    #[must_use]
    pub(super) fn options<'a>(&'a self, volume: Option<&'a Section>) -> Option<&'a str> {
        self.setting(volume, OPTIONS).map(|setting| setting.value.as_str())
    }

    /// Where the volume of this name is.
    #[must_use]
    pub(super) fn url(&self, name: &str) -> Option<&str> {
        self.volume(name)?.get(URL).map(|setting| setting.value.as_str())
    }

    /// Where the volume of this name is mounted unless told otherwise.
    #[must_use]
    pub(super) fn mountpoint(&self, name: &str) -> Option<&str> {
        self.volume(name)?.get(MOUNTPOINT).map(|setting| setting.value.as_str())
    }

    /// Lays a file over what was read before.
    fn add(&mut self, path: &Path, is_asked_for: bool) -> CommandResult {
        let failed = |error: &dyn fmt::Display| {
            CommandError::usage(format!("cannot use the configuration file {}: {error}", path.display()))
        };
        let mut file = match File::open(path) {
            Ok(file) => file,
            // What others keep from us is not for us: the system's file may be for root only.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
                    && !is_asked_for =>
            {
                return Ok(());
            }
            Err(error) => return Err(failed(&error)),
        };
        let about = file.metadata().map_err(|e| failed(&e))?;
        let user = rustix::process::geteuid().as_raw();
        // It names commands that are run.
        if about.is_file() && ![user, 0].contains(&about.uid()) {
            return Err(failed(&format!("it belongs to another user (uid {})", about.uid()))
                .hint("name one of your own with --config FILE"));
        }
        if about.is_file() && about.mode() & 0o022 != 0 {
            return Err(failed(&"other users can write to it")
                .hint(format!("make it your own with `chmod go-w {}`", path.display())));
        }
        let mut text = String::new();
        file.by_ref().take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|e| failed(&e))?;
        let document: Document = toml::from_str(&text).map_err(|e| failed(&e.to_string().trim_end()))?;
        let reader = Reader { path, text: &text, mount: of_mount(&Cli::command()) };
        reader.section("defaults", document.defaults, &mut self.defaults)?;
        for (name, lines) in document.volume {
            let title = format!("volume.{}", name.get_ref());
            let section = self.volumes.entry(name.get_ref().clone()).or_default();
            reader.section(&title, lines, section)?;
            let line = reader.line(name.span().start);
            let wrong =
                |why: &str| CommandError::usage(format!("{}:{line} [{title}]: {why}", path.display()));
            if name.get_ref().is_empty() || name.get_ref().contains(['/', ':']) {
                return Err(wrong("the name of a volume has no / and no :"));
            }
            if !section.contains_key(URL) {
                return Err(wrong("it has no url"));
            }
        }
        self.files.push(path.to_owned());
        Ok(())
    }
}

/// What is needed to understand the lines of a file.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    mount: Command,
}

impl Reader<'_> {
    fn line(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }

    fn section(
        &self,
        title: &str,
        lines: BTreeMap<Spanned<String>, Spanned<Value>>,
        into: &mut Section,
    ) -> CommandResult {
        for (name, value) in lines {
            let line = self.line(name.span().start);
            let place = Place { file: self.path.to_owned(), line, section: title.to_owned() };
            let name = name.into_inner().replace('_', "-");
            let is_known = match name.as_str() {
                URL | MOUNTPOINT => title != "defaults",
                OPTIONS => true,
                other => is_setting(&self.mount, other),
            };
            if !is_known {
                let error = CommandError::usage(format!("{place}: there is no setting {name:?}"));
                return Err(error.hint("settings are called as the options that `coffer mount --help` lists, without the dashes in front"));
            }
            let value = self
                .value(&name, value.into_inner())
                .map_err(|why| CommandError::usage(format!("{place}: {name}: {why}")))?;
            into.insert(name, Setting { value, place });
        }
        Ok(())
    }

    /// A value as it would be given on the command line.
    fn value(&self, name: &str, value: Value) -> Result<String, String> {
        let arg = self.mount.get_arguments().find(|arg| arg.get_long() == Some(name));
        let is_flag = arg.is_some_and(|arg| matches!(arg.get_action(), ArgAction::SetTrue));
        let is_path =
            arg.is_some_and(|arg| arg.get_value_parser().type_id() == std::any::TypeId::of::<PathBuf>());
        let text = match (value, is_flag) {
            (Value::Boolean(given), true) => return Ok(given.to_string()),
            (_, true) => return Err("is true or false".to_owned()),
            (Value::String(text), false) => text,
            (Value::Integer(number), false) => number.to_string(),
            (other, false) => {
                return Err(format!("a text is expected, not {}", with_article(other.type_str())));
            }
        };
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        let is_local_url = name == URL && !text.contains(':');
        match is_path || is_local_url || name == MOUNTPOINT {
            true => self.path(&text),
            false => Ok(text),
        }
    }

    /// A path from the home directory, or from where the file is.
    fn path(&self, text: &str) -> Result<String, String> {
        let path = match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
            (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
            (Some(_), None) => return Err("there is no home directory".to_owned()),
            (None, _) => self.path.parent().unwrap_or(Path::new("/")).join(text),
        };
        path.into_os_string().into_string().map_err(|_| "the path is not UTF-8".to_owned())
    }
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}

fn usual_files() -> Vec<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let mut files = vec![PathBuf::from(SYSTEM_FILE)];
    files.extend(user.map(|dir| dir.join("coffer/config.toml")));
    files
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(text: &str) -> CommandResult<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut config = Config::default();
        config.add(&path, true).map(|()| config)
    }

    #[test]
    fn a_volume_has_its_own_settings_before_those_for_all() {
        let text = "\
[defaults]
memory = \"512MiB\"
commit_age = \"2s\"
[volume.photos]
url = \"s3://b/p\"
memory = 1073741824
read-only = true
options = \"noatime\"
";
        let config = read(text).unwrap();
        let photos = config.volume("photos");
        let value = |name| config.setting(photos, name).map(|setting| setting.value.as_str());
        assert_eq!(value("memory"), Some("1073741824"));
        assert_eq!(value("commit-age"), Some("2s"));
        assert_eq!(value("read-only"), Some("true"));
        assert_eq!(config.options(photos), Some("noatime"));
        assert_eq!(config.url("photos"), Some("s3://b/p"));
        let place = config.setting(photos, "memory").unwrap().place.to_string();
        assert!(place.ends_with("/config.toml:6 [volume.photos]"), "{place}");
    }

    #[test]
    fn what_cannot_be_understood_is_named_with_its_line() {
        for (text, want) in [
            ("[defaults]\nmemroy = \"1G\"\n", ":2 [defaults]: there is no setting \"memroy\""),
            ("[defaults]\ntakeover = true\n", ":2 [defaults]: there is no setting \"takeover\""),
            ("[defaults]\nurl = \"s3://b\"\n", ":2 [defaults]: there is no setting \"url\""),
            ("[volume.x]\nurl = \"s3://b\"\nread-only = 1\n", ":3 [volume.x]: read-only: is true or false"),
            ("[volume.x]\nurl = [1]\n", ":2 [volume.x]: url: a text is expected, not an array"),
            ("[volume.x]\nmemory = \"1G\"\n", ":1 [volume.x]: it has no url"),
            ("[volume.\"a/b\"]\nurl = \"/v\"\n", "the name of a volume has no / and no :"),
            ("[volumes.x]\nurl = \"/v\"\n", "unknown field `volumes`"),
            ("memory\n", "line 1"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.to_string().contains(want), "{text:?}: {error}");
        }
    }

    #[test]
    fn paths_are_meant_from_where_the_file_is() {
        let config = read("[volume.x]\nurl = \"vol\"\nkey-file = \"k\"\nmountpoint = \"/m\"\n").unwrap();
        let x = config.volume("x").unwrap();
        let dir = config.files[0].parent().unwrap();
        assert_eq!(x["url"].value, dir.join("vol").to_str().unwrap());
        assert_eq!(x["key-file"].value, dir.join("k").to_str().unwrap());
        assert_eq!(x["mountpoint"].value, "/m");
    }

    #[test]
    fn a_file_that_others_can_write_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, "").unwrap();
        for mode in [0o620, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Config::load(Some(&path)).unwrap_err();
            assert!(error.render().contains("chmod go-w"), "{}", error.render());
        }
        if rustix::process::geteuid().is_root() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            let error = Config::load(Some(&path)).unwrap_err();
            assert!(error.to_string().contains("belongs to another user (uid 12345)"), "{error}");
        }
        assert!(Config::load(Some(&PathBuf::from("/dev/null"))).is_ok());
        assert!(Config::load(Some(&dir.path().join("none"))).is_err());
    }
}
