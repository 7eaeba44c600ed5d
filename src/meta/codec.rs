//! Records to bytes and back: a version byte and a bincode 2 body.

use std::sync::Arc;

use bincode::config::{Configuration, Limit, standard};
use bytes::Bytes;

use super::{Body, Garbage, Inode, Key, MetaError, Page, Record};
use crate::base::{FILE_BYTES_MAX, PAGE_BLOCKS};

/// The version of records.
const VERSION: u8 = 1;
/// Largest record: an extended attribute's 64 KiB, or a block, with room for the rest.
const RECORD_BYTES_MAX: usize = 128 * 1024;

type Config = Configuration<bincode::config::LittleEndian, bincode::config::Varint, Limit<RECORD_BYTES_MAX>>;

const fn config() -> Config {
    standard().with_limit::<RECORD_BYTES_MAX>()
}

/// The bytes of `record`.
///
/// # Errors
/// A record larger than the format allows.
pub fn encode(record: &Record) -> Result<Vec<u8>, MetaError> {
    match record {
        Record::Inline(bytes) => {
            let mut out = Vec::with_capacity(1 + bytes.len());
            out.push(VERSION);
            out.extend_from_slice(bytes);
            Ok(out)
        }
        Record::Acceptance(acceptance) => body(acceptance.as_ref()),
        Record::Commit(commit) => body(commit.as_ref()),
        Record::Entry(entry) => body(entry.as_ref()),
        Record::Extents(page) => body(page.as_ref()),
        Record::Garbage(garbage) => body(garbage),
        Record::History(history) => body(history.as_ref()),
        Record::Inode(inode) => body(inode.as_ref()),
        Record::Leftover(leftover) => body(leftover),
        Record::Machine(machine) => body(machine),
        Record::LostLog | Record::Orphan | Record::Reference => Ok(vec![VERSION]),
        Record::Segment(segment) => body(segment),
        Record::Super(superblock) => body(superblock.as_ref()),
        Record::Xattr(xattr) => body(xattr.as_ref()),
    }
}

fn body<T: bincode::Encode>(value: &T) -> Result<Vec<u8>, MetaError> {
    let mut bytes = Vec::with_capacity(96);
    bytes.push(VERSION);
    bincode::encode_into_std_write(value, &mut bytes, config())
        .map_err(|error| MetaError::Encode(error.to_string()))?;
    Ok(bytes)
}

/// Reads the record under `key`.
///
/// # Errors
/// [`MetaError::Record`] for bytes that are not exactly one record of this format.
pub fn decode(key: &Key, bytes: &Bytes) -> Result<Record, MetaError> {
    let wrong = |why: &str| MetaError::Record { key: *key, why: why.to_owned() };
    match bytes.first() {
        Some(&VERSION) => {}
        Some(_) => return Err(wrong("its version is newer than this program")),
        None => return Err(wrong("it is empty")),
    }
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(wrong("it is longer than any record"));
    }
    let body = bytes.slice(1..);
    Ok(match key {
        Key::Inline(..) => Record::Inline(body),
        Key::Acceptance => Record::Acceptance(Arc::new(parse(key, &body)?)),
        Key::Commit(_) => Record::Commit(Arc::new(parse(key, &body)?)),
        Key::Entry(..) => Record::Entry(Arc::new(parse(key, &body)?)),
        Key::Extents(..) => {
            let page: Page = parse(key, &body)?;
            page.runs.validate(PAGE_BLOCKS as u32).map_err(|error| wrong(error.why))?;
            Record::Extents(Arc::new(page))
        }
        // The first writers of this format did not note the birth.
        Key::Garbage(_) => Record::Garbage(match parse(key, &body) {
            Ok(garbage) => garbage,
            Err(_) => Garbage { died: parse(key, &body)?, born: 0 },
        }),
        Key::History(_) => Record::History(Arc::new(parse(key, &body)?)),
        Key::Inode(_) => {
            let inode: Inode = parse(key, &body)?;
            if inode.size > FILE_BYTES_MAX {
                return Err(wrong("it is larger than any file"));
            }
            if let Body::Run(run) = &inode.body {
                run.validate(PAGE_BLOCKS as u32).map_err(|error| wrong(error.why))?;
            }
            Record::Inode(Arc::new(inode))
        }
        Key::Leftover(_) => Record::Leftover(parse(key, &body)?),
        Key::Machine(_) => Record::Machine(parse(key, &body)?),
        Key::LostLog(_) if body.is_empty() => Record::LostLog,
        Key::Orphan(_) if body.is_empty() => Record::Orphan,
        Key::Reference(..) if body.is_empty() => Record::Reference,
        Key::LostLog(_) | Key::Orphan(_) | Key::Reference(..) => return Err(wrong("it has a body")),
        Key::Segment(_) => Record::Segment(parse(key, &body)?),
        Key::Super => Record::Super(Arc::new(parse(key, &body)?)),
        Key::Xattr(..) => Record::Xattr(Arc::new(parse(key, &body)?)),
    })
}

