//! The recipes of `docs/RECIPES.md`, run as they stand there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::command::{command, run};
use crate::support::relay::{Answer, Relay, forward};
use crate::support::seed;
use crate::support::servers::{self, S3_KEY, S3_NEXT_KEY, S3_NEXT_SECRET, S3_SECRET};
use crate::support::volume::COFFER;

const RECIPES: &str = include_str!("../docs/RECIPES.md");

/// A step of a recipe, and whether it is for the other machine.
type Step = (String, bool);

/// The steps of every section that has some.
fn sections() -> BTreeMap<String, Vec<Step>> {
    let mut sections: BTreeMap<String, Vec<Step>> = BTreeMap::new();
    let mut title = String::new();
    let mut open: Option<Step> = None;
    for line in RECIPES.lines() {
        match (&mut open, line) {
            (Some(_), "```") => sections.entry(title.clone()).or_default().extend(open.take()),
            (Some((script, _)), line) => script.push_str(&format!("{line}\n")),
            (None, "```sh") => open = Some((String::new(), false)),
            (None, "```sh other-machine") => open = Some((String::new(), true)),
            (None, line) => {
                if let Some(found) = line.strip_prefix("## ") {
                    found.clone_into(&mut title);
                }
            }
        }
    }
    assert!(open.is_none(), "a block of {title} does not end");
    sections
}

/// Two homes that know one bucket.
struct Kitchen {
    dir: tempfile::TempDir,
    env: Vec<(&'static str, String)>,
}

impl Kitchen {
    fn new() -> Self {
        Self::of(|home| home.join("bucket").display().to_string(), Vec::new())
    }

