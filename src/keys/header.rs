//! The body of a volume header: JSON that a person can read, and its limits.

use std::collections::HashSet;

use data_encoding::HEXLOWER;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::KeyError;
use super::factor::FACTORS_MAX;
use crate::base::{BLOCK_BYTES, VolumeId};
use crate::crypto::{Epoch, SIGNATURE_BYTES, ScryptParams, WRAPPED_BYTES};

/// The format that this version writes.
pub const FORMAT_VERSION: u32 = 1;
/// Most slots of one volume.
pub const SLOTS_MAX: usize = 32;
/// Longest label of a slot.
pub const LABEL_BYTES_MAX: usize = 64;
/// Most key epochs of one volume: its key can be rotated one time less.
pub const EPOCHS_MAX: u32 = 48;
/// The feature of a volume whose key has been rotated.
pub(super) const KEY_EPOCHS: &str = "key-epochs";
/// Features that a reader must know.
const FEATURES: [&str; 1] = [KEY_EPOCHS];

/// Everything a header says. Holds no secret: each key in it is wrapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of the format of the whole volume.
    pub format: u32,
    /// Features that a reader must know or refuse.
    pub features: Vec<String>,
    /// The volume.
    #[serde(with = "volume_text")]
    pub volume: VolumeId,
    /// Epoch of the volume key that the slots wrap.
    pub epoch: u32,
    /// Counts up with every change: the `n` of the object `header/<n>`.
    pub revision: u64,
    /// When the volume was made, in seconds since 1970.
    pub created_unix_secs: i64,
    /// Whether blocks are compressed before they are sealed.
    pub compression: Compression,
    /// Plaintext bytes of a block.
    pub block_bytes: u32,
    /// Ed25519 key that signs this and every later header.
    pub admin_public_key: Hex<32>,
    /// Commitment to the volume key.
    pub vmk_commitment: Hex<32>,
    /// The oldest epoch whose objects are believed; absent as long as there has been one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<u32>,
    /// The epochs before this one, from the first on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierEpoch>,
    /// Who may unlock.
    pub slots: Vec<Slot>,
}

/// A key epoch that has ended, and by whose word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlierEpoch {
    /// Ed25519 key that signed its headers.
    pub admin_public_key: Hex<32>,
    /// Commitment to its volume key.
    pub vmk_commitment: Hex<32>,
    /// Its volume key, under the newest.
    pub wrapped_vmk: Hex<WRAPPED_BYTES>,
    /// The revision of the header that began the next epoch.
    pub next_revision: u64,
    /// Its admin key's signature over that.
    pub succession: Hex<SIGNATURE_BYTES>,
}

/// One way to unlock the volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Its number in this header.
    pub id: u32,
    /// What its owner calls it.
    pub label: String,
    /// What it may do.
    pub role: Role,
    /// The factors it takes, in order.
    pub factors: Vec<FactorName>,
    /// How its passphrases are stretched; present if it takes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kdf: Option<Kdf>,
    /// Drawn for this slot alone.
    pub salt: Hex<32>,
    /// Commitment to the slot's key.
    pub commitment: Hex<32>,
    /// The volume key.
    pub wrapped_vmk: Hex<WRAPPED_BYTES>,
    /// The key that signs headers; present if the role is [`Role::Admin`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped_admin_key: Option<Hex<WRAPPED_BYTES>>,
    /// When the slot was made or last changed, in seconds since 1970.
    pub created_unix_secs: i64,
}

/// What a slot may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Open the volume.
    Data = 1,
    /// Open the volume and change its slots.
    Admin = 2,
}

/// The kind of a factor, as slots name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FactorName {
    /// A passphrase, stretched by scrypt.
    Passphrase,
    /// The contents of a file.
    KeyFile,
    /// A recovery code.
    RecoveryCode,
}

impl FactorName {
    pub(super) const fn in_words(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::KeyFile => "key file",
            Self::RecoveryCode => "recovery code",
        }
    }
}

/// Whether blocks are compressed before they are sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Stored sizes say nothing about contents.
    #[default]
    None,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Parameters of scrypt as a header states them; not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kdf {
    /// The only one there is.
    pub algorithm: KdfAlgorithm,
    /// Number of table entries.
    pub n: u64,
    /// Block size.
    pub r: u32,
    /// Repetitions.
    pub p: u32,
}

/// Functions that stretch a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KdfAlgorithm {
    /// RFC 7914.
    Scrypt,
}

impl Kdf {
    pub(super) const fn of(params: ScryptParams) -> Self {
        Self { algorithm: KdfAlgorithm::Scrypt, n: params.n(), r: params.r(), p: params.p() }
    }

