//! A user with a home, variables and secrets, who asks `coffer probe` about a store.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::command::{command, run};

/// Nothing of the tester's own reaches Coffer.
pub(crate) struct User {
    home: tempfile::TempDir,
    env: Vec<(String, String)>,
    secrets: Vec<String>,
}

/// How a probe ended.
pub(crate) struct Told {
    pub(crate) code: i32,
    /// What it printed for machines; null if nothing.
    pub(crate) json: Value,
    pub(crate) stderr: String,
}

impl User {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(".aws/sso/cache")).unwrap();
        Self { home, env: Vec::new(), secrets: Vec::new() }
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.env.push((name.to_owned(), value.into()));
    }

    pub(crate) fn set_all(&mut self, env: &[(&'static str, String)]) {
        self.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    }

    /// Something that must never be shown.
    pub(crate) fn hide(&mut self, secret: &str) -> String {
        self.secrets.push(secret.to_owned());
        secret.to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    }

    /// Runs `coffer probe` with everything logged, and looks for secrets in all that it says.
    pub(crate) fn probe(&self, url: &str, args: &[&str]) -> Told {
        let mut words = vec!["probe", "--json", "-vvv", url];
        for usual in [["--traffic", "0"], ["--read-timeout", "10s"]] {
            if !args.contains(&usual[0]) {
                words.extend(usual);
            }
        }
        words.extend(args);
        let mut probe = command(env!("CARGO_BIN_EXE_coffer"), words);
        probe.env_clear().env("HOME", self.home.path()).env("PATH", "/usr/bin:/bin");
        probe.envs(self.env.iter().map(|(name, value)| (name, value)));
        let ended = run(probe);
        let (stdout, stderr) = (ended.text(), ended.stderr.clone());
        for secret in &self.secrets {
            assert!(!stdout.contains(secret) && !stderr.contains(secret), "{secret} is shown: {ended}");
        }
        // What is refused before the first request leaves nothing to be logged.
        let is_refused = stderr.contains("cannot be opened") || ended.code() == 2;
        let says_nothing = is_refused || !url.contains("://");
        assert!(stderr.contains("DEBUG") || says_nothing, "nothing was logged: {ended}");
        Told { code: ended.code(), json: serde_json::from_str(&stdout).unwrap_or_default(), stderr }
    }
}

impl Told {
    /// The store can hold a volume, and these let us in.
    #[track_caller]
    pub(crate) fn fits(&self, credentials: &str) {
        assert_eq!(self.code, 0, "{}\n{}", self.json, self.stderr);
        assert_eq!(self.json["fit"], true, "{}", self.json);
        let kind = self.json["credentials"].as_str().unwrap();
        assert!(kind.starts_with(credentials), "{kind}");
    }

    /// These let us in, whatever else the store lacks.
    #[track_caller]
    pub(crate) fn lets_in(&self, credentials: &str) {
        assert!([0, 29].contains(&self.code), "{}\n{}", self.code, self.stderr);
        assert_eq!(self.json["abilities"]["writes_once"]["ok"], true, "{}", self.json);
        let kind = self.json["credentials"].as_str().unwrap();
        assert!(kind.starts_with(credentials), "{kind}");
    }

    /// It ended with this code and these words.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{}\n{}", self.json, self.stderr);
        assert!(self.stderr.contains(words), "{words:?} is not in: {}", self.stderr);
    }
}