    /// With a bucket at the URL that `url` gives for the first home. Before the volume is made, `env` is what programs find.
    fn of(url: impl Fn(&Path) -> String, env: Vec<(&'static str, String)>) -> Self {
        let kitchen = Self { dir: tempfile::tempdir().unwrap(), env };
        let url = url(&kitchen.home(false));
        for home in [kitchen.home(false), kitchen.home(true)] {
            fs::create_dir_all(home.join(".config/coffer")).unwrap();
            fs::create_dir_all(home.join("vault")).unwrap();
            fs::create_dir_all(home.join("run")).unwrap();
            let text = format!(
                "[volume.home]\nurl = {url:?}\nmountpoint = \"~/vault\"\npassphrase-file = \"~/.vault.pass\"\n"
            );
            private(&home.join(".config/coffer/config.toml"), &text);
            private(&home.join(".vault.pass"), "correct horse battery staple\n");
        }
        write_documents(&kitchen.home(false).join("documents"), seed("documents"));
        fs::create_dir(kitchen.home(false).join(".aws")).unwrap();
        private(&kitchen.home(false).join(".aws/credentials"), &keys(S3_KEY, S3_SECRET));
        let make = "coffer init home --kdf-log-n 15 --save-recovery-code ~/code.txt; coffer mount home";
        kitchen.sh(make, false);
        kitchen
    }

    fn home(&self, is_other: bool) -> PathBuf {
        self.dir.path().join(if is_other { "other" } else { "home" })
    }

    fn sh(&self, script: &str, is_other: bool) {
        let home = self.home(is_other);
        let mut bash: Command = command("bash", ["-euo", "pipefail", "-c", script]);
        let path = format!("{}:/usr/bin:/bin", Path::new(COFFER).parent().unwrap().display());
        bash.env_clear().env("HOME", &home).env("PATH", path).env("LC_ALL", "C.UTF-8").current_dir(&home);
        bash.env("XDG_RUNTIME_DIR", home.join("run"));
        bash.envs(self.env.iter().map(|(name, value)| (name, value)));
        let finished = run(bash);
        assert!(finished.status.success(), "{finished}");
    }
}

impl Drop for Kitchen {
    fn drop(&mut self) {
        for point in [self.home(false).join("vault"), self.home(true).join("vault")] {
            let mut umount = command(COFFER, ["umount"]);
            let _ = umount.arg(&point).env("HOME", self.dir.path()).output();
        }
    }
}

/// What somebody has in such a directory.
fn write_documents(dir: &Path, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    for letter in "abcdef".chars() {
        let below = dir.join(format!("folder {letter}/dé"));
        fs::create_dir_all(&below).unwrap();
        for number in 0..8 {
            let mut bytes = vec![0; random.random_range(0..200_000)];
            random.fill(&mut bytes[..]);
            fs::write(below.join(format!("paper {number}.pdf")), bytes).unwrap();
        }
        fs::write(below.parent().unwrap().join("notes.txt"), letter.to_string()).unwrap();
    }
    fs::write(dir.join("notes.txt"), "a line\n").unwrap();
    std::os::unix::fs::symlink("folder a", dir.join("newest")).unwrap();
}

/// A file of keys, as AWS's own tools have it.
fn keys(id: &str, secret: &str) -> String {
    format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Runs the section of this title; `before` is what it says is given.
fn cook(title: &str, before: &str) {
    cook_in(&Kitchen::new(), title, before);
}

fn cook_in(kitchen: &Kitchen, title: &str, before: &str) {
    kitchen.sh(before, false);
    let steps = sections().remove(title).unwrap_or_else(|| panic!("no recipe {title:?}"));
    for (script, is_other) in steps {
        kitchen.sh(&script, is_other);
    }
}

/// A recipe whose bucket is on a server, which lets the first keys in until the file `revoked` is there.
const REVOKED: &str = "Keys of the store that hold no more";

#[test]
fn keys_that_hold_no_more() {
    let server = servers::seaweedfs();
    let (backend, gate) = (server.address(), tempfile::tempdir().unwrap());
    let revoked = gate.path().join("revoked");
    let is_revoked = revoked.clone();
    let relay = Relay::start(move |request| {
        let key = if is_revoked.exists() { S3_NEXT_KEY } else { S3_KEY };
        let signed = request.header("authorization").unwrap_or_default();
        match signed.contains(&format!("Credential={key}/")) {
            true => forward(backend, &request).unwrap_or_else(|_| Answer::new(502, "")),
            false => Answer::new(403, "<Error><Code>InvalidAccessKeyId</Code></Error>"),
        }
    });
    let env = [
        ("AWS_ENDPOINT_URL", relay.url()),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_REGION", "us-east-1".into()),
    ];
    let kitchen = Kitchen::of(|_| server.url.clone(), env.into());
    private(&kitchen.home(false).join("new-keys"), &keys(S3_NEXT_KEY, S3_NEXT_SECRET));
    cook_in(&kitchen, REVOKED, &format!("coffer sync vault; touch {}", revoked.display()));
}

/// Every other section with steps has its test here.
macro_rules! recipes {
    ($($test:ident: $title:literal, $before:literal;)*) => {
        $(#[test] fn $test() { cook($title, $before) })*
        #[test]
        fn every_recipe_is_tried() {
            let tried = [REVOKED, $($title),*];
            let all: Vec<String> = sections().into_keys().collect();
            let untried: Vec<&String> = all.iter().filter(|title| !tried.contains(&title.as_str())).collect();
            assert_eq!(untried, Vec::<&String>::new());
        }
    };
}

recipes! {
    rsync_nightly: "A copy every night with rsync", "";
    restic_in_the_mount: "restic", "";
    borg_in_the_mount: "borg", "";
    rsnapshot_in_the_mount: "rsnapshot", "";
    git_annex: "git-annex", "";
    a_photo_library: "A photo library", "mkdir camera phone; for number in 0001 0002; do head -c 700000 /dev/urandom > camera/img_$number.jpg; done;
        head -c 500000 /dev/urandom > phone/new.jpg; cp camera/img_0001.jpg phone/copy.jpg";
    two_machines: "Two machines", "";
    a_lost_laptop: "A lost laptop", "";
    a_lost_passphrase: "A lost passphrase", "";
    to_another_bucket: "To another bucket", "cp -a documents vault; coffer sync vault";
    to_another_volume: "To another volume", "";
    from_gocryptfs: "From gocryptfs",
        "mkdir old; gocryptfs -q -init -scryptn 10 -passfile .vault.pass old; mkdir p; gocryptfs -q -passfile .vault.pass old p;
        cp -a documents/. p; fusermount3 -u p; rmdir p";
    from_rclone_crypt: "From rclone crypt",
        "rclone config create secret crypt remote=$HOME/old password=$(rclone obscure word) >/dev/null; rclone copy -q documents secret:";
}
