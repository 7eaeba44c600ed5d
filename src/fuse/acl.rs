//! POSIX access control lists in the form the kernel stores them in `system.posix_acl_*` (xattr(7), acl(5)).
//!
//! With `FUSE_POSIX_ACL` the kernel enforces a list, but keeping the mode in step with it and handing a directory's
//! default list down to what is made in it is the filesystem's work.

/// Extended attribute of the list that rules access.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// Extended attribute of the list that new entries of a directory begin with.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// As many entries as fit into the 64 KiB an extended attribute may have.
const ENTRIES_MAX: usize = (65536 - HEADER_BYTES) / ENTRY_BYTES;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// One list, with exactly one entry each for owner, owning group and others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Entry>);

impl Acl {
    /// Reads the kernel's form; `None` for anything that is not a list.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let (entries, rest) = body.as_chunks::<ENTRY_BYTES>();
        if u32::from_le_bytes(*header) != VERSION || !rest.is_empty() || entries.len() > ENTRIES_MAX {
            return None;
        }
        let entries: Vec<Entry> = entries
            .iter()
            .map(|&[t0, t1, p0, p1, i0, i1, i2, i3]| Entry {
                tag: u16::from_le_bytes([t0, t1]),
                perm: u16::from_le_bytes([p0, p1]),
                id: u32::from_le_bytes([i0, i1, i2, i3]),
            })
            .collect();
        let count = |tag| entries.iter().filter(|e| e.tag == tag).count();
        let known =
            |e: &Entry| matches!(e.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER) && e.perm <= 7;
        let named = count(USER) + count(GROUP) > 0;
        let whole = count(USER_OBJ) == 1 && count(GROUP_OBJ) == 1 && count(OTHER) == 1;
        let masked = count(MASK) == 1 || (count(MASK) == 0 && !named);
        (entries.iter().all(known) && whole && masked).then_some(Self(entries))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.perm.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    /// The nine permission bits that stand for this list in a mode: the group's are the mask's, where it has one.
    pub(super) fn mode(&self) -> u16 {
        self.0.iter().fold(0, |mode, entry| match self.shift(entry.tag) {
            Some(shift) => mode | (entry.perm << shift),
            None => mode,
        })
    }

    /// Whether the mode alone says everything the list says, so that the list need not be stored.
    pub(super) fn is_only_a_mode(&self) -> bool {
        self.0.iter().all(|entry| matches!(entry.tag, USER_OBJ | GROUP_OBJ | OTHER))
    }

    /// The list after a `chmod` to `mode`.
    pub(super) fn after_chmod(mut self, mode: u16) -> Self {
        let shifts: Vec<Option<u16>> = self.0.iter().map(|entry| self.shift(entry.tag)).collect();
        for (entry, shift) in self.0.iter_mut().zip(shifts) {
            if let Some(shift) = shift {
                entry.perm = (mode >> shift) & 7;
            }
        }
        self
    }

    /// For a default list: the access list of a new entry that was asked to have `mode`. No umask applies.
    pub(super) fn for_new_entry(mut self, mode: u16) -> Self {
        let shifts: Vec<Option<u16>> = self.0.iter().map(|entry| self.shift(entry.tag)).collect();
        for (entry, shift) in self.0.iter_mut().zip(shifts) {
            if let Some(shift) = shift {
                entry.perm &= (mode >> shift) & 7;
            }
        }
        self
    }

    /// Where in a mode the bits of a tag's entry are; `None` for an entry that no mode can express.
    fn shift(&self, tag: u16) -> Option<u16> {
        let masked = self.0.iter().any(|entry| entry.tag == MASK);
        match tag {
            USER_OBJ => Some(6),
            MASK => Some(3),
            GROUP_OBJ if !masked => Some(3),
            OTHER => Some(0),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl(entries.iter().map(|&(tag, perm, id)| Entry { tag, perm, id }).collect())
    }

    const NOBODY: u32 = u32::MAX;

    fn with_user() -> Acl {
        acl(&[
            (USER_OBJ, 7, NOBODY),
            (USER, 6, 1000),
            (GROUP_OBJ, 0, NOBODY),
            (MASK, 7, NOBODY),
            (OTHER, 5, NOBODY),
        ])
    }

    #[test]
    fn a_list_reads_back_from_the_kernels_form() {
        let bytes = with_user().encode();
        assert_eq!(&bytes[..12], [2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255]);
        assert_eq!(Acl::parse(&bytes), Some(with_user()));
    }

    #[test]
    fn what_is_not_a_list_is_refused_and_never_panics() {
        let bytes = with_user().encode();
        for cut in 0..bytes.len() {
            assert_eq!(Acl::parse(&bytes[..cut]), None, "cut at {cut}");
        }
        let mut version = bytes.clone();
        version[0] = 1;
        assert_eq!(Acl::parse(&version), None);
        let unmasked = acl(&[(USER_OBJ, 7, 0), (USER, 6, 1), (GROUP_OBJ, 5, 0), (OTHER, 5, 0)]);
        assert_eq!(Acl::parse(&unmasked.encode()), None);
        let twice = acl(&[(USER_OBJ, 7, 0), (USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (OTHER, 5, 0)]);
        assert_eq!(Acl::parse(&twice.encode()), None);
        let wide = acl(&[(USER_OBJ, 8, 0), (GROUP_OBJ, 5, 0), (OTHER, 5, 0)]);
        assert_eq!(Acl::parse(&wide.encode()), None);
    }

    #[test]
    fn the_group_bits_of_a_mode_are_the_mask() {
        assert_eq!(with_user().mode(), 0o775);
        assert!(!with_user().is_only_a_mode());
        let plain = acl(&[(USER_OBJ, 6, 0), (GROUP_OBJ, 4, 0), (OTHER, 0, 0)]);
        assert_eq!(plain.mode(), 0o640);
        assert!(plain.is_only_a_mode());
    }

    #[test]
    fn chmod_moves_the_mask_and_leaves_named_entries() {
        let after = with_user().after_chmod(0o640);
        assert_eq!(
            after,
            acl(&[
                (USER_OBJ, 6, NOBODY),
                (USER, 6, 1000),
                (GROUP_OBJ, 0, NOBODY),
                (MASK, 4, NOBODY),
                (OTHER, 0, NOBODY)
            ])
        );
        assert_eq!(after.mode(), 0o640);
    }

    #[test]
    fn a_new_entry_gets_no_more_than_it_was_asked_to_have() {
        let born = with_user().for_new_entry(0o640);
        assert_eq!(born.mode(), 0o640);
        let narrow = acl(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 1, 0), (OTHER, 0, 0)]);
        assert_eq!(narrow.for_new_entry(0o666).mode(), 0o600);
    }
}
