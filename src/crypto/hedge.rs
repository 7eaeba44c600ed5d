//! Salts that do not repeat even when the randomness does: after a fork, a crash, a restored machine.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Key;
use super::derive::{length_prefixed, mac};
use crate::base::{Clock, Entropy, OsEntropy, SystemClock};

/// What this process adds to the randomness it is given.
pub(super) struct Hedge {
    process: [u8; 16],
    counter: AtomicU64,
    live: bool,
}

impl Hedge {
    /// A hedge of this process: its own nonce, its id and the time enter every salt.
    pub(super) fn live() -> Self {
        let mut process = [0; 16];
        OsEntropy.fill(&mut process);
        Self { process, counter: AtomicU64::new(0), live: true }
    }

    /// A hedge that repeats itself, for tests: salts follow from the given randomness alone.
    pub(super) fn repeating(process: [u8; 16]) -> Self {
        Self { process, counter: AtomicU64::new(0), live: false }
    }

    /// `HMAC(K_salt, randomness ‖ process ‖ process id ‖ time ‖ counter ‖ context)`, first 24 bytes.
    pub(super) fn salt(&self, key: &Key<32>, entropy: &dyn Entropy, context: &[&[u8]]) -> [u8; 24] {
        let mut random = [0; 32];
        entropy.fill(&mut random);
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let (pid, time) = if self.live {
            let now = SystemClock::default().now();
            (std::process::id(), now.secs.wrapping_mul(1_000_000_000).wrapping_add(i64::from(now.nanos)))
        } else {
            (0, 0)
        };
        let own: [&[u8]; 5] =
            [&random, &self.process, &pid.to_be_bytes(), &time.to_be_bytes(), &count.to_be_bytes()];
        let input = length_prefixed(&[&own, context].concat());
        let mac = mac(key.expose(), std::iter::once(&input[..]));
        let mut salt = [0; 24];
        salt.iter_mut().zip(mac.as_ref()).for_each(|(to, from)| *to = *from);
        salt
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    struct StuckEntropy;

    impl Entropy for StuckEntropy {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

    #[test]
    fn salts_never_repeat_though_the_randomness_does() {
        let key = Key::from_bytes([1; 32]);
        let (one, other) = (Hedge::live(), Hedge::live());
        let salts: HashSet<_> = (0..1000)
            .flat_map(|_| [one.salt(&key, &StuckEntropy, &[b"a"]), other.salt(&key, &StuckEntropy, &[b"a"])])
            .collect();
        assert_eq!(salts.len(), 2000);
    }

    #[test]
    fn a_process_restored_with_its_nonce_and_counter_still_differs_by_time_and_context() {
        let key = Key::from_bytes([1; 32]);
        let restored = || Hedge { process: [5; 16], counter: AtomicU64::new(9), live: true };
        let a = restored().salt(&key, &StuckEntropy, &[b"a"]);
        assert_ne!(a, restored().salt(&key, &StuckEntropy, &[b"a"]));
        let repeating = |context: &[u8]| Hedge::repeating([5; 16]).salt(&key, &StuckEntropy, &[context]);
        assert_eq!(repeating(b"a"), repeating(b"a"));
        assert_ne!(repeating(b"a"), repeating(b"b"));
    }
}