    /// The parameters, if they are accepted.
    pub(super) fn params(&self) -> Result<ScryptParams, KeyError> {
        Ok(ScryptParams::new(self.n, self.r, self.p)?)
    }
}

/// `N` bytes that the JSON holds as lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(D::Error::custom)?;
        let bytes = bytes.try_into().map_err(|_| D::Error::custom(format!("not {N} bytes")))?;
        Ok(Self(bytes))
    }
}

mod volume_text {
    use super::{Deserialize, Deserializer, Serializer, VolumeId};
    use serde::de::Error as _;

    pub(super) fn serialize<S: Serializer>(volume: &VolumeId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(volume)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VolumeId, D::Error> {
        let text = String::deserialize(deserializer)?;
        VolumeId::parse(&text).ok_or_else(|| D::Error::custom("not a volume id"))
    }
}

/// The two fields that stay readable in every version to come.
#[derive(Deserialize)]
struct Requirements {
    format: u32,
    #[serde(default)]
    features: Vec<String>,
}

impl Header {
    /// Reads a body: first what it demands of a reader, then all of it, then its limits.
    pub(super) fn from_json(json: &[u8]) -> Result<Self, KeyError> {
        let damaged = |error: serde_json::Error| KeyError::damaged(format!("its body: {error}"));
        let required: Requirements = serde_json::from_slice(json).map_err(damaged)?;
        if required.format < FORMAT_VERSION {
            return Err(KeyError::damaged(format!("its format version is {}", required.format)));
        }
        if required.format > FORMAT_VERSION {
            return Err(newer(format!("format version {}", required.format)));
        }
        if let Some(unknown) = required.features.iter().find(|name| !FEATURES.contains(&name.as_str())) {
            let shown: String = unknown.chars().take(40).collect();
            return Err(newer(format!("the feature {shown:?}")));
        }
        let header: Self = serde_json::from_slice(json).map_err(damaged)?;
        header.check()?;
        Ok(header)
    }

    /// The body as it is written.
    pub(super) fn to_json(&self) -> Result<Vec<u8>, KeyError> {
        serde_json::to_vec_pretty(self).map_err(|error| KeyError::damaged(format!("its body: {error}")))
    }

    /// The slot with number `id`.
    #[must_use]
    pub fn slot(&self, id: u32) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.id == id)
    }

    /// Whether it is the header that its object, `header/<number>`, is to hold: it says so itself.
    ///
    /// # Errors
    /// It is a copy of another one.
    pub fn check_number(&self, number: u64) -> Result<(), KeyError> {
        match self.revision == number {
            true => Ok(()),
            false => Err(KeyError::damaged("its number is not that of its object")),
        }
    }

    fn check(&self) -> Result<(), KeyError> {
        if self.slots.is_empty() || self.slots.len() > SLOTS_MAX {
            return Err(KeyError::damaged(format!("it has {} slots", self.slots.len())));
        }
        if self.slots.iter().map(|slot| slot.id).collect::<HashSet<_>>().len() != self.slots.len() {
            return Err(KeyError::damaged("two slots have the same number"));
        }
        if self.epoch == 0 || self.epoch > Epoch::LAST.0 {
            return Err(KeyError::damaged(format!("its key epoch is {}", self.epoch)));
        }
        if usize::try_from(self.block_bytes) != Ok(BLOCK_BYTES) {
            return Err(KeyError::damaged(format!("its blocks have {} bytes", self.block_bytes)));
        }
        self.check_epochs()?;
        self.slots.iter().try_for_each(Slot::check)
    }
}

impl Slot {
    /// The cost of its passphrases, if it takes any.
    pub(super) fn params(&self) -> Result<Option<ScryptParams>, KeyError> {
        self.kdf.as_ref().map(Kdf::params).transpose()
    }

    fn check(&self) -> Result<(), KeyError> {
        let damaged = |what: &str| Err(KeyError::damaged(format!("slot {}: {what}", self.id)));
        self.params()?;
        if self.factors.is_empty() || self.factors.len() > FACTORS_MAX {
            return damaged("its number of factors");
        }
        if self.kdf.is_some() != self.factors.contains(&FactorName::Passphrase) {
            return damaged("parameters and factors do not belong together");
        }
        if self.wrapped_admin_key.is_some() != (self.role == Role::Admin) {
            return damaged("role and keys do not belong together");
        }
        if !is_label(&self.label) {
            return damaged("its label");
        }
        Ok(())
    }
}

/// Whether `text` may be the label of a slot.
pub(super) fn is_label(text: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn newer(found: String) -> KeyError {
    KeyError::NewerFormat { found, supported: format!("format version {FORMAT_VERSION}") }
}
