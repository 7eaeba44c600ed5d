//! The frame around a header's body: magic and length before it, MAC and signature behind it.

use super::{Header, KeyError};
use crate::crypto::{AdminKey, Epoch, KeyRing, MacLabel, SIGNATURE_BYTES, verify_header};

/// Most bytes of a header object.
pub const HEADER_BYTES_MAX: usize = FRONT_BYTES + BODY_BYTES_MAX + MAC_BYTES + SIGNATURE_BYTES;

const MAGIC: [u8; 8] = *b"COFFERH1";
const FRONT_BYTES: usize = 12;
const BODY_BYTES_MAX: usize = 64 * 1024;
const MAC_BYTES: usize = 32;

/// A header object, taken apart. Its signature is checked, its MAC waits for the volume key.
pub(super) struct Frame<'a> {
    pub(super) header: Header,
    covered: &'a [u8],
    mac: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes a header object apart: bounds first, then the body, then the signature by the key it names.
    ///
    /// The signature tells damage from a wrong passphrase, but not a forged header from a true one: that the
    /// named key is the volume's own is shown by the slot, whose key is bound to it.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, KeyError> {
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(KeyError::NotAHeader)?;
        match magic {
            magic if *magic == MAGIC => {}
            [name @ .., version] if name[..] == MAGIC[..7] && version.is_ascii_alphanumeric() => {
                return Err(KeyError::NewerFormat {
                    found: format!("header version {}", char::from(*version)),
                    supported: "header version 1".to_owned(),
                });
            }
            _ => return Err(KeyError::NotAHeader),
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut_short)?;
        let length = u32::from_be_bytes(*length);
        let body_bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if body_bytes > BODY_BYTES_MAX || bytes.len() > HEADER_BYTES_MAX {
            return Err(KeyError::TooLarge { bytes: u64::from(length).max(bytes.len() as u64) });
        }
        let (body, rest) = rest.split_at_checked(body_bytes).ok_or_else(cut_short)?;
        let (mac, signature) = rest.split_at_checked(MAC_BYTES).ok_or_else(cut_short)?;
        if signature.len() != SIGNATURE_BYTES {
            return Err(KeyError::damaged("it is cut short or has bytes behind its end"));
        }
        let header = Header::from_json(body)?;
        let (signed, _) =
            bytes.split_at_checked(FRONT_BYTES + body_bytes + MAC_BYTES).ok_or_else(cut_short)?;
        if !verify_header(&header.admin_public_key.0, signed, signature) {
            return Err(KeyError::damaged("its signature does not match"));
        }
        header.check_succession()?;
        let (covered, _) = bytes.split_at_checked(FRONT_BYTES + body_bytes).ok_or_else(cut_short)?;
        Ok(Self { header, covered, mac })
    }

    /// Checks the MAC with the volume's own key of the header's epoch.
    pub(super) fn verify(&self, ring: &KeyRing) -> Result<(), KeyError> {
        if ring.verify_mac_of(Epoch(self.header.epoch), MacLabel::Header, &[self.covered], self.mac) {
            Ok(())
        } else {
            Err(KeyError::damaged("its MAC does not match"))
        }
    }
}

/// Makes a header object.
pub(super) fn write(header: &Header, ring: &KeyRing, admin: &AdminKey) -> Result<Vec<u8>, KeyError> {
    let body = header.to_json()?;
    let too_large = KeyError::TooLarge { bytes: body.len() as u64 };
    let length = u32::try_from(body.len()).map_err(|_| too_large.clone())?;
    if body.len() > BODY_BYTES_MAX {
        return Err(too_large);
    }
    let mut bytes = [&MAGIC[..], &length.to_be_bytes(), &body].concat();
    let mac = ring.mac(MacLabel::Header, &[&bytes]);
    bytes.extend_from_slice(&mac);
    let signature = admin.sign_header(&bytes);
    bytes.extend_from_slice(&signature);
    Ok(bytes)
}

