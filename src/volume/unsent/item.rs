//! What stands in a file of unsent changes: items, one behind the other. (`docs/FORMAT.md`, "Unsent files")
//!
//! Decoding takes any bytes: it gives an item or an error, and never more memory than [`ITEM_BYTES_MAX`].

use std::io::{self, Read};

use crate::base::{FileKind, Time};

/// Longest body of an item.
pub(super) const ITEM_BYTES_MAX: usize = 1024 * 1024;
/// All paths of one file together; more are not told.
pub(super) const PATHS_BYTES_MAX: usize = 512 * 1024;
const VERSION: u8 = 1;

/// Where and when changes were saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The host's name.
    pub host: String,
    /// When they were saved.
    pub saved: Time,
    /// The last commit before them.
    pub commit: u64,
}

/// A file that was not sent as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedFile {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits (`07777`), owner, group and device number.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device file.
    pub rdev: u32,
    /// Bytes.
    pub size: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the contents.
    pub mtime: Time,
    /// Whether the volume never had it.
    pub is_new: bool,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
    /// Its paths from the volume's root, at least one.
    pub paths: Vec<Vec<u8>>,
}

/// One item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The first.
    About(About),
    /// A file; what belongs to it follows.
    File(SavedFile),
    /// An extended attribute of it.
    Xattr(Vec<u8>, Vec<u8>),
    /// Bytes of it at an offset.
    Data(u64, Vec<u8>),
    /// Bytes of it that are not here, from and to, and why.
    Absent(u64, u64, String),
    /// Something that was done beside contents: what in words, the path, and the other path if there is one.
    Change(String, Vec<u8>, Vec<u8>),
    /// The last.
    End,
}

impl Item {
    /// The item's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let letter = match self {
            Self::About(about) => {
                body.push(VERSION);
                put_bytes(&mut body, about.host.as_bytes());
                put_time(&mut body, about.saved);
                body.extend(about.commit.to_be_bytes());
                b'A'
            }
            Self::File(file) => {
                file.put(&mut body);
                b'F'
            }
            Self::Xattr(name, value) => {
                put_bytes(&mut body, name);
                put_bytes(&mut body, value);
                b'X'
            }
            Self::Data(offset, bytes) => {
                body.extend(offset.to_be_bytes());
                body.extend(bytes);
                b'D'
            }
            Self::Absent(from, to, why) => {
                body.extend(from.to_be_bytes());
                body.extend(to.to_be_bytes());
                put_bytes(&mut body, why.as_bytes());
                b'N'
            }
            Self::Change(what, path, other) => {
                put_bytes(&mut body, what.as_bytes());
                put_bytes(&mut body, path);
                put_bytes(&mut body, other);
                b'C'
            }
            Self::End => b'E',
        };
        let mut item = vec![letter];
        item.extend((body.len() as u32).to_be_bytes());
        item.extend(body);
        item
    }

    fn decode(letter: u8, body: &[u8]) -> Option<Self> {
        let mut rest = body;
        let body = &mut rest;
        let item = match letter {
            b'A' => {
                (take::<1>(body)? == [VERSION]).then_some(())?;
                let host = take_text(body)?;
                Self::About(About { host, saved: take_time(body)?, commit: take_u64(body)? })
            }
            b'F' => Self::File(SavedFile::take(body)?),
            b'X' => Self::Xattr(take_bytes(body)?, take_bytes(body)?),
            b'D' => Self::Data(take_u64(body)?, std::mem::take(body).to_vec()),
            b'N' => Self::Absent(take_u64(body)?, take_u64(body)?, take_text(body)?),
            b'C' => Self::Change(take_text(body)?, take_bytes(body)?, take_bytes(body)?),
            b'E' => Self::End,
            _ => return None,
        };
        rest.is_empty().then_some(item)
    }
}

impl SavedFile {
    fn put(&self, body: &mut Vec<u8>) {
        body.push(self.kind as u8);
        body.extend(self.perm.to_be_bytes());
        for number in [self.uid, self.gid, self.rdev] {
            body.extend(number.to_be_bytes());
        }
        body.extend(self.size.to_be_bytes());
        put_time(body, self.atime);
        put_time(body, self.mtime);
        body.push(u8::from(self.is_new));
        put_bytes(body, &self.target);
        body.extend((self.paths.len() as u32).to_be_bytes());
        self.paths.iter().for_each(|path| put_bytes(body, path));
    }

    fn take(body: &mut &[u8]) -> Option<Self> {
        let kind = kind_of(take::<1>(body)?)?;
        let perm = u16::from_be_bytes(take(body)?);
        let (uid, gid, rdev) = (take_u32(body)?, take_u32(body)?, take_u32(body)?);
        let size = take_u64(body)?;
        let (atime, mtime) = (take_time(body)?, take_time(body)?);
        let is_new = match take::<1>(body)? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let target = take_bytes(body)?;
        let count = take_u32(body)?;
        let mut paths = Vec::new();
        for _ in 0..count {
            paths.push(take_bytes(body)?);
        }
        (!paths.is_empty()).then_some(())?;
        Some(Self { kind, perm, uid, gid, rdev, size, atime, mtime, is_new, target, paths })
    }
}

/// Items as they are read.
pub(super) struct Items<R> {
    from: R,
    has_begun: bool,
    has_ended: bool,
}

impl<R: Read> Items<R> {
    pub(super) const fn new(from: R) -> Self {
        Self { from, has_begun: false, has_ended: false }
    }

