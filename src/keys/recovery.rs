//! The recovery code: 160 random bits that a person can write down and type again.

use std::fmt;

use zeroize::Zeroizing;

use super::Factor;
use crate::base::Entropy;
use crate::crypto::{Key, Secret, recovery_checksum};

/// Crockford's alphabet: no I, L, O or U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 32 characters of code and 4 of checksum.
const CHARACTERS: usize = 36;
const GROUP: usize = 4;
const CHECKSUM_BITS: u32 = 20;

/// How a recovery code was mistyped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryCodeError {
    /// Characters are missing or too many.
    #[error("it has {found} letters and digits instead of {CHARACTERS}")]
    Length {
        /// Letters and digits found.
        found: usize,
    },
    /// A character that no code has. Its position counts letters and digits from 1.
    #[error("character {position} is neither a letter nor a digit")]
    Character {
        /// Where it stands.
        position: usize,
    },
    /// All characters are possible, but not together.
    #[error("its checksum does not match: look for a wrong or swapped character")]
    Checksum,
}

/// A recovery code. Wiped when dropped; shown only by [`RecoveryCode::reveal`].
pub struct RecoveryCode(Key<20>);

impl RecoveryCode {
    /// Draws a new code.
    pub fn random(entropy: &dyn Entropy) -> Self {
        Self(Key::random(entropy))
    }

    /// Reads a code as it was typed: any case, spaces and dashes anywhere, O for 0, I and L for 1, U for V.
    ///
    /// # Errors
    /// Says how it was mistyped.
    pub fn parse(typed: &[u8]) -> Result<Self, RecoveryCodeError> {
        let mut digits = Zeroizing::new(Vec::with_capacity(CHARACTERS));
        let mut found = 0;
        for &byte in typed.iter().filter(|byte| !byte.is_ascii_whitespace() && **byte != b'-') {
            found += 1;
            let digit = digit(byte).ok_or(RecoveryCodeError::Character { position: found })?;
            if found <= CHARACTERS {
                digits.push(digit);
            }
        }
        if found != CHARACTERS {
            return Err(RecoveryCodeError::Length { found });
        }
        let (code, checksum) = digits.split_at(CHARACTERS - 4);
        let mut bytes = Zeroizing::new([0; 20]);
        for (bytes, digits) in bytes.chunks_exact_mut(5).zip(code.chunks_exact(8)) {
            let bits = digits.iter().fold(0, |bits, &digit| bits << 5 | u64::from(digit));
            let [_, _, _, five @ ..] = bits.to_be_bytes();
            bytes.copy_from_slice(&five);
        }
        let checksum = checksum.iter().fold(0, |bits, &digit| bits << 5 | u32::from(digit));
        if checksum != recovery_checksum(&bytes) {
            return Err(RecoveryCodeError::Checksum);
        }
        Ok(Self(Key::take(&mut bytes)))
    }

    /// The code in nine groups of four characters, to be shown to its owner once.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(CHARACTERS + CHARACTERS / GROUP));
        let mut push = |bits: u64, count: u32| {
            for at in (0..count).rev() {
                if text.len() % (GROUP + 1) == GROUP {
                    text.push('-');
                }
                let digit = usize::from((bits >> (5 * at)) as u8 & 31);
                text.push(char::from(ALPHABET.get(digit).copied().unwrap_or_default()));
            }
        };
        for five in self.0.expose().chunks_exact(5) {
            push(five.iter().fold(0, |bits, &byte| bits << 8 | u64::from(byte)), 8);
        }
        push(u64::from(recovery_checksum(self.0.expose())), CHECKSUM_BITS / 5);
        text
    }

    /// The code as a factor.
    #[must_use]
    pub fn factor(&self) -> Factor {
        Factor::RecoveryCode(Secret::copy_of(self.reveal().as_bytes()))
    }

    /// The code's 20 bytes.
    pub(super) fn into_secret(self) -> Secret {
        Secret::copy_of(self.0.expose())
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(..)")
    }
}

fn digit(byte: u8) -> Option<u8> {
    let upper = match byte.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        b'U' => b'V',
        other => other,
    };
    ALPHABET.iter().position(|&letter| letter == upper).and_then(|at| u8::try_from(at).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::SeededEntropy;

    #[test]
    fn a_code_is_nine_groups_of_four_and_reads_back() {
        let code = RecoveryCode::random(&SeededEntropy::new(1));
        let text = code.reveal();
        assert_eq!(text.len(), 44);
        assert!(text.split('-').all(|group| group.len() == 4) && text.split('-').count() == 9);
        assert_eq!(RecoveryCode::parse(text.as_bytes()).unwrap().0.expose(), code.0.expose());
    }

    #[test]
    fn case_spaces_dashes_and_confusable_letters_do_not_matter() {
        let code = RecoveryCode(Key::from_bytes([0x08; 20]));
        let text = code.reveal();
        assert!(text.contains('0') && text.contains('1'));
        let sloppy = text.to_lowercase().replace('-', "  ").replace('0', "o").replace('1', "l");
        assert_eq!(RecoveryCode::parse(sloppy.as_bytes()).unwrap().0.expose(), code.0.expose());
        let sloppy = text.replace('-', "\n-").replace('1', "I").replace('V', "u");
        assert_eq!(RecoveryCode::parse(sloppy.as_bytes()).unwrap().0.expose(), code.0.expose());
    }

    #[test]
    fn every_single_mistyped_or_swapped_character_is_noticed() {
        let text = RecoveryCode::random(&SeededEntropy::new(2)).reveal().replace('-', "").into_bytes();
        for at in 0..text.len() {
            for &letter in ALPHABET.iter().filter(|&&letter| letter != text[at]) {
                let mut typed = text.clone();
                typed[at] = letter;
                assert_eq!(RecoveryCode::parse(&typed).unwrap_err(), RecoveryCodeError::Checksum);
            }
            let mut typed = text.clone();
            typed.swap(at, (at + 1) % text.len());
            if typed != text {
                assert_eq!(RecoveryCode::parse(&typed).unwrap_err(), RecoveryCodeError::Checksum);
            }
        }
    }

    #[test]
    fn a_cut_or_foreign_text_is_told_apart() {
        assert_eq!(RecoveryCode::parse(b"").unwrap_err(), RecoveryCodeError::Length { found: 0 });
        assert_eq!(RecoveryCode::parse(b"0123-45").unwrap_err(), RecoveryCodeError::Length { found: 6 });
        assert_eq!(RecoveryCode::parse(&[b'0'; 99]).unwrap_err(), RecoveryCodeError::Length { found: 99 });
        assert_eq!(RecoveryCode::parse(b"01-2?").unwrap_err(), RecoveryCodeError::Character { position: 4 });
    }

    proptest! {
        #[test]
        fn any_code_reads_back_and_any_bytes_are_answered(code: [u8; 20], bytes: Vec<u8>) {
            let code = RecoveryCode(Key::from_bytes(code));
            let parsed = RecoveryCode::parse(code.reveal().as_bytes()).unwrap();
            prop_assert_eq!(parsed.0.expose(), code.0.expose());
            let _ = RecoveryCode::parse(&bytes);
        }
    }
}
