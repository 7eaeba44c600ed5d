//! What a machine remembers of a volume, in bytes. (`docs/FORMAT.md`, "Local state")

use crate::base::VolumeId;
use crate::crypto::{KeyRing, MacLabel};
use crate::keys::{Header, Identity};

/// Bytes of a pin.
pub(super) const PIN_BYTES: usize = 208;
const MAGIC: [u8; 8] = *b"COFFERP1";
const MAC_BYTES: usize = 32;
/// Magic, volume, commit and hash, device and counter come before it.
const REVISION_AT: usize = 8 + 16 + 8 + 32 + 16 + 8;

/// What was last seen of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    /// Number and hash of the newest commit.
    pub(super) commit: u64,
    pub(super) hash: [u8; 32],
    /// This machine's id for the volume, and how many commits it has made under it.
    pub(super) device: [u8; 16],
    pub(super) counter: u64,
    /// The newest header.
    pub(super) seen: HeaderSeen,
    /// The newest rollback known to have been accepted; 0 if none is.
    pub(super) accepted: u64,
}

/// What was seen of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeaderSeen {
    pub(super) identity: Identity,
    pub(super) revision: u64,
    /// `n · r · p` of the passphrase that is stretched least; 0 if no slot takes one.
    pub(super) weakest: u64,
}

impl HeaderSeen {
    pub(super) fn of(header: &Header) -> Self {
        let costs = header.slots.iter().filter_map(|slot| slot.kdf.as_ref());
        let costs = costs.map(|kdf| kdf.n.saturating_mul(kdf.r.into()).saturating_mul(kdf.p.into()));
        Self {
            identity: header.identity(),
            revision: header.revision,
            weakest: costs.min().unwrap_or_default(),
        }
    }
}

/// What is wrong with the bytes of a pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadPin {
    /// They are another volume's.
    Foreign(VolumeId),
    /// They are not what was written.
    Altered(&'static str),
}

impl Pin {
    /// Whether what `later` says is to take this one's place in part: the newer commit and the newer
    /// header of the two, and the higher counts.
    pub(super) fn merged_with(self, later: Self) -> Self {
        let (commit, hash) = match self.commit > later.commit {
            true => (self.commit, self.hash),
            false => (later.commit, later.hash),
        };
        let seen = if self.seen.revision > later.seen.revision { self.seen } else { later.seen };
        let counter = match self.device == later.device {
            true => self.counter.max(later.counter),
            false => later.counter,
        };
        Self { commit, hash, counter, seen, accepted: self.accepted.max(later.accepted), ..later }
    }

    /// The bytes of a pin.
    pub(super) fn encode(&self, ring: &KeyRing) -> Vec<u8> {
        let identity = &self.seen.identity;
        let mut bytes = [
            &MAGIC[..],
            &identity.volume.0,
            &self.commit.to_be_bytes(),
            &self.hash,
            &self.device,
            &self.counter.to_be_bytes(),
            &self.seen.revision.to_be_bytes(),
            &identity.admin_public_key,
            &identity.vmk_commitment,
            &self.seen.weakest.to_be_bytes(),
            &self.accepted.to_be_bytes(),
        ]
        .concat();
        let mac = ring.mac(MacLabel::Pin, &[&bytes]);
        bytes.extend_from_slice(&mac);
        bytes
    }

    /// The revision that the bytes of a pin claim, for whoever cannot check them.
    pub(super) fn claimed_revision(bytes: &[u8]) -> Option<u64> {
        let revision = bytes.get(REVISION_AT..)?.first_chunk::<8>().filter(|_| bytes.len() == PIN_BYTES)?;
        Some(u64::from_be_bytes(*revision))
    }

    /// Reads the bytes of a pin of the ring's volume.
    pub(super) fn decode(bytes: &[u8], ring: &KeyRing) -> Result<Self, BadPin> {
        let altered = |what| Err(BadPin::Altered(what));
        if bytes.len() != PIN_BYTES {
            return altered("its length");
        }
        let Some((covered, mac)) = bytes.split_at_checked(PIN_BYTES - MAC_BYTES) else {
            return altered("its length");
        };
        let mut rest = covered;
        if take::<8>(&mut rest) != MAGIC {
            return altered("its magic number");
        }
        let volume = VolumeId(take(&mut rest));
        if volume != ring.volume() {
            return Err(BadPin::Foreign(volume));
        }
        // It may have been made before the key was rotated.
        if !ring.verify_mac_of_any(MacLabel::Pin, &[covered], mac) {
            return altered("its MAC");
        }
        let number = |rest: &mut &[u8]| u64::from_be_bytes(take(rest));
        let (commit, hash, device) = (number(&mut rest), take(&mut rest), take(&mut rest));
        let (counter, revision) = (number(&mut rest), number(&mut rest));
        let identity =
            Identity { volume, admin_public_key: take(&mut rest), vmk_commitment: take(&mut rest) };
        let (weakest, accepted) = (number(&mut rest), number(&mut rest));
        let seen = HeaderSeen { identity, revision, weakest };
        Ok(Self { commit, hash, device, counter, seen, accepted })
    }
}

