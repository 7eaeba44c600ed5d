//! Seals names: of files in a directory, of extended attributes, of components of object paths.
//!
//! Equal names in one directory seal equally, which is what lets a sealed name be looked up; equal names in two
//! directories do not (`docs/FORMAT.md`, "Names").

use data_encoding::BASE32HEX_NOPAD;

use super::label::Label;
use super::{KeyRing, OpenError};
use crate::base::{Ino, Name, Tag};

/// A name sealed by AES-256-SIV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedName {
    /// Synthetic IV: the key under which the entry is found.
    pub tag: Tag,
    /// Ciphertext, as long as the name.
    pub bytes: Vec<u8>,
}

impl KeyRing {
    /// Seals the name of an entry of directory `dir`.
    #[must_use]
    pub fn seal_name(&self, dir: Ino, name: &Name) -> SealedName {
        self.seal_in(Label::Name, dir, name.as_bytes())
    }

    /// Opens the name of an entry of directory `dir`.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] if it was altered or sealed for another directory; [`OpenError::InvalidName`] if
    /// what comes out is no file name.
    pub fn open_name(&self, dir: Ino, tag: Tag, bytes: &[u8]) -> Result<Name, OpenError> {
        let name = self.open_in(Label::Name, dir, tag, bytes)?;
        Name::new(&name).map_err(OpenError::InvalidName)
    }

    /// Seals the name of an extended attribute of `ino`.
    #[must_use]
    pub fn seal_xattr_name(&self, ino: Ino, name: &[u8]) -> SealedName {
        self.seal_in(Label::Xattr, ino, name)
    }

    /// Opens the name of an extended attribute of `ino`.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] if it was altered or sealed for another inode.
    pub fn open_xattr_name(&self, ino: Ino, tag: Tag, bytes: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.open_in(Label::Xattr, ino, tag, bytes)
    }

    /// Seals one component of an object's path below the components `parent` (in plaintext, joined by `/`).
    /// Lower-case base32hex: 8 characters for every 5 bytes of 16 plus the component's length.
    #[must_use]
    pub fn seal_component(&self, parent: &str, component: &str) -> String {
        let ad: &[&[u8]] = &[Label::ObjectName.bytes(), parent.as_bytes()];
        let (tag, bytes) = self.lifelong().object_name.seal(ad, component.as_bytes());
        let mut text = BASE32HEX_NOPAD.encode(&[&tag[..], &bytes].concat());
        text.make_ascii_lowercase();
        text
    }

    /// Opens one component of an object's path below `parent`.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] if it is not such a component, was altered, or belongs below another parent.
    pub fn open_component(&self, parent: &str, sealed: &str) -> Result<String, OpenError> {
        if sealed.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(OpenError::Damaged);
        }
        let bytes =
            BASE32HEX_NOPAD.decode(sealed.to_ascii_uppercase().as_bytes()).map_err(|_| OpenError::Damaged)?;
        let (tag, bytes) = bytes.split_first_chunk::<16>().ok_or(OpenError::Damaged)?;
        let ad: &[&[u8]] = &[Label::ObjectName.bytes(), parent.as_bytes()];
        let plain = self.lifelong().object_name.open(ad, *tag, bytes)?;
        String::from_utf8(plain).map_err(|_| OpenError::Damaged)
    }

    fn seal_in(&self, label: Label, ino: Ino, name: &[u8]) -> SealedName {
        let (tag, bytes) = self.lifelong().name.seal(&[label.bytes(), &ino.0.to_be_bytes()], name);
        SealedName { tag: Tag(tag), bytes }
    }

    fn open_in(&self, label: Label, ino: Ino, tag: Tag, bytes: &[u8]) -> Result<Vec<u8>, OpenError> {
        let ino = ino.0.to_be_bytes();
        let ad: &[&[u8]] = &[label.bytes(), &ino];
        self.lifelong().name.open(ad, tag.0, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::base::{NameError, VolumeId};
    use crate::crypto::{Epoch, Key};

    fn ring() -> KeyRing {
        KeyRing::new(VolumeId([0xA0; 16]), Epoch(1), &Key::from_bytes([1; 32]))
    }

    #[test]
    fn every_length_of_name_seals_to_its_own_length_and_opens() {
        let ring = ring();
        for len in 1..=255 {
            let name = Name::new(&vec![0xFF; len]).unwrap();
            let sealed = ring.seal_name(Ino(5), &name);
            assert_eq!(sealed.bytes.len(), len);
            assert_eq!(ring.open_name(Ino(5), sealed.tag, &sealed.bytes), Ok(name));
        }
    }

    #[test]
    fn c7_equal_names_are_equal_in_one_directory_and_unlinkable_across_two() {
        let ring = ring();
        let name = Name::new(b"Makefile").unwrap();
        assert_eq!(ring.seal_name(Ino(5), &name), ring.seal_name(Ino(5), &name));
        let mut seen = HashSet::new();
        for ino in 1..500 {
            let sealed = ring.seal_name(Ino(ino), &name);
            assert!(seen.insert(sealed.bytes) && seen.insert(sealed.tag.0.to_vec()));
        }
    }

    #[test]
    fn c2_a_name_opens_in_no_other_directory_and_as_nothing_else() {
        let ring = ring();
        let sealed = ring.seal_name(Ino(5), &Name::new(b"secret").unwrap());
        assert_eq!(ring.open_name(Ino(6), sealed.tag, &sealed.bytes), Err(OpenError::Damaged));
        assert_eq!(ring.open_xattr_name(Ino(5), sealed.tag, &sealed.bytes), Err(OpenError::Damaged));
        let sealed = ring.seal_xattr_name(Ino(5), b"user.tag");
        assert_eq!(ring.open_xattr_name(Ino(5), sealed.tag, &sealed.bytes), Ok(b"user.tag".to_vec()));
        assert_eq!(ring.open_name(Ino(5), sealed.tag, &sealed.bytes), Err(OpenError::Damaged));
    }

    #[test]
    fn c11_what_opens_to_a_forbidden_name_is_refused() {
        let ring = ring();
        for bad in [&b".."[..], b"a/b", b""] {
            let sealed = ring.seal_in(Label::Name, Ino(1), bad);
            let refused = ring.open_name(Ino(1), sealed.tag, &sealed.bytes);
            assert!(matches!(refused, Err(OpenError::InvalidName(NameError::Reserved | NameError::Empty))));
        }
    }

    #[test]
    fn a_path_component_opens_below_its_parent_only() {
        let ring = ring();
        let sealed = ring.seal_component("wal", "00000000000000000001.sst");
        assert_eq!(sealed.len(), 64);
        assert!(sealed.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v')));
        assert_eq!(ring.open_component("wal", &sealed), Ok("00000000000000000001.sst".to_owned()));
        assert_eq!(ring.open_component("compacted", &sealed), Err(OpenError::Damaged));
        assert_eq!(ring.open_component("wal", &sealed.to_uppercase()), Err(OpenError::Damaged));
        assert_ne!(ring.seal_component("", "wal"), ring.seal_component("wal", "wal"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_open(tag: [u8; 16], bytes: Vec<u8>, text in "[ -~äß]{0,40}") {
            let ring = ring();
            prop_assert_eq!(ring.open_name(Ino(1), Tag(tag), &bytes), Err(OpenError::Damaged));
            prop_assert_eq!(ring.open_component("", &text), Err(OpenError::Damaged));
        }
    }
}