fn cut_short() -> KeyError {
    KeyError::damaged("it is cut short")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{key_file, volume};
    use super::super::{describe, unlock};
    use super::*;
    use crate::crypto::KdfError;

    /// A header whose body is `body`, with nothing behind it that a key would make.
    fn framed(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&b"COFFERH1"[..], &length, body, &[0; 96]].concat()
    }

    /// The true header with a piece of its body replaced.
    fn edited(from: &str, to: &str) -> Vec<u8> {
        let (bytes, ..) = volume(1);
        let body = std::str::from_utf8(&bytes[12..bytes.len() - 96]).unwrap();
        assert!(body.contains(from), "{from} in {body}");
        framed(body.replacen(from, to, 1).as_bytes())
    }

    fn refusal(bytes: &[u8]) -> KeyError {
        unlock(bytes, &key_file("owner")).map(drop).unwrap_err()
    }

    #[test]
    fn a_person_can_read_a_header() {
        let (bytes, _, made, _) = volume(1);
        assert_eq!(&bytes[..8], b"COFFERH1");
        let body = std::str::from_utf8(&bytes[12..bytes.len() - 96]).unwrap();
        assert!(body.contains(&format!("\n  \"volume\": \"{}\",\n", made.volume)), "{body}");
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused_and_never_taken_for_a_wrong_key() {
        let (bytes, ..) = volume(1);
        for at in 0..bytes.len() {
            // Every bit of magic, length, MAC and signature; one bit of each byte of the body.
            let bits = if (12..bytes.len() - 96).contains(&at) { at % 8..at % 8 + 1 } else { 0..8 };
            for bit in bits {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                assert_ne!(refusal(&bytes), KeyError::WrongKey, "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_cut_or_lengthened_header_is_refused() {
        let (mut bytes, ..) = volume(1);
        for length in 0..bytes.len() {
            let error = refusal(&bytes[..length]);
            assert!(matches!(error, KeyError::NotAHeader | KeyError::Damaged { .. }), "{length}: {error}");
        }
        bytes.push(0);
        assert!(matches!(refusal(&bytes), KeyError::Damaged { .. }));
        assert_eq!(refusal(b"not a header at all"), KeyError::NotAHeader);
    }

    #[test]
    fn lengths_that_would_exhaust_memory_are_refused_at_once() {
        let claim = |length: u32| [&b"COFFERH1"[..], &length.to_be_bytes(), &[b' '; 200]].concat();
        assert_eq!(refusal(&claim(u32::MAX)), KeyError::TooLarge { bytes: u64::from(u32::MAX) });
        assert_eq!(refusal(&claim(65_537)), KeyError::TooLarge { bytes: 65_537 });
        let bytes = [&b"COFFERH1\0\0\0\x02{}"[..], &vec![0; 1 << 20]].concat();
        assert_eq!(refusal(&bytes), KeyError::TooLarge { bytes: (1 << 20) + 14 });
        let nested = "[".repeat(60_000);
        assert!(matches!(refusal(&framed(nested.as_bytes())), KeyError::Damaged { .. }));
        let nested = format!("{{\"format\": 1, \"slots\": {nested}");
        assert!(matches!(refusal(&framed(nested.as_bytes())), KeyError::Damaged { .. }));
    }

    #[test]
    fn ten_thousand_slots_are_refused_at_once() {
        let slots = "{},".repeat(10_000);
        let body = format!("{{\"format\": 1, \"features\": [], \"slots\": [{slots}{{}}]}}");
        assert!(matches!(refusal(&framed(body.as_bytes())), KeyError::Damaged { .. }));
    }

    #[test]
    fn a3_stretching_outside_of_the_window_is_refused_before_it_is_run() {
        let kdf = |n: u64, r: u64, p: u64| {
            let kdf = format!(
                "\"kdf\": {{\"algorithm\": \"scrypt\", \"n\": {n}, \"r\": {r}, \"p\": {p}}}, \"salt\""
            );
            refusal(&edited("\"salt\"", &kdf))
        };
        for (n, r, p, bad) in [
            (1 << 10, 8, 1, "N"),
            (1 << 40, 8, 1, "N"),
            (u64::MAX, 8, 1, "N"),
            (1 << 17, 1, 1, "r"),
            (1 << 17, 1 << 31, 1, "r"),
            (1 << 17, 8, 1 << 30, "p"),
        ] {
            match kdf(n, r, p) {
                KeyError::KdfOutOfRange(KdfError::OutOfRange { parameter, .. }) => assert_eq!(parameter, bad),
                other => panic!("{other}"),
            }
        }
        assert!(matches!(kdf(1 << 17, 1 << 40, 1), KeyError::Damaged { .. }));
        assert!(matches!(kdf(1 << 17, 8, 1), KeyError::Damaged { .. }), "a cost without a passphrase");
        let other = edited(
            "\"salt\"",
            "\"kdf\": {\"algorithm\": \"md5\", \"n\": 32768, \"r\": 8, \"p\": 1}, \"salt\"",
        );
        assert!(matches!(refusal(&other), KeyError::Damaged { .. }));
    }

    #[test]
    fn d5_a_newer_format_is_told_from_damage() {
        for (from, to, found) in [
            ("\"format\": 1", "\"format\": 2, \"new\": {}", "format version 2"),
            ("\"features\": []", "\"features\": [\"shares\"]", "the feature \"shares\""),
        ] {
            match refusal(&edited(from, to)) {
                KeyError::NewerFormat { found: got, supported } => {
                    assert_eq!((got.as_str(), supported.as_str()), (found, "format version 1"));
                }
                other => panic!("{other}"),
            }
        }
        let (mut bytes, ..) = volume(1);
        bytes[7] = b'2';
        assert!(matches!(refusal(&bytes), KeyError::NewerFormat { .. }));
        for (from, to) in [
            ("\"format\": 1", "\"format\": 0"),
            ("\"format\": 1", "\"format\": 1, \"unknown\": 1"),
            ("\"epoch\": 1", "\"epoch\": 0"),
            ("\"epoch\": 1", "\"epoch\": 65536"),
            ("\"block_bytes\": 65536", "\"block_bytes\": 4096"),
            ("\"id\": 1", "\"id\": 0"),
            ("\"label\": \"first\"", "\"label\": \"\""),
            ("\"label\": \"first\"", "\"label\": \"\\u0007\""),
            ("\"role\": \"admin\"", "\"role\": \"data\""),
            ("\"role\": \"admin\"", "\"role\": \"owner\""),
            ("\"salt\": \"", "\"salt\": \"00"),
        ] {
            assert!(matches!(refusal(&edited(from, to)), KeyError::Damaged { .. }), "{to}");
        }
    }

    proptest! {
        #[test]
        fn d11_any_bytes_are_answered(bytes: Vec<u8>, body: Vec<u8>, json in "[{}\\[\\]\":, a-z0-9]{0,200}") {
            for bytes in [&bytes, &framed(&body), &framed(json.as_bytes())] {
                prop_assert!(describe(bytes).is_err());
                prop_assert!(unlock(bytes, &key_file("owner")).is_err());
            }
        }

        #[test]
        fn d11_any_spoiled_header_is_answered(spoils in proptest::collection::vec((0..3000_usize, any::<u8>()), 1..4)) {
            let (mut bytes, ..) = volume(1);
            let whole = bytes.clone();
            for (at, byte) in spoils {
                if let Some(spoiled) = bytes.get_mut(at) {
                    *spoiled = byte;
                }
            }
            prop_assert_eq!(unlock(&bytes, &key_file("owner")).is_ok(), bytes == whole);
        }
    }
}
