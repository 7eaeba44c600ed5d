//! What a person brings to open a slot: passphrase, key file, recovery code, or several in order.

use super::recovery::RecoveryCode;
use super::{FactorName, KeyError};
use crate::crypto::{FactorKind, FactorSecret, Secret, equal};

/// Largest key file.
pub const KEY_FILE_BYTES_MAX: usize = 1 << 20;
/// Most factors of one slot.
pub(super) const FACTORS_MAX: usize = 8;

/// One factor.
#[derive(Debug)]
pub enum Factor {
    /// A passphrase, its bytes as given: no encoding or normalisation is assumed.
    Passphrase(Secret),
    /// The contents of a file of 1 byte to 1 MiB.
    KeyFile(Secret),
    /// A recovery code as it was typed.
    RecoveryCode(Secret),
}

impl Factor {
    /// The factor's kind, as slots name it.
    #[must_use]
    pub const fn name(&self) -> FactorName {
        match self {
            Self::Passphrase(_) => FactorName::Passphrase,
            Self::KeyFile(_) => FactorName::KeyFile,
            Self::RecoveryCode(_) => FactorName::RecoveryCode,
        }
    }

    /// The same in new memory, see [`Secret::moved`].
    #[must_use]
    pub fn moved(self) -> Self {
        match self {
            Self::Passphrase(secret) => Self::Passphrase(secret.moved()),
            Self::KeyFile(secret) => Self::KeyFile(secret.moved()),
            Self::RecoveryCode(secret) => Self::RecoveryCode(secret.moved()),
        }
    }
}

/// Checked factors, ready to make slot keys of.
pub(super) struct Factors<'a>(Vec<Checked<'a>>);

enum Checked<'a> {
    Given(FactorKind, &'a Secret),
    Code(Secret),
}

impl Checked<'_> {
    const fn secret(&self) -> FactorSecret<'_> {
        match self {
            Self::Given(kind, secret) => (*kind, secret),
            Self::Code(secret) => (FactorKind::RecoveryCode, secret),
        }
    }
}

impl<'a> Factors<'a> {
    /// Checks what can be checked without a slot.
    pub(super) fn new(factors: &'a [Factor]) -> Result<Self, KeyError> {
        if factors.is_empty() || factors.len() > FACTORS_MAX {
            return Err(KeyError::FactorCount);
        }
        factors.iter().map(check).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn secrets(&self) -> Vec<FactorSecret<'_>> {
        self.0.iter().map(Checked::secret).collect()
    }
}

fn check(factor: &Factor) -> Result<Checked<'_>, KeyError> {
    match factor {
        Factor::Passphrase(secret) if secret.expose().is_empty() => {
            Err(KeyError::Empty { what: "passphrase" })
        }
        Factor::Passphrase(secret) => Ok(Checked::Given(FactorKind::Passphrase, secret)),
        Factor::KeyFile(secret) => match secret.expose().len() {
            0 => Err(KeyError::Empty { what: "key file" }),
            1..=KEY_FILE_BYTES_MAX => Ok(Checked::Given(FactorKind::KeyFile, secret)),
            bytes => Err(KeyError::KeyFileTooLarge { bytes }),
        },
        Factor::RecoveryCode(typed) => Ok(Checked::Code(RecoveryCode::parse(typed.expose())?.into_secret())),
    }
}

/// Whether two lists of factors open the same.
pub(super) fn is_same(some: &[Factor], others: &[Factor]) -> Result<bool, KeyError> {
    let (some, others) = (Factors::new(some)?, Factors::new(others)?);
    let (some, others) = (some.secrets(), others.secrets());
    let is_pair = |((kind, secret), (other_kind, other)): (&FactorSecret<'_>, &FactorSecret<'_>)| {
        kind == other_kind && equal(secret.expose(), other.expose())
    };
    Ok(some.len() == others.len() && some.iter().zip(&others).all(is_pair))
}

/// The kinds of `factors` in words.
pub(super) fn in_words(names: &[FactorName]) -> String {
    names.iter().map(|name| name.in_words()).collect::<Vec<_>>().join(" + ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(factors: &[Factor]) -> KeyError {
        Factors::new(factors).map(drop).unwrap_err()
    }

    #[test]
    fn empty_oversized_and_mistyped_factors_are_refused_before_any_slot_is_tried() {
        assert_eq!(refusal(&[]), KeyError::FactorCount);
        assert_eq!(refusal(&[Factor::Passphrase("".into())]), KeyError::Empty { what: "passphrase" });
        assert_eq!(refusal(&[Factor::KeyFile("".into())]), KeyError::Empty { what: "key file" });
        let bytes = KEY_FILE_BYTES_MAX + 1;
        let large = Factor::KeyFile(Secret::new(vec![0; bytes]));
        assert_eq!(refusal(&[large]), KeyError::KeyFileTooLarge { bytes });
        assert!(Factors::new(&[Factor::KeyFile(Secret::new(vec![0; KEY_FILE_BYTES_MAX]))]).is_ok());
        assert!(matches!(refusal(&[Factor::RecoveryCode("abc".into())]), KeyError::BadRecoveryCode(_)));
        let many: Vec<_> = (0..9).map(|_| Factor::Passphrase("x".into())).collect();
        assert_eq!(refusal(&many), KeyError::FactorCount);
    }
}
