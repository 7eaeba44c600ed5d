//! The shared files of AWS's tools: `~/.aws/config` and `~/.aws/credentials`.
//!
//! Format: <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::store::environment::Environment;

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The settings of one section; those below another one are `outer.inner`.
pub(super) type Section = BTreeMap<String, String>;

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    config: PathBuf,
    credentials: PathBuf,
}

/// What tells that a file was changed: when, and how long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp([Option<(SystemTime, u64)>; 2]);

/// What is in the files. A profile's settings from both are one.
#[derive(Default)]
pub(super) struct Shared {
    profiles: BTreeMap<String, Section>,
    sessions: BTreeMap<String, Section>,
    services: BTreeMap<String, Section>,
}

impl Files {
    pub(super) fn of(environment: &Environment) -> Self {
        let path = |name: &str, usual: &str| environment.below_home(environment.get(name).unwrap_or(usual));
        Self {
            config: path("AWS_CONFIG_FILE", "~/.aws/config"),
            credentials: path("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        }
    }

    pub(super) fn paths(&self) -> [&Path; 2] {
        [&self.config, &self.credentials]
    }

    pub(super) fn stamp(&self) -> Stamp {
        let one = |path: &Path| {
            let about = std::fs::metadata(path).ok()?;
            Some((about.modified().ok()?, about.len()))
        };
        Stamp([one(&self.config), one(&self.credentials)])
    }

    /// Reads both; one that is not there is empty.
    ///
    /// # Errors
    /// A file cannot be read; in words that repeat nothing of it.
    pub(super) fn read(&self) -> Result<Shared, String> {
        let mut shared = Shared::default();
        for (kind, section) in sections(&text(&self.config)?) {
            match kind.split_once(char::is_whitespace).map(|(word, name)| (word, name.trim())) {
                Some(("profile", name)) => {
                    shared.profiles.entry(name.to_owned()).or_default().extend(section)
                }
                Some(("sso-session", name)) => {
                    shared.sessions.insert(name.to_owned(), section);
                }
                Some(("services", name)) => {
                    shared.services.insert(name.to_owned(), section);
                }
                _ if kind == "default" => shared.profiles.entry(kind).or_default().extend(section),
                _ => {}
            }
        }
        for (name, section) in sections(&text(&self.credentials)?) {
            shared.profiles.entry(name).or_default().extend(section);
        }
        Ok(shared)
    }

    /// Both, for messages.
    pub(super) fn shown(&self) -> String {
        format!("{} or {}", self.config.display(), self.credentials.display())
    }
}

impl Shared {
    pub(super) fn profile(&self, name: &str) -> Option<&Section> {
        self.profiles.get(name)
    }

    pub(super) fn session(&self, name: &str) -> Option<&Section> {
        self.sessions.get(name)
    }

    /// The address of S3 that a profile names.
    pub(super) fn endpoint(&self, profile: &Section) -> Option<String> {
        let services = profile.get("services").and_then(|name| self.services.get(name));
        let own = services.and_then(|services| services.get("s3.endpoint_url"));
        own.or_else(|| profile.get("endpoint_url")).cloned()
    }
}

fn text(path: &Path) -> Result<String, String> {
    let failed = |why: String| format!("{} cannot be read: {why}", path.display());
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(failed(error.to_string())),
        Ok(about) if about.len() > FILE_BYTES_MAX => return Err(failed("it is too long".to_owned())),
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))
}

/// The sections of a file, in its order. What is no setting is passed over, as the other tools do.
fn sections(text: &str) -> Vec<(String, Section)> {
    let mut found: Vec<(String, Section)> = Vec::new();
    let mut outer = String::new();
    for line in text.lines() {
        let is_inner = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.split(']').next().unwrap_or_default().trim();
            found.push((name.to_owned(), Section::new()));
            outer.clear();
            continue;
        }
        let (Some((name, value)), Some((_, section))) = (line.split_once('='), found.last_mut()) else {
            continue;
        };
        let (name, value) = (name.trim().to_ascii_lowercase(), without_comment(value.trim()));
        if is_inner && !outer.is_empty() {
            section.insert(format!("{outer}.{name}"), value.to_owned());
        } else if value.is_empty() {
            outer = name;
        } else {
            section.insert(name, value.to_owned());
            outer.clear();
        }
    }
    found
}

/// `value` up to a comment, which begins with white space and `#` or `;`.
fn without_comment(value: &str) -> &str {
    let begins = |at: &usize| {
        let rest = value.get(at + 1..).unwrap_or_default();
        rest.starts_with(['#', ';'])
    };
    let end = value.match_indices([' ', '\t']).map(|(at, _)| at).find(begins);
    value.get(..end.unwrap_or(value.len())).unwrap_or(value).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(config: &str, credentials: &str) -> (tempfile::TempDir, Files) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        let environment = [("HOME", home.path().to_str().unwrap())].into_iter().collect();
        (home, Files::of(&environment))
    }

    #[test]
    fn profiles_of_both_files_are_one_and_the_credentials_are_heeded_before() {
        let config = "[default]\nregion = eu-west-1 # home\n\n[profile work]\nregion=us-east-2\n\
                      aws_access_key_id = OLD\nservices = mine\ns3 =\n  max_concurrent_requests = 20\n\
                      sso_session = corp\n[sso-session corp]\nsso_region = eu-north-1\n\
                      [services mine]\ns3 =\n  endpoint_url = http://s3\nsts =\n  endpoint_url = http://sts\n\
                      [work]\nregion = nowhere\n";
        let (_home, files) =
            files(config, "; a comment\n[work]\nAWS_ACCESS_KEY_ID=NEW;x\naws_secret_access_key = a=b\n");
        let shared = files.read().unwrap();
        let default = shared.profile("default").unwrap();
        assert_eq!(default.get("region").map(String::as_str), Some("eu-west-1"));
        let work = shared.profile("work").unwrap();
        let value = |name: &str| work.get(name).map(String::as_str);
        assert_eq!(value("region"), Some("us-east-2"), "a section of config needs the word `profile`");
        assert_eq!(
            (value("aws_access_key_id"), value("aws_secret_access_key")),
            (Some("NEW;x"), Some("a=b"))
        );
        assert_eq!(value("s3.max_concurrent_requests"), Some("20"));
        assert_eq!(value("sso_session"), Some("corp"), "a setting after a nested one is the profile's again");
        assert_eq!(shared.session("corp").unwrap().get("sso_region").map(String::as_str), Some("eu-north-1"));
        assert_eq!(shared.endpoint(work).as_deref(), Some("http://s3"));
        assert!(shared.profile("none").is_none());
    }

    #[test]
    fn a_changed_file_is_noticed_and_a_missing_one_is_empty() {
        let (home, files) = files("", "[default]\naws_access_key_id = A\n");
        let before = files.stamp();
        assert_eq!(files.stamp(), before);
        std::fs::write(home.path().join(".aws/credentials"), "[default]\naws_access_key_id = LONGER\n")
            .unwrap();
        assert_ne!(files.stamp(), before);
        std::fs::remove_dir_all(home.path().join(".aws")).unwrap();
        assert!(files.read().unwrap().profile("default").is_none());
    }
}
