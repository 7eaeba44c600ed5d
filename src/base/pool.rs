//! Memory that several caches have in common.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// A cache that takes part in a [`Pool`]. What it is asked takes no longer than a look into its lists.
pub trait PoolMember: Send + Sync {
    /// Bytes that it brings into the pool.
    fn share_bytes(&self) -> u64;

    /// Bytes that no other can take from it.
    fn kept_bytes(&self) -> u64;

    /// Bytes that it holds.
    fn held_bytes(&self) -> u64;

    /// The pool's time at which what would go first was used last.
    fn oldest(&self) -> Option<u64>;

    /// Drops what goes first.
    fn drop_oldest(&self);
}

/// The sum of its members' shares. What one does not use the others may; where all is in use the least recently used goes
/// first, whosesoever it is, but for what each keeps.
///
/// Its time is the number of things that were put in, so that it is the same in every run.
#[derive(Default)]
pub struct Pool {
    now: AtomicU64,
    members: Mutex<Vec<Weak<dyn PoolMember>>>,
}

impl Pool {
    /// A pool without members.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Takes in a member.
    pub fn join(&self, member: Weak<dyn PoolMember>) {
        self.members.lock().push(member);
    }

    /// The time, for something that is used.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// The time, for something that is put in.
    #[must_use]
    pub fn tick(&self) -> u64 {
        self.now.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Drops what is too much. For a member that has put something in or brings in less than before, and holds none of its
    /// locks.
    pub fn settle(&self) {
        // Kept, so that two who come at once do not drop twice as much.
        let members = self.members.lock();
        let members: Vec<_> = members.iter().filter_map(Weak::upgrade).collect();
        let share: u64 = members.iter().map(|member| member.share_bytes()).sum();
        while members.iter().map(|member| member.held_bytes()).sum::<u64>() > share {
            let above = members.iter().filter(|member| member.held_bytes() > member.kept_bytes());
            match above.min_by_key(|member| member.oldest().unwrap_or(u64::MAX)) {
                Some(member) if member.oldest().is_some() => member.drop_oldest(),
                _ => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Holds times, each of one byte.
    struct Times {
        share: u64,
        kept: u64,
        pool: Arc<Pool>,
        times: Mutex<VecDeque<u64>>,
    }

    impl PoolMember for Times {
        fn share_bytes(&self) -> u64 {
            self.share
        }

        fn kept_bytes(&self) -> u64 {
            self.kept
        }

        fn held_bytes(&self) -> u64 {
            self.times.lock().len() as u64
        }

        fn oldest(&self) -> Option<u64> {
            self.times.lock().front().copied()
        }

        fn drop_oldest(&self) {
            self.times.lock().pop_front();
        }
    }

    impl Times {
        fn join(pool: &Arc<Pool>, share: u64, kept: u64) -> Arc<Self> {
            let times = Arc::new(Self { share, kept, pool: Arc::clone(pool), times: Mutex::default() });
            let member: Weak<Self> = Arc::downgrade(&times);
            pool.join(member);
            times
        }

        fn put(&self, count: u64) {
            for _ in 0..count {
                let now = self.pool.tick();
                self.times.lock().push_back(now);
                self.pool.settle();
            }
        }
    }

    #[test]
    fn what_one_does_not_use_the_other_may() {
        let pool = Pool::new();
        let (large, small) = (Times::join(&pool, 80, 20), Times::join(&pool, 10, 10));
        small.put(200);
        assert_eq!((large.held_bytes(), small.held_bytes()), (0, 90));
        large.put(30);
        assert_eq!((large.held_bytes(), small.held_bytes()), (30, 60));
        large.put(200);
        assert_eq!((large.held_bytes(), small.held_bytes()), (80, 10), "the small one keeps its own");
    }

    #[test]
    fn the_least_recently_used_goes_first_but_for_what_each_keeps() {
        let pool = Pool::new();
        let (large, small) = (Times::join(&pool, 80, 20), Times::join(&pool, 10, 10));
        large.put(85);
        small.put(40);
        assert_eq!((large.held_bytes(), small.held_bytes()), (50, 40), "what is older goes first");
        small.put(500);
        assert_eq!((large.held_bytes(), small.held_bytes()), (20, 70));
        large.put(1);
        assert_eq!((large.held_bytes(), small.held_bytes()), (20, 70), "what is oldest is its own");
    }

    #[test]
    fn a_member_that_is_gone_takes_its_share_along() {
        let pool = Pool::new();
        let (large, small) = (Times::join(&pool, 80, 20), Times::join(&pool, 10, 10));
        small.put(90);
        drop(large);
        small.put(1);
        assert_eq!(small.held_bytes(), 10);
    }
}
