//! Keys of metadata records: a letter, then big-endian integers, so that bytes sort as values do.

use crate::base::{BLOCK_LEN, FILE_BYTES_MAX, Ino, PAGE_BLOCKS, SegmentId, Tag};

/// The last block that a file can have.
const LAST_BLOCK: u64 = FILE_BYTES_MAX / BLOCK_LEN;

/// The key of a record. Variants stand in the order of their letters, so that keys compare as
/// their encodings do. (`docs/FORMAT.md`, "Metadata records")
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `A`: the newest rollback that an admin has accepted.
    Acceptance,
    /// `B`: the bytes of one block of a file, kept as a record.
    Inline(Ino, u64),
    /// `C`: a commit.
    Commit(u64),
    /// `D`: an entry of a directory.
    Entry(Ino, Tag),
    /// `E`: the extents of one page of a file.
    Extents(Ino, u64),
    /// `G`: a segment without live bytes that is to be deleted.
    Garbage(SegmentId),
    /// `H`: the hashes of many old commits in one record, by the number of the first.
    History(u64),
    /// `I`: an inode.
    Inode(Ino),
    /// `L`: a segment of which no other record knows, found by listing the bucket.
    Leftover(SegmentId),
    /// `M`: how many commits a machine has made, by its id for the volume.
    Machine([u8; 16]),
    /// `O`: an inode without names that is still in use.
    Orphan(Ino),
    /// `R`: a page of a file shares blocks of a segment that the segment's footer may not tell.
    Reference(SegmentId, Ino, u64),
    /// `S`: a segment.
    Segment(SegmentId),
    /// `V`: the superblock.
    Super,
    /// `W`: a log of the records that was lost, and that an admin has given up.
    LostLog(u64),
    /// `X`: an extended attribute.
    Xattr(Ino, Tag),
}

impl Key {
    /// The key's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(33);
        match self {
            Self::Acceptance => put(&mut bytes, b'A', &[]),
            Self::Inline(ino, block) => put(&mut bytes, b'B', &[&be(ino.0), &be(*block)]),
            Self::Commit(number) => put(&mut bytes, b'C', &[&be(*number)]),
            Self::Entry(dir, tag) => put(&mut bytes, b'D', &[&be(dir.0), &tag.0]),
            Self::Extents(ino, page) => put(&mut bytes, b'E', &[&be(ino.0), &be(*page)]),
            Self::Garbage(id) => put(&mut bytes, b'G', &[&id.0]),
            Self::History(first) => put(&mut bytes, b'H', &[&be(*first)]),
            Self::Inode(ino) => put(&mut bytes, b'I', &[&be(ino.0)]),
            Self::Leftover(id) => put(&mut bytes, b'L', &[&id.0]),
            Self::Machine(device) => put(&mut bytes, b'M', &[device]),
            Self::Orphan(ino) => put(&mut bytes, b'O', &[&be(ino.0)]),
            Self::Reference(id, ino, page) => put(&mut bytes, b'R', &[&id.0, &be(ino.0), &be(*page)]),
            Self::Segment(id) => put(&mut bytes, b'S', &[&id.0]),
            Self::Super => put(&mut bytes, b'V', &[]),
            Self::LostLog(number) => put(&mut bytes, b'W', &[&be(*number)]),
            Self::Xattr(ino, tag) => put(&mut bytes, b'X', &[&be(ino.0), &tag.0]),
        }
        bytes
    }

    /// Reads a key; `None` for bytes that are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (letter, rest) = bytes.split_first()?;
        match letter {
            b'A' => rest.is_empty().then_some(Self::Acceptance),
            b'B' => ino_and_block(rest, 1).map(|(ino, block)| Self::Inline(ino, block)),
            b'C' => number(rest).map(Self::Commit),
            b'D' => ino_and_tag(rest).map(|(ino, tag)| Self::Entry(ino, tag)),
            b'E' => ino_and_block(rest, PAGE_BLOCKS).map(|(ino, page)| Self::Extents(ino, page)),
            b'G' => Some(Self::Garbage(SegmentId(rest.try_into().ok()?))),
            b'H' => number(rest).map(Self::History),
            b'I' => number(rest).map(|ino| Self::Inode(Ino(ino))),
            b'L' => Some(Self::Leftover(SegmentId(rest.try_into().ok()?))),
            b'M' => Some(Self::Machine(rest.try_into().ok()?)),
            b'O' => number(rest).map(|ino| Self::Orphan(Ino(ino))),
            b'R' => {
                let (id, rest) = rest.split_at_checked(16)?;
                let (ino, page) = ino_and_block(rest, PAGE_BLOCKS)?;
                Some(Self::Reference(SegmentId(id.try_into().ok()?), ino, page))
            }
            b'S' => Some(Self::Segment(SegmentId(rest.try_into().ok()?))),
            b'V' => rest.is_empty().then_some(Self::Super),
            b'W' => number(rest).map(Self::LostLog),
            b'X' => ino_and_tag(rest).map(|(ino, tag)| Self::Xattr(ino, tag)),
            _ => None,
        }
    }
}