/// The next `N` bytes, which the length promises.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk::<N>() {
        Some((chunk, left)) => {
            *rest = left;
            *chunk
        }
        None => [0; N],
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::SeededEntropy;
    use crate::crypto::{Epoch, Key};

    pub(in super::super) const VOLUME: VolumeId = VolumeId([1; 16]);

    pub(in super::super) fn ring(volume: VolumeId, seed: u64) -> KeyRing {
        KeyRing::new(volume, Epoch::FIRST, &Key::random(&SeededEntropy::new(seed)))
    }

    pub(in super::super) fn pin(commit: u64) -> Pin {
        let identity = Identity { volume: VOLUME, admin_public_key: [4; 32], vmk_commitment: [5; 32] };
        let seen = HeaderSeen { identity, revision: 3, weakest: 1 << 20 };
        Pin { commit, hash: [commit as u8; 32], device: [7; 16], counter: commit / 2, seen, accepted: 0 }
    }

    #[test]
    fn a_pin_reads_back_and_every_altered_bit_of_it_is_refused() {
        let ring = ring(VOLUME, 1);
        let bytes = pin(7).encode(&ring);
        assert_eq!(bytes.len(), PIN_BYTES);
        assert_eq!(Pin::decode(&bytes, &ring), Ok(pin(7)));
        assert_eq!(Pin::claimed_revision(&bytes), Some(3));
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let is_volume = (8..24).contains(&(bit / 8));
            match Pin::decode(&altered, &ring) {
                Err(BadPin::Foreign(_)) => assert!(is_volume, "bit {bit}"),
                Err(BadPin::Altered(_)) => assert!(!is_volume, "bit {bit}"),
                Ok(_) => panic!("bit {bit}"),
            }
        }
        assert!(matches!(Pin::decode(&bytes[1..], &ring), Err(BadPin::Altered(_))));
    }

    #[test]
    fn a_pin_of_another_volume_is_foreign_and_one_under_another_key_is_altered() {
        let other = VolumeId([2; 16]);
        let bytes = pin(7).encode(&ring(VOLUME, 1));
        assert_eq!(Pin::decode(&bytes, &ring(other, 1)), Err(BadPin::Foreign(VOLUME)));
        assert!(matches!(Pin::decode(&bytes, &ring(VOLUME, 2)), Err(BadPin::Altered(_))));
    }

    #[test]
    fn a_pin_that_was_made_before_the_key_was_rotated_is_read_and_written_anew() {
        let (old, new) = (Key::random(&SeededEntropy::new(1)), Key::random(&SeededEntropy::new(2)));
        let bytes = pin(7).encode(&KeyRing::new(VOLUME, Epoch(1), &old));
        let after = KeyRing::new(VOLUME, Epoch(2), &new).with_earlier(&[(Epoch(1), old)], Epoch(2));
        assert_eq!(Pin::decode(&bytes, &after), Ok(pin(7)));
        assert_eq!(pin(7).encode(&after), pin(7).encode(&KeyRing::new(VOLUME, Epoch(2), &new)));
    }

    #[test]
    fn what_is_remembered_never_goes_back() {
        let (old, new) = (pin(6), pin(9));
        let newer_header = HeaderSeen { revision: 4, weakest: 1, ..old.seen };
        let old = Pin { seen: newer_header, accepted: 2, ..old };
        for merged in [old.merged_with(new), new.merged_with(old)] {
            assert_eq!((merged.commit, merged.hash, merged.counter), (9, new.hash, new.counter));
            assert_eq!((merged.seen, merged.accepted), (newer_header, 2));
        }
    }

    proptest! {
        #[test]
        fn d11_any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Pin::decode(&bytes, &ring(VOLUME, 1)).is_err());
        }
    }
}