    /// The next item; `None` after the last, which is [`Item::End`] and is not given.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for what is no item, or not where one may stand; those of the reader.
    pub(super) fn next(&mut self) -> io::Result<Option<Item>> {
        if self.has_ended {
            return Ok(None);
        }
        let mut front = [0; 5];
        self.from.read_exact(&mut front).map_err(early)?;
        let [letter, a, b, c, d] = front;
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > ITEM_BYTES_MAX {
            return Err(wrong("an item is longer than any can be"));
        }
        let mut body = vec![0; len];
        self.from.read_exact(&mut body).map_err(early)?;
        let item = Item::decode(letter, &body).ok_or_else(|| wrong("an item makes no sense"))?;
        if matches!(item, Item::About(_)) == self.has_begun {
            return Err(wrong("its items are out of order"));
        }
        self.has_begun = true;
        if item == Item::End {
            self.has_ended = true;
            // Only the end of the sealed file says that all of it is there.
            return match self.from.read(&mut [0; 1])? {
                0 => Ok(None),
                _ => Err(wrong("something follows its end")),
            };
        }
        Ok(Some(item))
    }
}

fn early(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => wrong("it ends early"),
        _ => error,
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const fn kind_of(byte: [u8; 1]) -> Option<FileKind> {
    Some(match byte {
        [0] => FileKind::Regular,
        [1] => FileKind::Directory,
        [2] => FileKind::Symlink,
        [3] => FileKind::Fifo,
        [4] => FileKind::CharDevice,
        [5] => FileKind::BlockDevice,
        [6] => FileKind::Socket,
        _ => return None,
    })
}

fn put_bytes(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend((bytes.len() as u32).to_be_bytes());
    body.extend(bytes);
}

fn put_time(body: &mut Vec<u8>, time: Time) {
    body.extend(time.secs.to_be_bytes());
    body.extend(time.nanos.to_be_bytes());
}

fn take<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (found, rest) = body.split_first_chunk::<N>()?;
    *body = rest;
    Some(*found)
}

fn take_u32(body: &mut &[u8]) -> Option<u32> {
    take(body).map(u32::from_be_bytes)
}

fn take_u64(body: &mut &[u8]) -> Option<u64> {
    take(body).map(u64::from_be_bytes)
}

fn take_time(body: &mut &[u8]) -> Option<Time> {
    let time = Time { secs: i64::from_be_bytes(take(body)?), nanos: take_u32(body)? };
    (time.nanos < 1_000_000_000).then_some(time)
}

fn take_bytes(body: &mut &[u8]) -> Option<Vec<u8>> {
    let len = take_u32(body)? as usize;
    let (found, rest) = body.split_at_checked(len)?;
    *body = rest;
    Some(found.to_vec())
}

fn take_text(body: &mut &[u8]) -> Option<String> {
    String::from_utf8(take_bytes(body)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items() -> Vec<Item> {
        let time = Time { secs: -5, nanos: 999_999_999 };
        let file = SavedFile {
            kind: FileKind::Symlink,
            perm: 0o6751,
            uid: 1,
            gid: 2,
            rdev: 3,
            size: u64::MAX,
            atime: time,
            mtime: Time::default(),
            is_new: true,
            target: vec![0xFF; 4095],
            paths: vec![b"a/b".to_vec(), vec![0xFE; 5000]],
        };
        vec![
            Item::About(About { host: "host".into(), saved: time, commit: 7 }),
            Item::File(file),
            Item::Xattr(b"user.x".to_vec(), vec![1; 65536]),
            Item::Data(1 << 40, vec![2; 65536]),
            Item::Absent(5, 9, "gone".into()),
            Item::Change("renamed".into(), b"a".to_vec(), b"b".to_vec()),
            Item::End,
        ]
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<Item>> {
        let mut items = Items::new(bytes);
        let mut all = Vec::new();
        while let Some(item) = items.next()? {
            all.push(item);
        }
        Ok(all)
    }

    #[test]
    fn items_read_back_and_anything_out_of_place_is_refused() {
        let bytes: Vec<u8> = items().iter().flat_map(Item::encode).collect();
        assert_eq!(read(&bytes).unwrap(), items()[..6]);
        for cut in 0..bytes.len().min(200) {
            assert!(read(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(read(&bytes[..bytes.len() - 5]).is_err(), "without its end");
        assert!(read(&[&bytes[..], &[0]].concat()).is_err(), "with a tail");
        assert!(read(&Item::End.encode()).is_err(), "without a beginning");
        let twice = [items()[0].encode(), items()[0].encode(), Item::End.encode()].concat();
        assert!(read(&twice).is_err(), "with two beginnings");
    }

    #[test]
    fn a_small_file_takes_what_the_format_says() {
        let Item::File(file) = &items()[1] else { unreachable!() };
        let file = SavedFile { paths: vec![b"a".to_vec()], target: Vec::new(), ..file.clone() };
        let about = About { host: "ab".into(), ..About::default() };
        let items = [Item::About(about), Item::File(file), Item::Data(0, b"hello".to_vec()), Item::End];
        let lengths: Vec<usize> = items.iter().map(|item| item.encode().len()).collect();
        assert_eq!(lengths, [32, 66, 18, 5]);
    }

    proptest! {
        #[test]
        fn d11_no_bytes_make_the_decoder_panic(letter in prop::sample::select(b"AFXDNCE?".to_vec()),
            body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(item) = Item::decode(letter, &body) {
                prop_assert_eq!(&item.encode()[5..], &body[..]);
            }
            let _ = read(&body);
        }
    }
}
