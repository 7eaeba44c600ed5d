//! Tags of names that were sealed lately: to seal a name costs more than all else that a lookup in memory does, and what the kernel
//! has forgotten it looks up again, as it does before it makes or removes anything.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::{Ino, Name, Tag};
use crate::crypto::SealedName;

use super::txn::EntryName;
use super::{Vfs, VfsError};

/// What part of the memory of records they may take: one of so many.
pub(super) const SHARE: usize = 32;
/// Longest name that is kept, so that a place fills what a processor loads at once.
const KEPT_NAME_BYTES_MAX: usize = 39;

/// Where a name's tag is, if no other has taken the place since.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Place {
    dir: u64,
    tag: Tag,
    /// No name has none.
    len: u8,
    name: [u8; KEPT_NAME_BYTES_MAX],
}

const PLACE_BYTES: usize = size_of::<Place>();
const _: () = assert!(PLACE_BYTES == 64);
const EMPTY: Place = Place { dir: 0, tag: Tag([0; 16]), len: 0, name: [0; KEPT_NAME_BYTES_MAX] };

/// Tags by directory and name.
pub(super) struct SealedNames {
    state: Mutex<State>,
    /// One less than there are places: a power of two.
    mask: usize,
    /// Of its own for each mount, so that nobody can foretell which names take each other's place.
    hasher: RandomState,
}

struct State {
    places: Box<[Place]>,
    /// The name that was sealed last: it was looked up, and is about to be made.
    last: Option<(Ino, Arc<EntryName>)>,
}

impl Place {
    fn is_of(&self, dir: Ino, name: &[u8]) -> bool {
        let is_same = || self.name.get(..name.len()) == Some(name);
        self.len > 0 && self.dir == dir.0 && usize::from(self.len) == name.len() && is_same()
    }
}

impl State {
    /// A name has two places beside each other, the first of which is its own.
    fn find(&self, at: usize, dir: Ino, name: &[u8]) -> Option<Tag> {
        let places = [at, at ^ 1].into_iter().filter_map(|at| self.places.get(at));
        places.into_iter().find(|place| place.is_of(dir, name)).map(|place| place.tag)
    }

    /// Where to keep it: in the other place if that alone is empty.
    fn room(&mut self, at: usize) -> Option<&mut Place> {
        let is_empty = |at: usize| self.places.get(at).is_some_and(|place| place.len == 0);
        let at = if !is_empty(at) && is_empty(at ^ 1) { at ^ 1 } else { at };
        self.places.get_mut(at)
    }
}

impl SealedNames {
    pub(super) fn new(bytes: usize) -> Self {
        let most = (bytes / PLACE_BYTES).max(1);
        let places = vec![EMPTY; 1 << most.ilog2()].into_boxed_slice();
        let mask = places.len() - 1;
        Self { state: Mutex::new(State { places, last: None }), mask, hasher: RandomState::new() }
    }

    /// The tag of a name in `dir`, which `seal` seals if that is not known.
    pub(super) fn tag(
        &self,
        dir: Ino,
        name: &[u8],
        seal: impl FnOnce() -> Result<EntryName, VfsError>,
    ) -> Result<Tag, VfsError> {
        let at = self.place(dir, name);
        if let Some(tag) = self.state.lock().find(at, dir, name) {
            return Ok(tag);
        }
        Ok(self.keep(at, dir, seal()?).tag)
    }

    /// A name in `dir`, which `seal` seals if it was not the last one.
    pub(super) fn sealed(
        &self,
        dir: Ino,
        name: &[u8],
        seal: impl FnOnce() -> Result<EntryName, VfsError>,
    ) -> Result<Arc<EntryName>, VfsError> {
        if let Some((of, last)) = &self.state.lock().last
            && *of == dir
            && last.plain.as_bytes() == name
        {
            return Ok(Arc::clone(last));
        }
        Ok(self.keep(self.place(dir, name), dir, seal()?))
    }

    fn place(&self, dir: Ino, name: &[u8]) -> usize {
        self.hasher.hash_one((dir.0, name)) as usize & self.mask
    }

    fn keep(&self, at: usize, dir: Ino, sealed: EntryName) -> Arc<EntryName> {
        let sealed = Arc::new(sealed);
        let name = sealed.plain.as_bytes();
        let mut state = self.state.lock();
        if let Some(place) = state.room(at)
            && let Some(kept) = place.name.get_mut(..name.len())
        {
            kept.copy_from_slice(name);
            (place.dir, place.tag, place.len) = (dir.0, sealed.tag, name.len() as u8);
        }
        state.last = Some((dir, Arc::clone(&sealed)));
        sealed
    }
}

