//! The 64 bytes before every sealed object (`docs/FORMAT.md`, "Sealed objects").

use super::OpenError;

pub use crate::base::HEAD_BYTES;
/// Suite 1: AES-256-GCM pieces, HKDF-SHA-256 keys and commitments.
pub const SUITE_AES_256_GCM: u8 = 1;

const MAGIC: [u8; 4] = *b"CFR1";

/// What a sealed object is for. Part of its key, so that no object passes for one of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// Blocks of files.
    Segment = 1,
    /// An object of the metadata store.
    Meta = 2,
    /// A piece of the audit log.
    Audit = 3,
    /// Unsent data that a fenced mount keeps for recovery.
    Rescue = 4,
}

impl ObjectKind {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Segment),
            2 => Some(Self::Meta),
            3 => Some(Self::Audit),
            4 => Some(Self::Rescue),
            _ => None,
        }
    }
}

/// The head of a sealed object: which key opens it, and the proof that it is that key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// What the object is for.
    pub kind: ObjectKind,
    /// Cipher suite; [`SUITE_AES_256_GCM`] is the only one.
    pub suite: u8,
    /// Key epoch under which the object was sealed.
    pub epoch: u16,
    /// Makes the object's key its own.
    pub salt: [u8; 24],
    /// Commitment to the object's key and to everything that is bound in it.
    pub commitment: [u8; 32],
}

impl ObjectHead {
    /// The head as it stands in the object.
    #[must_use]
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        let [e0, e1] = self.epoch.to_be_bytes();
        let front = MAGIC.into_iter().chain([self.kind as u8, self.suite, e0, e1]);
        for (to, from) in out.iter_mut().zip(front.chain(self.salt).chain(self.commitment)) {
            *to = from;
        }
        out
    }

    /// Reads the first [`HEAD_BYTES`] of `bytes`.
    ///
    /// # Errors
    /// Says which field is not one of this version's; too few bytes are [`OpenError::Damaged`].
    pub fn decode(bytes: &[u8]) -> Result<Self, OpenError> {
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(OpenError::Damaged)?;
        if *magic != MAGIC {
            return Err(OpenError::BadMagic);
        }
        let (&[kind, suite, e0, e1], rest) = rest.split_first_chunk::<4>().ok_or(OpenError::Damaged)?;
        let (&salt, rest) = rest.split_first_chunk::<24>().ok_or(OpenError::Damaged)?;
        let (&commitment, _) = rest.split_first_chunk::<32>().ok_or(OpenError::Damaged)?;
        if suite != SUITE_AES_256_GCM {
            return Err(OpenError::UnknownSuite(suite));
        }
        let kind = ObjectKind::from_byte(kind).ok_or(OpenError::WrongKind { found: kind })?;
        Ok(Self { kind, suite, epoch: u16::from_be_bytes([e0, e1]), salt, commitment })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: ObjectHead = ObjectHead {
        kind: ObjectKind::Meta,
        suite: SUITE_AES_256_GCM,
        epoch: 0x0102,
        salt: [3; 24],
        commitment: [4; 32],
    };

    #[test]
    fn a_head_is_64_bytes_and_reads_back() {
        let bytes = HEAD.encode();
        assert_eq!(bytes[..8], *b"CFR1\x02\x01\x01\x02");
        assert_eq!((bytes[8], bytes[31], bytes[32], bytes[63]), (3, 3, 4, 4));
        assert_eq!(ObjectHead::decode(&bytes), Ok(HEAD));
    }

    #[test]
    fn d5_a_head_of_another_format_kind_or_suite_is_told_apart() {
        let with = |at: usize, byte| {
            let mut bytes = HEAD.encode();
            bytes[at] = byte;
            ObjectHead::decode(&bytes)
        };
        assert_eq!(with(3, b'2'), Err(OpenError::BadMagic));
        assert_eq!(with(4, 9), Err(OpenError::WrongKind { found: 9 }));
        assert_eq!(with(5, 0), Err(OpenError::UnknownSuite(0)));
        for short in 0..HEAD_BYTES {
            assert_eq!(ObjectHead::decode(&HEAD.encode()[..short]), Err(OpenError::Damaged));
        }
    }

    proptest! {
        #[test]
        fn d11_any_bytes_are_a_head_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(head) = ObjectHead::decode(&bytes) {
                prop_assert_eq!(&head.encode()[..], &bytes[..HEAD_BYTES]);
            }
        }
    }
}
