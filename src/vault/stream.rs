//! Sealed objects that do not go into the bucket: written and read front to back, a piece at a time.
//! (`docs/FORMAT.md`, "Sealed objects" and "Unsent files")

use std::io::{self, Read, Write};

use super::geometry::PIECE_BYTES;
use crate::base::Entropy;
use crate::crypto::{HEAD_BYTES, KeyRing, ObjectHead, ObjectKey, ObjectKind, OpenError, TAG_BYTES};

const PIECE: usize = PIECE_BYTES as usize;

/// Seals what is written to it. What is not finished does not open.
pub struct SealingWriter<W> {
    out: W,
    key: ObjectKey,
    /// Plaintext of the piece that is being filled.
    piece: Vec<u8>,
    number: u64,
}

impl<W: Write> SealingWriter<W> {
    /// Begins the object called `name` of the volume of `ring`.
    ///
    /// # Errors
    /// `out` takes nothing.
    pub fn begin(ring: &KeyRing, entropy: &dyn Entropy, name: &str, mut out: W) -> io::Result<Self> {
        let (head, key) = ring.new_object(ObjectKind::Rescue, name.as_bytes(), entropy);
        out.write_all(&head.encode())?;
        Ok(Self { out, key, piece: Vec::with_capacity(PIECE + TAG_BYTES), number: 0 })
    }

    /// Takes more plaintext. A full piece stays open until more comes, for it may be the last.
    ///
    /// # Errors
    /// The writer below fails.
    pub fn push(&mut self, mut plain: &[u8]) -> io::Result<()> {
        while !plain.is_empty() {
            if self.piece.len() == PIECE {
                self.close(false)?;
            }
            let (now, later) = plain.split_at(plain.len().min(PIECE - self.piece.len()));
            self.piece.extend_from_slice(now);
            plain = later;
        }
        Ok(())
    }

    /// Ends the object and gives the writer below back.
    ///
    /// # Errors
    /// It fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.close(true)?;
        Ok(self.out)
    }

    fn close(&mut self, last: bool) -> io::Result<()> {
        self.key.seal_piece(self.number, last, &mut self.piece);
        self.number += 1;
        let written = self.out.write_all(&self.piece);
        self.piece.clear();
        written
    }
}

/// Opens what it reads. Every byte that it gives is authentic; that it ends means that nothing is missing.
pub struct OpeningReader<R> {
    from: R,
    key: ObjectKey,
    /// A sealed piece ahead: only with the next one known does it show whether a piece is the last.
    ahead: Vec<u8>,
    plain: Vec<u8>,
    given: usize,
    number: u64,
    is_last: bool,
}

impl<R: Read> OpeningReader<R> {
    /// Begins to read the object called `name` of the volume of `ring`.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for an object of another volume, name or kind, or none at all; those of `from`.
    pub fn begin(ring: &KeyRing, name: &str, mut from: R) -> io::Result<Self> {
        let mut head = [0; HEAD_BYTES];
        from.read_exact(&mut head).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => invalid(OpenError::Damaged),
            _ => error,
        })?;
        let head = ObjectHead::decode(&head).map_err(invalid)?;
        let key = ring.open_object(ObjectKind::Rescue, name.as_bytes(), &head).map_err(invalid)?;
        let ahead = next_piece(&mut from)?;
        Ok(Self { from, key, ahead, plain: Vec::new(), given: 0, number: 0, is_last: false })
    }

    fn open_next(&mut self) -> io::Result<()> {
        let mut sealed = std::mem::take(&mut self.ahead);
        self.ahead = next_piece(&mut self.from)?;
        self.is_last = self.ahead.is_empty();
        let opened = self.key.open_piece(self.number, self.is_last, &mut sealed).map_err(invalid)?;
        let len = opened.len();
        sealed.truncate(len);
        self.plain = sealed;
        self.given = 0;
        self.number += 1;
        Ok(())
    }
}

impl<R: Read> Read for OpeningReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.given == self.plain.len() && !self.is_last {
            self.open_next()?;
        }
        let rest = self.plain.get(self.given..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        self.given += len;
        Ok(len)
    }
}

fn next_piece(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut sealed = Vec::new();
    from.take((PIECE + TAG_BYTES) as u64).read_to_end(&mut sealed)?;
    Ok(sealed)
}

fn invalid(error: OpenError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::{SeededEntropy, VolumeId};
    use crate::crypto::{Epoch, Key};

    fn ring(volume: u8) -> KeyRing {
        KeyRing::new(VolumeId([volume; 16]), Epoch::FIRST, &Key::from_bytes([7; 32]))
    }

    fn sealed(name: &str, plain: &[u8]) -> Vec<u8> {
        let mut writer = SealingWriter::begin(&ring(1), &SeededEntropy::new(1), name, Vec::new()).unwrap();
        plain.chunks(1000).for_each(|part| writer.push(part).unwrap());
        writer.finish().unwrap()
    }

    fn opened(volume: u8, name: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        OpeningReader::begin(&ring(volume), name, bytes)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn what_was_sealed_opens_under_its_name_and_volume_only() {
        for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE, 5 * PIECE + 17] {
            let plain: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let bytes = sealed("a", &plain);
            assert_eq!(bytes.len(), HEAD_BYTES + len + TAG_BYTES * len.div_ceil(PIECE).max(1));
            assert_eq!(opened(1, "a", &bytes).unwrap(), plain);
            assert!(opened(1, "b", &bytes).is_err() && opened(2, "a", &bytes).is_err());
        }
    }

    #[test]
    fn what_is_cut_lengthened_or_rearranged_is_refused() {
        let bytes = sealed("a", &vec![9; 3 * PIECE + 5]);
        for cut in [0, 10, HEAD_BYTES, HEAD_BYTES + 16, HEAD_BYTES + PIECE + TAG_BYTES, bytes.len() - 1] {
            assert!(opened(1, "a", &bytes[..cut]).is_err(), "{cut}");
        }
        assert!(opened(1, "a", &[&bytes[..], b"x"].concat()).is_err());
        let mut swapped = bytes.clone();
        let (first, second) = (HEAD_BYTES, HEAD_BYTES + PIECE + TAG_BYTES);
        for at in 0..PIECE + TAG_BYTES {
            swapped.swap(first + at, second + at);
        }
        assert!(opened(1, "a", &swapped).is_err());
    }

    proptest! {
        #[test]
        fn any_altered_byte_is_refused(at in 0usize..(64 + 2 * 16400), by in 1u8..) {
            let mut bytes = sealed("a", &[3; 2 * 16384]);
            bytes[at] ^= by;
            prop_assert!(opened(1, "a", &bytes).is_err());
        }

        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(opened(1, "a", &bytes).is_err());
        }
    }
}
