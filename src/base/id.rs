//! Identities: inode numbers, block indexes, segment and volume ids, name tags.

use std::fmt;

use data_encoding::BASE32HEX_NOPAD;

/// An inode number. Never reused within a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory.
    pub const ROOT: Self = Self(1);
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The position of a block in its file, counted in blocks from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(pub u64);

impl BlockIndex {
    /// The block that holds the byte at `offset`.
    #[must_use]
    pub const fn of(offset: u64) -> Self {
        Self(offset / super::BLOCK_LEN)
    }

    /// The file offset of the block's first byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.0.saturating_mul(super::BLOCK_LEN)
    }
}

/// The 16-byte synthetic IV of a sealed name: the key of its entry within its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct Tag(pub [u8; 16]);

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Draws a new id.
            pub fn random(entropy: &dyn super::Entropy) -> Self {
                let mut bytes = [0; 16];
                entropy.fill(&mut bytes);
                Self(bytes)
            }

            /// Reads the 26 characters that [`fmt::Display`] writes; `None` for anything else.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                if text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return None;
                }
                let bytes = BASE32HEX_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).ok()?;
                Some(Self(bytes.try_into().ok()?))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&BASE32HEX_NOPAD.encode(&self.0).to_ascii_lowercase())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

random_id! {
    /// A data segment: 128 random bits, used for one object only.
    SegmentId
}
random_id! {
    /// A volume: 128 random bits drawn at `init`.
    VolumeId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_text_and_from_nothing_else() {
        let id = SegmentId([0xA5; 16]);
        let text = id.to_string();
        assert_eq!(text.len(), 26);
        assert_eq!(SegmentId::parse(&text), Some(id));
        assert_eq!(SegmentId::parse(&text.to_ascii_uppercase()), None);
        assert_eq!(SegmentId::parse(&text[1..]), None);
        assert_eq!(SegmentId::parse("ü"), None);
    }
}