impl Vfs {
    /// The tag of a name in `dir`.
    pub(super) fn name_tag(&self, dir: Ino, name: &[u8]) -> Result<Tag, VfsError> {
        self.names.tag(dir, name, || self.seal_name(dir, name))
    }

    /// A name in `dir` as it is stored.
    pub(super) fn entry_name(&self, dir: Ino, name: &[u8]) -> Result<Arc<EntryName>, VfsError> {
        self.names.sealed(dir, name, || self.seal_name(dir, name))
    }

    fn seal_name(&self, dir: Ino, name: &[u8]) -> Result<EntryName, VfsError> {
        let plain = Name::new(name)?;
        let SealedName { tag, bytes: sealed } = self.ring().seal_name(dir, &plain);
        Ok(EntryName { tag, sealed, plain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how often names are sealed.
    struct Bench {
        names: SealedNames,
        count: u64,
    }

    impl Bench {
        fn new(bytes: usize) -> Self {
            Self { names: SealedNames::new(bytes), count: 0 }
        }

        /// Each has another tag.
        fn seal(count: &mut u64, name: &[u8]) -> Result<EntryName, VfsError> {
            let plain = Name::new(name)?;
            *count += 1;
            Ok(EntryName { tag: Tag([*count as u8; 16]), sealed: name.to_vec(), plain })
        }

        fn tag(&mut self, dir: u64, name: &[u8]) -> u8 {
            self.names.tag(Ino(dir), name, || Self::seal(&mut self.count, name)).unwrap().0[0]
        }

        fn sealed(&mut self, dir: u64, name: &[u8]) -> u8 {
            let sealed = self.names.sealed(Ino(dir), name, || Self::seal(&mut self.count, name)).unwrap();
            assert_eq!(sealed.plain.as_bytes(), name);
            sealed.tag.0[0]
        }
    }

    #[test]
    fn a_name_is_sealed_once_for_each_directory() {
        let mut bench = Bench::new(1 << 20);
        assert_eq!((bench.tag(1, b"name"), bench.tag(2, b"name"), bench.tag(1, b"nam")), (1, 2, 3));
        assert_eq!((bench.tag(1, b"name"), bench.tag(2, b"name"), bench.tag(1, b"nam")), (1, 2, 3));
        assert_eq!(bench.count, 3);
    }

    #[test]
    fn who_takes_a_place_takes_it_whole() {
        let mut bench = Bench::new(0);
        for (tag, name) in [&b"long name"[..], b"long", b"long name", b"other"].iter().enumerate() {
            assert_eq!(bench.tag(1, name), tag as u8 + 1);
            assert_eq!(bench.tag(1, name), tag as u8 + 1);
        }
    }

    #[test]
    fn of_names_that_fill_a_third_of_the_room_few_are_sealed_twice() {
        let mut bench = Bench::new(3 * 1024 * PLACE_BYTES);
        for _ in 0..2 {
            for number in 0..682_u64 {
                bench.tag(number, b"name");
            }
        }
        // Which of them are in each other's way is another each time: 62 on average, and 104 in the worst of 3,000.
        assert!(bench.count < 682 + 150, "{}", bench.count);
    }

    #[test]
    fn a_name_that_was_looked_up_is_not_sealed_again_to_be_made() {
        let mut bench = Bench::new(1 << 20);
        assert_eq!((bench.tag(1, b"new"), bench.sealed(1, b"new")), (1, 1));
        assert_eq!((bench.sealed(2, b"new"), bench.tag(2, b"new")), (2, 2));
        assert_eq!(bench.sealed(1, b"new"), 3, "only of the last is all known");
        let long = [b'n'; 255];
        assert_eq!((bench.tag(1, &long), bench.tag(1, &long), bench.sealed(1, &long)), (4, 5, 5));
    }

    #[test]
    fn what_is_no_name_is_refused_each_time() {
        let mut bench = Bench::new(1 << 20);
        for wrong in [&b""[..], b"", b"a/b", b"a/b", &[b'n'; 256], &[b'n'; 5000]] {
            let tag = bench.names.tag(Ino(1), wrong, || Bench::seal(&mut bench.count, wrong));
            let sealed = bench.names.sealed(Ino(1), wrong, || Bench::seal(&mut bench.count, wrong));
            assert!(tag.is_err() && sealed.is_err());
        }
        assert_eq!(bench.names.tag(Ino(0), b"", || Bench::seal(&mut bench.count, b"")).ok(), None);
    }
}
