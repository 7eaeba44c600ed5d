//! `kill -9` while the keys of a volume are changed: the volume opens with what must open it, and with nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use coffer::cli::exit::Exit;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::Value;

use crate::kills::{kill_at_random, rounds, time_of};
use crate::support::command::{Finished, run};
use crate::support::seed;
use crate::support::volume::Volume;

/// More than one segment, so that a rotation has something to do.
const FILE_BYTES: usize = 20 << 20;
/// A volume can be rotated no more than 47 times in its life.
const ROTATIONS_MAX: u32 = 40;

/// A volume, the passphrase that opens it, and another one.
pub(crate) struct Keys {
    pub(crate) volume: Volume,
    own: PathBuf,
    other: PathBuf,
}

impl Keys {
    pub(crate) fn of(volume: Volume) -> Keys {
        let own = volume.passphrase_file();
        let other = own.with_extension("other");
        fs::write(&other, "a passphrase that opens nothing yet\n").unwrap();
        rustix::fs::chmod(&other, rustix::fs::Mode::RUSR).unwrap();
        Keys { volume, own, other }
    }

    /// `coffer VERB` of the volume, with the passphrase that opens it.
    fn coffer(&self, verb: &[&str], args: &[&str]) -> Command {
        let mut coffer = self.volume.coffer([verb, args, &[&self.volume.url, "--passphrase-file"]].concat());
        coffer.arg(&self.own);
        coffer
    }

    /// `coffer key passwd`, from the one passphrase to the other.
    pub(crate) fn passwd(&self) -> Command {
        self.replace("passwd", &[])
    }

    /// `coffer key rotate`, likewise.
    pub(crate) fn rotate(&self) -> Command {
        self.replace("rotate", &["--drop-others"])
    }

    fn replace(&self, verb: &str, args: &[&str]) -> Command {
        let mut change = self.coffer(&["key", verb, "--kdf-log-n", "15"], args);
        change.arg("--new-passphrase-file").arg(&self.other);
        change
    }

    /// Adds the other passphrase as a second key.
    pub(crate) fn add(&self) -> Command {
        self.replace("add", &["--label", "second"])
    }

    pub(crate) fn remove(&self, slot: u64) -> Command {
        let mut remove = self.volume.coffer(["key", "remove", &self.volume.url, &slot.to_string()]);
        remove.arg("--passphrase-file").arg(&self.own);
        remove
    }

    fn opens(&self, passphrase: &Path) -> bool {
        let mut list = self.volume.coffer(["ls", &self.volume.url, "--passphrase-file"]);
        list.arg(passphrase);
        let listed = run(list);
        let is_right = listed.status.success();
        assert!(is_right || listed.code() == i32::from(Exit::WrongKey.code()), "{listed}");
        is_right
    }

    /// After a change of passphrase: one of the two opens the volume, and is its own from now on. Whether it is another.
    pub(crate) fn settle(&self, round: u32) -> bool {
        let opening = [self.opens(&self.own), self.opens(&self.other)];
        assert!(opening[0] != opening[1], "round {round}: {opening:?} of the passphrases open the volume");
        if opening[1] {
            let between = self.own.with_extension("between");
            for (from, to) in [(&self.own, &between), (&self.other, &self.own), (&between, &self.other)] {
                fs::rename(from, to).unwrap();
            }
        }
        opening[1]
    }

    /// The second key, if it is listed, once at most; the volume opens with it then and only then, and with its own always.
    pub(crate) fn second(&self, round: u32) -> Option<u64> {
        let second: Vec<u64> = self.list()["slots"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|slot| slot["label"] == "second")
            .map(|slot| slot["slot"].as_u64().unwrap())
            .collect();
        assert!(second.len() <= 1, "round {round}: {second:?}");
        assert!(self.opens(&self.own), "round {round}: the first key opens nothing any more");
        assert_eq!(self.opens(&self.other), second.len() == 1, "round {round}: listed: {second:?}");
        second.first().copied()
    }

    /// All keys that are listed but the second one, with all that is told of them.
    pub(crate) fn others(&self) -> Vec<Value> {
        let slots = self.list()["slots"].as_array().unwrap().clone();
        slots.into_iter().filter(|slot| slot["label"] != "second").collect()
    }

    fn list(&self) -> Value {
        let listed = run(self.volume.coffer(["key", "list", "--json", &self.volume.url])).ok();
        serde_json::from_slice(&listed.stdout).unwrap()
    }

    /// Whether a rotation is unfinished, of which a check speaks too. Nothing else is wrong but left-overs of a kill.
    pub(crate) fn is_rotating(&self) -> bool {
        let is_rotating = self.list()["is_rotating"].as_bool().unwrap();
        let checked = run(self.coffer(&["check", "--read-data"], &[]));
        assert!(
            [Exit::Success, Exit::Untidy].map(|exit| i32::from(exit.code())).contains(&checked.code()),
            "{checked}"
        );
        assert_eq!(
            checked.stderr.contains("rotation of the volume's key is unfinished"),
            is_rotating,
            "{checked}"
        );
        is_rotating
    }

