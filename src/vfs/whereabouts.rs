//! Paths of inodes: from what is in memory, and where that is not enough from a walk over all entries.

use std::collections::{HashMap, HashSet};

use crate::base::{FileKind, Ino, Tag};
use crate::meta::{Key, Record};

use super::{Vfs, VfsError};

/// Entries read from the engine at a time.
const SCAN_COUNT: usize = 4096;
/// Deeper than any tree: where parents go round in a circle, the search ends.
const DEPTH_MAX: usize = 100_000;

/// Where an inode has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spot {
    dir: Ino,
    tag: Tag,
    sealed: Vec<u8>,
}

/// Names of some inodes, and of all directories above them.
#[derive(Debug, Default)]
pub(super) struct Whereabouts(HashMap<Ino, Vec<Spot>>);

impl Whereabouts {
    /// Notes an entry.
    fn add(&mut self, key: Key, record: &Record) {
        if let (Key::Entry(dir, tag), Record::Entry(entry)) = (key, record) {
            let spots = self.0.entry(entry.ino).or_default();
            if spots.iter().all(|spot| (spot.dir, spot.tag) != (dir, tag)) {
                spots.push(Spot { dir, tag, sealed: entry.name.clone() });
            }
        }
    }

    /// The inodes on the way up from `wanted` that have fewer names here than there are.
    fn nameless(&self, wanted: &HashMap<Ino, u32>) -> HashSet<Ino> {
        let mut seen = HashSet::new();
        let mut nameless = HashSet::new();
        let mut waiting: Vec<(Ino, u32)> = wanted.iter().map(|(ino, names)| (*ino, *names)).collect();
        while let Some((ino, names)) = waiting.pop() {
            if ino == Ino::ROOT || !seen.insert(ino) {
                continue;
            }
            let spots = self.0.get(&ino).map(Vec::as_slice).unwrap_or_default();
            if (spots.len() as u64) < u64::from(names) {
                nameless.insert(ino);
            }
            waiting.extend(spots.iter().map(|spot| (spot.dir, 1)));
        }
        nameless
    }
}

impl Vfs {
    /// Finds the names of all of `wanted`, which have so many. Those that stay without one are told by their numbers.
    pub(super) async fn whereabouts(&self, wanted: &HashMap<Ino, u32>) -> Whereabouts {
        let mut found = self.remembered_names();
        let nameless = found.nameless(wanted);
        if !nameless.is_empty()
            && let Err(error) = self.look_for_names(&nameless, &mut found).await
        {
            tracing::warn!(%error, count = nameless.len(), "not all paths could be found out");
        }
        found
    }

    fn remembered_names(&self) -> Whereabouts {
        let mut found = Whereabouts::default();
        let state = self.state.lock();
        for (key, record) in state.overlay.cached() {
            found.add(*key, record);
        }
        let (from, to) = all_entries();
        let changes = state.overlay.changes_between(&from, &to, usize::MAX);
        // A name that is gone, or names another inode now, names nobody else any more.
        let gone: HashSet<(Ino, Tag)> = changes.iter().filter_map(|(key, _)| place(*key)).collect();
        for spots in found.0.values_mut() {
            spots.retain(|spot| !gone.contains(&(spot.dir, spot.tag)));
        }
        for (key, record) in changes {
            if let Some(record) = record {
                found.add(key, &record);
            }
        }
        found
    }

    /// Walks over all entries for names of `nameless`, and for directories, of which more may be needed then.
    async fn look_for_names(&self, nameless: &HashSet<Ino>, found: &mut Whereabouts) -> Result<(), VfsError> {
        let (mut from, to) = all_entries();
        loop {
            let (records, last) = self.scan(from, to, SCAN_COUNT).await?;
            for (key, record) in records {
                let is_wanted = matches!(&record, Record::Entry(entry)
                    if entry.kind == FileKind::Directory || nameless.contains(&entry.ino));
                if is_wanted {
                    found.add(key, &record);
                }
            }
            match last.and_then(place) {
                Some((dir, tag)) => from = Key::Entry(dir, super::xattr::next_tag(tag)),
                None => return Ok(()),
            }
        }
    }

    /// All paths of `ino` that are known; at least one to tell it by.
    pub(super) fn paths_of(&self, found: &Whereabouts, ino: Ino) -> Vec<Vec<u8>> {
        let spots = found.0.get(&ino).map(Vec::as_slice).unwrap_or_default();
        let mut paths: Vec<_> =
            spots.iter().map(|spot| self.path_in(found, spot.dir, spot.tag, &spot.sealed)).collect();
        paths.sort();
        if paths.is_empty() {
            paths.push(self.path_of(found, ino));
        }
        paths
    }

    /// A path of `ino` from the volume's root, without a slash in front.
    pub(super) fn path_of(&self, found: &Whereabouts, ino: Ino) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT && names.len() < DEPTH_MAX {
            let Some(spot) = found.0.get(&at).and_then(|spots| spots.first()) else {
                names.push(format!("inode-{at}").into_bytes());
                break;
            };
            names.push(self.plain_name(spot.dir, spot.tag, &spot.sealed));
            at = spot.dir;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The path of an entry of `dir`.
    pub(super) fn path_in(&self, found: &Whereabouts, dir: Ino, tag: Tag, sealed: &[u8]) -> Vec<u8> {
        let name = self.plain_name(dir, tag, sealed);
        match self.path_of(found, dir) {
            above if above.is_empty() => name,
            above => [above, name].join(&b'/'),
        }
    }

    fn plain_name(&self, dir: Ino, tag: Tag, sealed: &[u8]) -> Vec<u8> {
        match self.ring().open_name(dir, tag, sealed) {
            Ok(name) => name.as_bytes().to_vec(),
            Err(_) => format!("entry-of-{dir}").into_bytes(),
        }
    }
}

/// Bounds of all entries.
pub(super) const fn all_entries() -> (Key, Key) {
    (Key::Entry(Ino(0), Tag([0; 16])), Key::Entry(Ino(u64::MAX), Tag([0xFF; 16])))
}

const fn place(key: Key) -> Option<(Ino, Tag)> {
    match key {
        Key::Entry(dir, tag) => Some((dir, tag)),
        _ => None,
    }
}
