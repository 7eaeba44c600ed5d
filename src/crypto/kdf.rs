//! scrypt (RFC 7914): which costs are accepted, how one is chosen, and the run itself.

use std::time::Duration;

use scrypt::Params;

use super::{Key, Secret, cannot_fail};
use crate::base::{Clock, SystemClock};

const LOG_N_MIN: u8 = 15;
const LOG_N_MAX: u8 = 20;
const LOG_N_MIN_NEW: u8 = 17;
const R: u32 = 8;
const P_MAX: u32 = 4;
// The window ends where scrypt's table reaches 1 GiB.
const _: () = assert!(ScryptParams { log_n: LOG_N_MAX, p: P_MAX }.memory_bytes() <= 1 << 30);
/// A new slot takes the largest cost whose estimate stays below this.
const CALIBRATED_TIME_MAX: Duration = Duration::from_millis(1400);

/// Why a key derivation is refused before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KdfError {
    /// A parameter outside of what is accepted.
    #[error("scrypt parameter {parameter} = {found} is not accepted: it must be {accepted}")]
    OutOfRange {
        /// `N`, `r` or `p`.
        parameter: &'static str,
        /// What was asked for.
        found: u64,
        /// What would be accepted.
        accepted: &'static str,
    },
    /// The machine does not give the memory.
    #[error("scrypt needs {needed_bytes} bytes of memory, which this machine does not give")]
    NoMemory {
        /// Bytes of the table.
        needed_bytes: u64,
    },
}

/// A cost of scrypt within the accepted window: 2^15 <= N <= 2^20, r = 8, 1 <= p <= 4, at most 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScryptParams {
    log_n: u8,
    p: u32,
}

impl ScryptParams {
    /// The cheapest cost that is accepted.
    pub const FLOOR: Self = Self { log_n: LOG_N_MIN, p: 1 };

    /// Checks a cost. Nothing is allocated.
    ///
    /// # Errors
    /// [`KdfError::OutOfRange`] names the parameter.
    pub const fn new(n: u64, r: u32, p: u32) -> Result<Self, KdfError> {
        if !n.is_power_of_two() || n < 1 << LOG_N_MIN || n > 1 << LOG_N_MAX {
            return out_of_range("N", n, "a power of two from 2^15 to 2^20");
        }
        if r != R {
            return out_of_range("r", r as u64, "8");
        }
        if p == 0 || p > P_MAX {
            return out_of_range("p", p as u64, "1 to 4");
        }
        Ok(Self { log_n: n.trailing_zeros() as u8, p })
    }

    /// `N`: the number of table entries.
    #[must_use]
    pub const fn n(self) -> u64 {
        1 << self.log_n
    }

    /// `r`: the block size in units of 128 bytes.
    #[must_use]
    pub const fn r(self) -> u32 {
        R
    }

    /// `p`: how often the whole is repeated.
    #[must_use]
    pub const fn p(self) -> u32 {
        self.p
    }

    /// Bytes of scrypt's table.
    #[must_use]
    pub const fn memory_bytes(self) -> u64 {
        128 * R as u64 * self.n()
    }

    /// The stronger of two costs: a changed passphrase is never stretched less than the one before it.
    #[must_use]
    pub const fn at_least(self, other: Self) -> Self {
        if self.n() * self.p as u64 >= other.n() * other.p as u64 { self } else { other }
    }

    /// Stretches `secret`.
    ///
    /// # Errors
    /// [`KdfError::NoMemory`].
    pub(super) fn stretch(self, secret: &Secret, salt: &[u8]) -> Result<Key<32>, KdfError> {
        let no_memory = KdfError::NoMemory { needed_bytes: self.memory_bytes() };
        // The crate aborts when it gets no memory: ask first.
        let table_bytes = usize::try_from(self.memory_bytes()).map_err(|_| no_memory)?;
        Vec::<u8>::new().try_reserve_exact(table_bytes).map_err(|_| no_memory)?;
        let params = Params::new(self.log_n, R, self.p);
        let params = cannot_fail(params, "scrypt takes every cost inside the window");
        Ok(Key::filled(|out| {
            let done = scrypt::scrypt(secret.expose(), salt, &params, out);
            cannot_fail(done, "scrypt gives 32 bytes");
        }))
    }
}

