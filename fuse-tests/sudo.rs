//! `sudo -u USER coffer ...`: everything is that user's, and whoever asks as another is told whose it is.

use crate::support::command::{command, run};
use crate::support::tree::is_root;
use crate::support::volume::COFFER;

const INSIDE: &str = include_str!("sudo.sh");

#[test]
fn a_mount_by_sudo_is_that_users_and_others_are_told_whose_it_is() {
    if !is_root() {
        return println!("only root may say `sudo -u` without a password");
    }
    let dir = tempfile::tempdir().unwrap();
    let words = ["--mount", "--propagation", "private", "sh", "-c", INSIDE, "sh"];
    let mut unshare = command("unshare", words);
    unshare.arg(dir.path()).arg(COFFER);
    unshare.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
    let said = run(unshare).ok().text();
    assert!(said.ends_with("all of it holds\n"), "{said}");
}