const fn be(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn put(bytes: &mut Vec<u8>, letter: u8, parts: &[&[u8]]) {
    bytes.push(letter);
    for part in parts {
        bytes.extend_from_slice(part);
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// An inode and one of the parts, each of `blocks` blocks, that a file can have.
fn ino_and_block(bytes: &[u8], blocks: u64) -> Option<(Ino, u64)> {
    let (ino, rest) = bytes.split_at_checked(8)?;
    let part = number(rest).filter(|part| *part <= LAST_BLOCK / blocks)?;
    Some((Ino(number(ino)?), part))
}

fn ino_and_tag(bytes: &[u8]) -> Option<(Ino, Tag)> {
    let (ino, rest) = bytes.split_at_checked(8)?;
    Some((Ino(number(ino)?), Tag(rest.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = Key> {
        let ino = any::<u64>().prop_map(Ino);
        let tag = any::<[u8; 16]>().prop_map(Tag);
        let id = any::<[u8; 16]>().prop_map(SegmentId);
        let page = 0..=LAST_BLOCK / PAGE_BLOCKS;
        prop_oneof![
            (ino.clone(), 0..=LAST_BLOCK).prop_map(|(i, b)| Key::Inline(i, b)),
            any::<u64>().prop_map(Key::Commit),
            (ino.clone(), tag.clone()).prop_map(|(i, t)| Key::Entry(i, t)),
            (ino.clone(), page.clone()).prop_map(|(i, p)| Key::Extents(i, p)),
            id.clone().prop_map(Key::Garbage),
            any::<u64>().prop_map(Key::History),
            ino.clone().prop_map(Key::Inode),
            id.clone().prop_map(Key::Leftover),
            any::<[u8; 16]>().prop_map(Key::Machine),
            ino.clone().prop_map(Key::Orphan),
            (id.clone(), ino.clone(), page).prop_map(|(s, i, p)| Key::Reference(s, i, p)),
            id.prop_map(Key::Segment),
            Just(Key::Acceptance),
            Just(Key::Super),
            any::<u64>().prop_map(Key::LostLog),
            (ino, tag).prop_map(|(i, t)| Key::Xattr(i, t)),
        ]
    }

    proptest! {
        #[test]
        fn keys_sort_as_their_bytes_do_and_read_back(a in any_key(), b in any_key()) {
            prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
            prop_assert_eq!(Key::decode(&a.encode()), Some(a));
        }

        #[test]
        fn parts_that_no_file_can_have_are_no_keys(ino: u64, block in LAST_BLOCK + 1.., page in LAST_BLOCK / PAGE_BLOCKS + 1..) {
            let (ino, id) = (Ino(ino), SegmentId([7; 16]));
            for key in [Key::Inline(ino, block), Key::Extents(ino, page), Key::Reference(id, ino, page)] {
                prop_assert_eq!(Key::decode(&key.encode()), None);
            }
        }

        #[test]
        fn d11_no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(key) = Key::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }
    }
}
