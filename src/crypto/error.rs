//! Why something sealed does not open.

use crate::base::NameError;

/// Why a sealed object, piece or name is refused. Says nothing that the store could learn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The bytes do not start as a sealed object does.
    #[error("not a sealed object")]
    BadMagic,
    /// The object is of another kind than its place asks for.
    #[error("a sealed object of the wrong kind ({found})")]
    WrongKind {
        /// The kind byte found in its head.
        found: u8,
    },
    /// Sealed by a cipher suite that this version does not have.
    #[error("sealed by suite {0}, which this version does not know")]
    UnknownSuite(u8),
    /// Sealed under a key epoch that does not exist.
    #[error("sealed under key epoch {0}, which is none")]
    UnknownEpoch(u16),
    /// Sealed under a key that came after those at hand.
    #[error("sealed under key epoch {found}, and the newest key at hand is of epoch {newest}")]
    NewerEpoch {
        /// The epoch found in its head.
        found: u16,
        /// The newest epoch at hand.
        newest: u16,
    },
    /// Sealed under a key that was rotated away: nothing sealed with it is believed.
    #[error(
        "sealed under key epoch {found}, which was rotated away: nothing older than epoch {floor} is believed"
    )]
    OldEpoch {
        /// The epoch found in its head.
        found: u16,
        /// The oldest epoch whose objects are believed.
        floor: u16,
    },
    /// The commitment does not match: another key, volume or object name.
    #[error("not sealed for this volume and this name")]
    WrongKey,
    /// The bytes were altered, cut or moved.
    #[error("altered or damaged")]
    Damaged,
    /// Opened, but what it holds is no name.
    #[error("holds an invalid name: {0}")]
    InvalidName(NameError),
}
