//! The chain of commits: each is bound to the one before. (`docs/FORMAT.md`, "Commits")
//!
//! Old links are folded: a record of many of them keeps what their hashes were made of, and so any
//! commit that a machine has pinned can still be asked for.

use std::sync::Arc;

use crate::base::Time;
use crate::crypto::{KeyRing, MacLabel};

use super::{Commit, DeviceRun, History};

/// What stands before the first commit.
pub const GENESIS: [u8; 32] = [0; 32];
/// Commits in one [`History`].
pub const HISTORY_COMMITS: u64 = 1024;

/// The hash of `commit` as number `number`, upon the commit with hash `previous`. What it has as its hash does not enter.
#[must_use]
pub fn link(ring: &KeyRing, previous: &[u8; 32], number: u64, commit: &Commit) -> [u8; 32] {
    let Commit { device, session, counter, time, .. } = commit;
    let (number, counter) = (number.to_be_bytes(), counter.to_be_bytes());
    let (secs, nanos) = (time.secs.to_be_bytes(), time.nanos.to_be_bytes());
    ring.mac(MacLabel::Commit, &[previous, &number, device, session, &counter, &secs, &nanos])
}

/// The first commit of the history that holds, or will hold, commit `number`, counted from 1.
#[must_use]
pub const fn first_of(number: u64) -> u64 {
    number.saturating_sub(1) / HISTORY_COMMITS * HISTORY_COMMITS + 1
}

/// Folds `commits`, the first of which is number `first` and follows the commit with hash `before`.
/// `None` unless each is bound to the one before it: what is broken is kept as it is.
#[must_use]
pub fn fold(ring: &KeyRing, before: [u8; 32], first: u64, commits: &[Arc<Commit>]) -> Option<History> {
    let mut history = History { before, devices: Vec::new(), times: Vec::with_capacity(commits.len()) };
    let (mut hash, mut secs) = (before, 0);
    for (number, commit) in (first..).zip(commits) {
        hash = link(ring, &hash, number, commit);
        if hash != commit.hash {
            return None;
        }
        let Commit { device, session, counter, .. } = **commit;
        match history.devices.last_mut() {
            Some(run)
                if (run.device, run.session) == (device, session)
                    && counter_at(run, run.count) == counter =>
            {
                run.count += 1;
            }
            _ => history.devices.push(DeviceRun { device, session, count: 1, counter }),
        }
        history.times.push((commit.time.secs.checked_sub(secs)?, commit.time.nanos));
        secs = commit.time.secs;
    }
    Some(history)
}

/// The hash of commit `number`, which lies in `history` that begins with commit `first`; `None` if it
/// does not.
#[must_use]
pub fn hash_in(ring: &KeyRing, history: &History, first: u64, number: u64) -> Option<[u8; 32]> {
    let runs = history.devices.iter();
    let mut makers = runs.flat_map(|run| (0..run.count).map(move |at| (run, counter_at(run, at))));
    let (mut hash, mut secs) = (history.before, 0i64);
    for (at, (after, nanos)) in (first..=number).zip(&history.times) {
        secs = secs.checked_add(*after)?;
        let (&DeviceRun { device, session, .. }, counter) = makers.next()?;
        let commit = Commit { hash, device, session, counter, time: Time { secs, nanos: *nanos } };
        hash = link(ring, &hash, at, &commit);
        if at == number {
            return Some(hash);
        }
    }
    None
}