fn parse<T: bincode::Decode<()>>(key: &Key, bytes: &[u8]) -> Result<T, MetaError> {
    let (value, read) = bincode::decode_from_slice(bytes, config())
        .map_err(|error| MetaError::Record { key: *key, why: error.to_string() })?;
    if read != bytes.len() {
        return Err(MetaError::Record { key: *key, why: "bytes follow its end".to_owned() });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Commit, DeviceRun, History};
    use super::*;
    use crate::base::{Ino, SegmentId, Tag};
    use crate::meta::{Entry, Superblock};

    #[test]
    fn records_read_back() {
        let entry = Entry::new(vec![7; 255], Ino(u64::MAX), crate::base::FileKind::Socket);
        let entry = Record::Entry(Arc::new(entry));
        let key = Key::Entry(Ino(9), Tag([3; 16]));
        let bytes = Bytes::from(encode(&entry).unwrap());
        assert_eq!(decode(&key, &bytes).unwrap(), entry);

        let block = Record::Inline(Bytes::from(vec![5; 65536]));
        let bytes = Bytes::from(encode(&block).unwrap());
        assert_eq!(decode(&Key::Inline(Ino(1), 0), &bytes).unwrap(), block);
    }

    #[test]
    fn a_record_with_a_tail_or_a_newer_version_is_refused() {
        let record = Record::Super(Arc::new(Superblock::default()));
        let good = encode(&record).unwrap();
        let mut tail = good.clone();
        tail.push(0);
        assert!(decode(&Key::Super, &Bytes::from(tail)).is_err());
        let mut newer = good;
        newer[0] = VERSION + 1;
        assert!(decode(&Key::Super, &Bytes::from(newer)).is_err());
        assert!(decode(&Key::Super, &Bytes::new()).is_err());
        let garbage = encode(&Record::Garbage(Garbage { died: 3, born: 1 })).unwrap();
        assert!(decode(&Key::Orphan(Ino(1)), &Bytes::from(garbage)).is_err());
    }

    #[test]
    fn garbage_without_a_birth_is_still_read() {
        let key = Key::Garbage(SegmentId([1; 16]));
        for (bytes, garbage) in [
            (&[VERSION, 7][..], Garbage { died: 7, born: 0 }),
            (&[VERSION, 7, 3], Garbage { died: 7, born: 3 }),
        ] {
            assert_eq!(decode(&key, &Bytes::copy_from_slice(bytes)).unwrap(), Record::Garbage(garbage));
        }
        assert!(decode(&key, &Bytes::from_static(&[VERSION])).is_err());
        assert!(decode(&key, &Bytes::from_static(&[VERSION, 7, 3, 1])).is_err());
    }

    /// A file of `size` bytes, with times of this century.
    fn inode(size: u64, body: Body) -> Vec<u8> {
        let now = crate::base::Time { secs: 1_800_000_000, nanos: 123_456_789 };
        let inode = Inode {
            kind: crate::base::FileKind::Regular,
            perm: 0o644,
            uid: 0,
            gid: 250,
            nlink: 1,
            rdev: 0,
            size,
            allocated: size,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            parent: Ino(0),
            entries: 0,
            xattrs: 0,
            body,
        };
        encode(&Record::Inode(Arc::new(inode))).unwrap()
    }

    /// Found by fuzzing: a check computed with such a size beyond 2^64.
    #[test]
    fn an_inode_larger_than_any_file_is_refused() {
        let of_size = |size| decode(&Key::Inode(Ino(7)), &Bytes::from(inode(size, Body::Empty)));
        assert!(of_size(FILE_BYTES_MAX).is_ok());
        for size in [FILE_BYTES_MAX + 1, u64::MAX - 1, u64::MAX] {
            assert!(of_size(size).is_err(), "{size}");
        }
    }

    /// `docs/FORMAT.md`, "Worked sizes".
    #[test]
    fn inodes_have_the_sizes_that_the_format_tells() {
        let sized = |size, body| inode(size, body).len();
        let run =
            |full, rest| crate::base::Run { first: 0, segment: SegmentId([1; 16]), pos: 64, full, rest };
        let last = crate::base::Piece { plain: 4464, stored: 4464, codec: crate::base::Codec::Raw };
        assert_eq!(sized(6, Body::Inline), 55);
        assert_eq!(sized(4 * 65_536, Body::Run(run(4, Vec::new()))), 83);
        assert_eq!(sized(70_000, Body::Run(run(1, vec![last]))), 90);
    }

    #[test]
    fn commits_and_histories_read_back() {
        let time = crate::base::Time { secs: 5, nanos: 6 };
        for counter in [0, 1, u64::MAX] {
            let (device, session) = ([2; 16], [3; 16]);
            let commit = Commit { hash: [1; 32], device, session, counter, time };
            let commit = Record::Commit(Arc::new(commit));
            let bytes = Bytes::from(encode(&commit).unwrap());
            assert_eq!(decode(&Key::Commit(1), &bytes).unwrap(), commit);
            let devices = vec![DeviceRun { device, session, count: 2, counter }];
            let history = History { before: [0; 32], devices, times: vec![(5, 6), (0, 7)] };
            let history = Record::History(Arc::new(history));
            let bytes = Bytes::from(encode(&history).unwrap());
            assert_eq!(decode(&Key::History(1), &bytes).unwrap(), history);
        }
    }

    proptest! {
        #[test]
        fn d11_no_bytes_make_the_decoder_panic(
            letter in 0usize..16,
            mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let keys = [
                Key::Inline(Ino(1), 0), Key::Commit(1), Key::Entry(Ino(1), Tag([0; 16])), Key::Extents(Ino(1), 0),
                Key::Garbage(SegmentId([0; 16])), Key::Inode(Ino(1)), Key::Orphan(Ino(1)),
                Key::Segment(SegmentId([0; 16])), Key::Super, Key::Xattr(Ino(1), Tag([0; 16])),
                Key::History(1), Key::Leftover(SegmentId([0; 16])), Key::Reference(SegmentId([0; 16]), Ino(1), 0),
                Key::Acceptance, Key::Machine([1; 16]), Key::LostLog(1),
            ];
            let _ = decode(&keys[letter], &Bytes::from(bytes));
        }
    }
}