    /// Goes on with a rotation to its end.
    pub(crate) fn end_rotation(&self) -> Finished {
        run(self.coffer(&["key", "rotate"], &[])).ok()
    }
}

#[test]
fn a_killed_change_of_passphrase_leaves_the_old_one_or_the_new_one() {
    let mut dice = SmallRng::seed_from_u64(seed("kills of key passwd"));
    let keys = Keys::of(Volume::local());
    let span = time_of(keys.passwd());
    assert!(keys.settle(0), "a change that nobody killed");
    let mut changed = 0;
    for round in 0..rounds(6) {
        let done = kill_at_random(keys.passwd(), &mut dice, span);
        let is_changed = keys.settle(round);
        assert!(!done || is_changed, "round {round}: the command succeeded and changed nothing");
        changed += u32::from(is_changed);
    }
    println!("killed changes of passphrase: {changed} took effect");
}

#[test]
fn a_killed_addition_of_a_key_leaves_it_whole_or_not_there() {
    let mut dice = SmallRng::seed_from_u64(seed("kills of key add"));
    let keys = Keys::of(Volume::local());
    let span = time_of(keys.add());
    let remove = |slot| drop(run(keys.remove(slot)).ok());
    remove(keys.second(0).expect("an addition that nobody killed"));
    let (rounds, mut added) = (rounds(6), 0);
    for round in 0..rounds {
        let done = kill_at_random(keys.add(), &mut dice, span);
        let second = keys.second(round);
        assert!(!done || second.is_some(), "round {round}: the command succeeded and added nothing");
        added += u32::from(second.is_some());
        second.into_iter().for_each(remove);
    }
    println!("of {rounds} killed additions of a key {added} took effect");
}

#[test]
fn a_killed_removal_of_a_key_leaves_it_whole_or_gone() {
    let mut dice = SmallRng::seed_from_u64(seed("kills of key remove"));
    let keys = Keys::of(Volume::local());
    let add = |round| {
        run(keys.add()).ok();
        keys.second(round).expect("an addition that nobody killed")
    };
    // It ends as soon as it has taken effect: some shall.
    let span = time_of(keys.remove(add(0))).mul_f64(1.3);
    assert_eq!(keys.second(0), None, "a removal that nobody killed");
    let (rounds, mut removed, mut slot) = (rounds(6), 0, None);
    for round in 0..rounds {
        let second = slot.unwrap_or_else(|| add(round));
        let done = kill_at_random(keys.remove(second), &mut dice, span);
        slot = keys.second(round);
        assert!(
            slot.is_none_or(|left| left == second && !done),
            "round {round}: {done}, {slot:?} of {second}"
        );
        assert!(!keys.is_rotating());
        removed += u32::from(slot.is_none());
    }
    println!("of {rounds} killed removals of a key {removed} took effect");
}

#[test]
fn a_killed_rotation_can_be_used_and_the_next_one_ends_it() {
    let mut dice = SmallRng::seed_from_u64(seed("kills of key rotate"));
    let keys = Keys::of(Volume::local());
    let state = keys.own.with_file_name("home").join("coffer");
    let mut data = vec![0; FILE_BYTES];
    dice.fill_bytes(&mut data);
    // With the state folder of the commands: whoever was killed is known to be gone.
    let mounted = |round: u32| {
        let mount = keys.volume.mount_spec().state_dir(&state).mount();
        if round > 0 {
            assert!(fs::read(mount.path("file")).unwrap() == data, "round {round}: the file is another");
        } else {
            fs::write(mount.path("file"), &data).unwrap();
        }
        fs::write(mount.path(format!("round {round}")), "x").unwrap();
        mount.unmount();
    };
    mounted(0);
    let span = time_of(keys.rotate());
    assert!(keys.settle(0) && !keys.is_rotating(), "a rotation that nobody killed");
    let (rounds, mut begun, mut unfinished) = (rounds(6).min(ROTATIONS_MAX), 0, 0);
    for round in 1..=rounds {
        let done = kill_at_random(keys.rotate(), &mut dice, span);
        let is_begun = keys.settle(round);
        let is_rotating = keys.is_rotating();
        assert!(is_begun || (!done && !is_rotating), "round {round}: {done}, {is_rotating}");
        assert!(!(done && is_rotating), "round {round}: the command succeeded and has not ended");
        if is_rotating && dice.random_bool(0.5) {
            mounted(round);
        }
        if is_rotating
            && !kill_at_random(keys.coffer(&["key", "rotate"], &[]), &mut dice, span)
            && keys.is_rotating()
        {
            keys.end_rotation();
        }
        assert!(!keys.is_rotating(), "round {round}: it does not end");
        mounted(round);
        (begun, unfinished) = (begun + u32::from(is_begun), unfinished + u32::from(is_rotating));
    }
    println!("of {rounds} killed rotations {begun} had begun, and {unfinished} were unfinished");
}
