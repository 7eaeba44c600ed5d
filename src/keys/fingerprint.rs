//! The fingerprint of a volume: what people compare to know that two machines mean the same one.

use std::fmt;

use bip39::{Language, Mnemonic};
use serde::{Deserialize, Serialize};

use super::{Header, Hex};
use crate::base::VolumeId;
use crate::crypto::{AdminPublicKey, fingerprint};

/// What makes a volume this one and no other. All of it stands in the clear in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The volume.
    pub volume: VolumeId,
    /// The key that signs its headers.
    pub admin_public_key: AdminPublicKey,
    /// Commitment to its volume key.
    pub vmk_commitment: [u8; 32],
}

impl Header {
    /// What makes the volume this one.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        Identity {
            volume: self.volume,
            admin_public_key: self.admin_public_key.0,
            vmk_commitment: self.vmk_commitment.0,
        }
    }
}

impl Identity {
    /// The identity in 128 bits, to be compared by people. (`docs/FORMAT.md`, "Fingerprint")
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(fingerprint(self.volume, &self.admin_public_key, &self.vmk_commitment))
    }
}

/// As an identity is kept in files that people read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    volume: String,
    admin_public_key: Hex<32>,
    vmk_commitment: Hex<32>,
}

impl Serialize for Identity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = Written {
            volume: self.volume.to_string(),
            admin_public_key: Hex(self.admin_public_key),
            vmk_commitment: Hex(self.vmk_commitment),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let volume = VolumeId::parse(&written.volume);
        Ok(Self {
            volume: volume.ok_or_else(|| serde::de::Error::custom("not a volume id"))?,
            admin_public_key: written.admin_public_key.0,
            vmk_commitment: written.vmk_commitment.0,
        })
    }
}

/// A fingerprint: 128 bits, shown as twelve words, the last of which holds four bits of checksum.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 16]);

/// How a fingerprint was mistyped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// A word that no fingerprint has.
    #[error("word {position} is in no fingerprint")]
    Word {
        /// Which one, counted from 1.
        position: usize,
    },
    /// Words are missing or too many.
    #[error("a fingerprint has twelve words")]
    Length,
    /// All words are possible, but not together.
    #[error("these twelve words are no fingerprint: look for a wrong or swapped one")]
    Checksum,
}

impl Fingerprint {
    /// Reads a fingerprint as it was typed: any case, words apart by anything that is no letter.
    ///
    /// # Errors
    /// Says how it was mistyped.
    pub fn parse(typed: &str) -> Result<Self, FingerprintError> {
        let lower = typed.to_lowercase();
        let words: Vec<&str> = lower.split(|c: char| !c.is_alphabetic()).filter(|w| !w.is_empty()).collect();
        if let Some(at) = words.iter().position(|word| Language::English.find_word(word).is_none()) {
            return Err(FingerprintError::Word { position: at + 1 });
        }
        if words.len() != 12 {
            return Err(FingerprintError::Length);
        }
        let mnemonic = Mnemonic::parse_in_normalized(Language::English, &words.join(" "));
        let (bytes, _) = mnemonic.map_err(|_| FingerprintError::Checksum)?.to_entropy_array();
        let (bytes, _) = bytes.split_first_chunk::<16>().ok_or(FingerprintError::Length)?;
        Ok(Self(*bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, &self.0).map_err(|_| fmt::Error)?;
        for (at, word) in mnemonic.words().enumerate() {
            write!(f, "{}{word}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::volume;
    use super::*;

    #[test]
    fn a_fingerprint_changes_with_each_part_of_the_identity() {
        let (_, _, made, _) = volume(1);
        let identity = made.header.identity();
        let shown = identity.fingerprint().to_string();
        assert_eq!(shown.split(' ').count(), 12, "{shown}");
        let mut others = [identity; 3];
        others[0].volume.0[0] ^= 1;
        others[1].admin_public_key[31] ^= 1;
        others[2].vmk_commitment[7] ^= 1;
        for other in others {
            assert_ne!(other.fingerprint(), identity.fingerprint());
        }
        let text = serde_json::to_string(&identity).unwrap();
        assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), identity);
    }

    #[test]
    fn a_fingerprint_is_the_same_in_ten_years() {
        // 128 zero bits, as BIP 39 writes them.
        let zero =
            "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
        assert_eq!(Fingerprint([0; 16]).to_string(), zero);
        let (admin_public_key, vmk_commitment) = ([2; 32], [3; 32]);
        let identity = Identity { volume: VolumeId([1; 16]), admin_public_key, vmk_commitment };
        let words = "shoot order arrow mad rhythm lyrics catalog drift lion woman panic bargain";
        assert_eq!(identity.fingerprint().to_string(), words);
    }

    #[test]
    fn a_mistyped_fingerprint_is_told_from_another_one() {
        let typed =
            "Abandon-abandon abandon,abandon abandon abandon abandon abandon abandon abandon abandon ABOUT\n";
        assert_eq!(Fingerprint::parse(typed).unwrap(), Fingerprint([0; 16]));
        let wrong = typed.replace("ABOUT", "abuot");
        assert_eq!(Fingerprint::parse(&wrong).unwrap_err(), FingerprintError::Word { position: 12 });
        assert_eq!(Fingerprint::parse(&typed.replace("ABOUT", "")).unwrap_err(), FingerprintError::Length);
        let swapped = typed.replace("ABOUT", "zoo");
        assert_eq!(Fingerprint::parse(&swapped).unwrap_err(), FingerprintError::Checksum);
        assert_eq!(Fingerprint::parse("").unwrap_err(), FingerprintError::Length);
    }

    proptest! {
        #[test]
        fn any_fingerprint_reads_back_and_any_text_is_answered(bytes: [u8; 16], text in ".{0,200}") {
            let fingerprint = Fingerprint(bytes);
            prop_assert_eq!(Fingerprint::parse(&fingerprint.to_string()).unwrap(), fingerprint);
            let _ = Fingerprint::parse(&text);
        }
    }
}