const fn out_of_range(
    parameter: &'static str,
    found: u64,
    accepted: &'static str,
) -> Result<ScryptParams, KdfError> {
    Err(KdfError::OutOfRange { parameter, found, accepted })
}

/// How the cost of a new slot is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KdfCost {
    /// About a second on this machine, and never below N = 2^17.
    Calibrated,
    /// N = 2^`log_n`, within the accepted window.
    Fixed {
        /// Binary logarithm of N.
        log_n: u8,
    },
}

impl KdfCost {
    /// The cost itself.
    ///
    /// # Errors
    /// A fixed cost outside of the window; no memory to calibrate with.
    pub fn resolve(self) -> Result<ScryptParams, KdfError> {
        match self {
            Self::Fixed { log_n } => ScryptParams::new(1_u64.checked_shl(log_n.into()).unwrap_or(0), R, 1),
            Self::Calibrated => {
                let clock = SystemClock::default();
                ScryptParams::FLOOR.stretch(&Secret::from("how fast is this machine"), b"calibration")?;
                Ok(ScryptParams { log_n: log_n_for(clock.elapsed()), p: 1 })
            }
        }
    }
}

/// The cost that a machine affords which takes `floor` for N = 2^15: time grows with N.
fn log_n_for(floor: Duration) -> u8 {
    let affordable = |log_n: &u8| floor * (1 << (log_n - LOG_N_MIN)) <= CALIBRATED_TIME_MAX;
    (LOG_N_MIN_NEW..=LOG_N_MAX).rev().find(affordable).unwrap_or(LOG_N_MIN_NEW)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn scrypt_gives_what_rfc_7914_says() {
        for (secret, salt, log_n, r, p, want) in [
            ("", "", 4, 1, 1, "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442"),
            (
                "password",
                "NaCl",
                10,
                8,
                16,
                "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162",
            ),
            (
                "pleaseletmein",
                "SodiumChloride",
                14,
                8,
                1,
                "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2",
            ),
        ] {
            let mut out = [0; 32];
            let params = Params::new(log_n, r, p).unwrap();
            scrypt::scrypt(secret.as_bytes(), salt.as_bytes(), &params, &mut out).unwrap();
            assert_eq!(HEXLOWER.encode(&out), want);
        }
    }

    #[test]
    fn only_costs_inside_the_window_are_accepted() {
        assert_eq!(ScryptParams::new(1 << 15, 8, 1), Ok(ScryptParams::FLOOR));
        assert_eq!(ScryptParams::new(1 << 20, 8, 4).unwrap().memory_bytes(), 1 << 30);
        let parameter = |n, r, p| match ScryptParams::new(n, r, p) {
            Err(KdfError::OutOfRange { parameter, .. }) => parameter,
            other => panic!("{other:?}"),
        };
        for n in [0, 1, 1 << 10, 1 << 14, (1 << 15) + 1, 3 << 16, 1 << 21, 1 << 40, u64::MAX] {
            assert_eq!(parameter(n, 8, 1), "N");
        }
        for r in [0, 1, 7, 9, 1 << 31] {
            assert_eq!(parameter(1 << 17, r, 1), "r");
        }
        for p in [0, 5, u32::MAX] {
            assert_eq!(parameter(1 << 17, 8, p), "p");
        }
        for log_n in [0, 14, 21, 63, 64, 255] {
            assert!(KdfCost::Fixed { log_n }.resolve().is_err(), "2^{log_n}");
        }
    }

    #[test]
    fn a6_calibration_takes_about_a_second_and_never_less_than_2_to_the_17() {
        assert_eq!(log_n_for(Duration::from_secs(5)), 17);
        assert_eq!(log_n_for(Duration::from_millis(300)), 17);
        assert_eq!(log_n_for(Duration::from_millis(100)), 18);
        assert_eq!(log_n_for(Duration::from_millis(60)), 19);
        assert_eq!(log_n_for(Duration::from_millis(1)), 20);
    }

    #[test]
    fn the_stronger_of_two_costs_wins() {
        let strong = ScryptParams::new(1 << 16, 8, 1).unwrap();
        let wide = ScryptParams::new(1 << 15, 8, 4).unwrap();
        assert_eq!(ScryptParams::FLOOR.at_least(strong), strong);
        assert_eq!(strong.at_least(ScryptParams::FLOOR), strong);
        assert_eq!(strong.at_least(wide), wide);
    }
}
