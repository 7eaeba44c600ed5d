//! Where settings and credentials are looked up: the process's environment, or a table in its place.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// The variables by which people tell programs of their clouds.
///
/// Values are never shown: many of them are secrets.
#[derive(Clone)]
pub struct Environment(Arc<BTreeMap<String, String>>);

impl Environment {
    /// The process's own variables, as they are now. Those that are no UTF-8 are nobody's settings.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        std::env::vars_os().filter_map(text).collect()
    }

    /// The value of `name`, unless it is empty. Blanks around it, such as the end of the line that `$(cat FILE)` kept, are
    /// none of it: the tools of AWS take them away, too.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The first of `names` that has a value.
    pub(crate) fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    /// All whose names begin with `prefix`.
    pub(crate) fn starting_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.0.keys().filter(move |name| name.starts_with(prefix));
        all.filter_map(|name| Some((name.as_str(), self.get(name)?)))
    }

    /// `path`, with a leading `~/` replaced by the user's home.
    pub(crate) fn below_home(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), self.get("HOME")) {
            (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
            _ => PathBuf::from(path),
        }
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::of_process()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(pairs: T) -> Self {
        Self(Arc::new(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect()))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_none_and_no_value_is_shown() {
        let table = [("AWS_PROFILE", " \n"), ("AWS_SECRET_ACCESS_KEY", "hunter2\n"), ("HOME", "/home/me")];
        let environment = Environment::from_iter(table);
        assert_eq!(environment.get("AWS_PROFILE"), None);
        assert_eq!(environment.get("AWS_SECRET_ACCESS_KEY"), Some("hunter2"));
        assert_eq!(environment.starting_with("AWS_").count(), 1);
        assert_eq!(environment.below_home("~/.aws/config"), PathBuf::from("/home/me/.aws/config"));
        assert_eq!(environment.below_home("/etc/aws"), PathBuf::from("/etc/aws"));
        assert!(!format!("{environment:?}").contains("hunter2"));
    }
}
