//! The recipes of `docs/RECIPES.md`, run as they stand there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::command::{command, run};
use crate::support::seed;
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
}

impl Kitchen {
    fn new() -> Self {
        let kitchen = Self { dir: tempfile::tempdir().unwrap() };
        for home in [kitchen.home(false), kitchen.home(true)] {
            fs::create_dir_all(home.join(".config/coffer")).unwrap();
            fs::create_dir_all(home.join("vault")).unwrap();
            fs::create_dir_all(home.join("run")).unwrap();
            let url = kitchen.home(false).join("bucket");
            let text = format!(
                "[volume.home]\nurl = {url:?}\nmountpoint = \"~/vault\"\npassphrase-file = \"~/.vault.pass\"\n"
            );
            private(&home.join(".config/coffer/config.toml"), &text);
            private(&home.join(".vault.pass"), "correct horse battery staple\n");
        }
        write_documents(&kitchen.home(false).join("documents"), seed("documents"));
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

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Runs the section of this title; `before` is what it says is given.
fn cook(title: &str, before: &str) {
    let kitchen = Kitchen::new();
    kitchen.sh(before, false);
    let steps = sections().remove(title).unwrap_or_else(|| panic!("no recipe {title:?}"));
    for (script, is_other) in steps {
        kitchen.sh(&script, is_other);
    }
}

/// Every section with steps has its test here.
macro_rules! recipes {
    ($($test:ident: $title:literal, $before:literal;)*) => {
        $(#[test] fn $test() { cook($title, $before) })*
        #[test]
        fn every_recipe_is_tried() {
            let tried = [$($title),*];
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