/// The counter of the commit that is number `at`, from 0, of a run.
const fn counter_at(run: &DeviceRun, at: u32) -> u64 {
    if run.counter == 0 { 0 } else { run.counter.saturating_add(at as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{SeededEntropy, VolumeId};
    use crate::crypto::{Epoch, Key};

    fn ring(seed: u64) -> KeyRing {
        KeyRing::new(VolumeId([1; 16]), Epoch::FIRST, &Key::random(&SeededEntropy::new(seed)))
    }

    fn chain(ring: &KeyRing, first: u64, before: [u8; 32], count: u64) -> Vec<Arc<Commit>> {
        let mut hash = before;
        let commits = (first..first + count).map(|number| {
            let device = [(number / 300) as u8; 16];
            // Clocks are set back now and then.
            let secs = 1_700_000_000 + number as i64 * 5 - if number.is_multiple_of(7) { 4000 } else { 0 };
            let time = Time { secs, nanos: (number * 7919 % 1_000_000_000) as u32 };
            // Nobody counted at first; later a device skips a number now and then.
            let counter = if number < first + 400 { 0 } else { number + number / 100 };
            let session = [(number / 130) as u8; 16];
            let commit = Commit { hash, device, session, counter, time };
            hash = link(ring, &hash, number, &commit);
            Arc::new(Commit { hash, ..commit })
        });
        commits.collect()
    }

    #[test]
    fn every_hash_of_a_folded_chain_is_computed_again() {
        let ring = ring(1);
        let first = first_of(2000);
        assert_eq!(first, 1025);
        let commits = chain(&ring, first, [7; 32], HISTORY_COMMITS);
        let history = fold(&ring, [7; 32], first, &commits).unwrap();
        for (number, commit) in (first..).zip(&commits) {
            assert_eq!(hash_in(&ring, &history, first, number), Some(commit.hash));
        }
        assert_eq!(hash_in(&ring, &history, first, first - 1), None);
        assert_eq!(hash_in(&ring, &history, first, first + HISTORY_COMMITS), None);
        let record = super::super::Record::History(Arc::new(history));
        assert!(super::super::encode(&record).unwrap().len() < 8 * 1024, "it is small");
    }

    #[test]
    fn a_hash_binds_every_field_of_its_commit_its_number_and_what_was_before() {
        let ring = ring(1);
        let time = Time { secs: 5, nanos: 6 };
        let commit = Commit { hash: [0; 32], device: [1; 16], session: [2; 16], counter: 3, time };
        let others = [
            Commit { device: [9; 16], ..commit.clone() },
            Commit { session: [9; 16], ..commit.clone() },
            Commit { counter: 9, ..commit.clone() },
            Commit { time: Time { secs: 9, nanos: 6 }, ..commit.clone() },
            Commit { time: Time { secs: 5, nanos: 9 }, ..commit.clone() },
            Commit { device: [2; 16], session: [1; 16], ..commit.clone() },
        ];
        let hash = link(&ring, &GENESIS, 7, &commit);
        assert_eq!(hash, link(&ring, &GENESIS, 7, &Commit { hash: [9; 32], ..commit.clone() }));
        assert_ne!(hash, link(&ring, &[1; 32], 7, &commit));
        assert_ne!(hash, link(&ring, &GENESIS, 8, &commit));
        for other in others {
            assert_ne!(hash, link(&ring, &GENESIS, 7, &other), "{other:?}");
        }
    }

    #[test]
    fn a_chain_with_a_broken_link_is_not_folded() {
        let ring = ring(1);
        let mut commits = chain(&ring, 1, GENESIS, 10);
        assert!(fold(&ring, GENESIS, 1, &commits).is_some());
        assert!(fold(&ring, [1; 32], 1, &commits).is_none());
        assert!(fold(&self::ring(2), GENESIS, 1, &commits).is_none());
        commits.swap(3, 4);
        assert!(fold(&ring, GENESIS, 1, &commits).is_none());
    }

    #[test]
    fn a_history_that_is_not_whole_gives_no_hash() {
        let ring = ring(1);
        let mut history = fold(&ring, GENESIS, 1, &chain(&ring, 1, GENESIS, 10)).unwrap();
        history.devices.clear();
        assert_eq!(hash_in(&ring, &history, 1, 5), None);
        history.times = vec![(i64::MAX, 0), (i64::MAX, 0)];
        history.devices =
            vec![DeviceRun { device: [0; 16], session: [0; 16], count: u32::MAX, counter: u64::MAX - 1 }];
        assert_eq!(hash_in(&ring, &history, 1, 2), None);
    }
}
