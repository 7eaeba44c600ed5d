//! References to inodes from outside the tree, counted in a few bytes each.
//!
//! The kernel refers to every inode that it remembers, which on a large machine is millions, and it takes few references
//! to each. Numbers of inodes that are used together lie together, so counts are kept in rows of a byte each.

use std::collections::HashMap;

use crate::base::Ino;

/// Inodes of one row.
const ROW: usize = 16;
/// A count that does not fit into its byte: the whole of it is in `large`.
const LARGE: u8 = u8::MAX;
/// Rows for which there is always room.
const ROWS_MIN: usize = 1024;

/// How many references there are to each inode.
#[derive(Debug, Default)]
pub(super) struct Refs {
    rows: HashMap<u64, [u8; ROW]>,
    large: HashMap<Ino, u64>,
}

impl Refs {
    /// Takes one reference.
    pub(super) fn take(&mut self, ino: Ino) {
        let slot = self.rows.entry(row(ino)).or_default().get_mut(place(ino));
        let Some(slot) = slot else { return };
        match *slot {
            LARGE => *self.large.entry(ino).or_default() += 1,
            count if count + 1 == LARGE => {
                *slot = LARGE;
                self.large.insert(ino, LARGE.into());
            }
            count => *slot = count + 1,
        }
    }

    /// Gives `count` references back. Says whether these were the last ones.
    pub(super) fn give_back(&mut self, ino: Ino, count: u64) -> bool {
        let left = self.count(ino).saturating_sub(count);
        let Some(counts) = self.rows.get_mut(&row(ino)) else { return false };
        let Some(slot) = counts.get_mut(place(ino)).filter(|slot| **slot > 0) else { return false };
        match u8::try_from(left) {
            Ok(small) if small < LARGE => {
                if std::mem::replace(slot, small) == LARGE {
                    self.large.remove(&ino);
                }
            }
            _ => drop(self.large.insert(ino, left)),
        }
        if *counts == [0; ROW] {
            self.rows.remove(&row(ino));
            self.give_room_back();
        }
        left == 0
    }

    /// Whether there are any.
    pub(super) fn holds(&self, ino: Ino) -> bool {
        self.count(ino) > 0
    }

    fn count(&self, ino: Ino) -> u64 {
        match self.rows.get(&row(ino)).and_then(|counts| counts.get(place(ino))) {
            Some(&LARGE) => self.large.get(&ino).copied().unwrap_or_default(),
            Some(&count) => count.into(),
            None => 0,
        }
    }

    /// A table that has emptied does not keep its memory.
    fn give_room_back(&mut self) {
        let needed = self.rows.len().max(ROWS_MIN);
        if self.rows.capacity() / 8 > needed {
            self.rows.shrink_to(needed * 2);
        }
    }

    /// Bytes in memory.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let rows = self.rows.capacity() * (size_of::<(u64, [u8; ROW])>() + 1);
        rows + self.large.capacity() * (size_of::<(Ino, u64)>() + 1)
    }
}

const fn row(ino: Ino) -> u64 {
    ino.0 / ROW as u64
}

const fn place(ino: Ino) -> usize {
    (ino.0 % ROW as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_is_counted_whatever_their_number() {
        let mut refs = Refs::default();
        for count in [1, 2, 253, 254, 255, 256, 1000] {
            for ino in [Ino(1), Ino(15), Ino(16), Ino(u64::MAX)] {
                (0..count).for_each(|_| refs.take(ino));
                assert!(!refs.give_back(ino, count - 1) || count == 1, "{count}");
                assert_eq!(refs.holds(ino), count > 0 && refs.count(ino) == 1);
                assert!(refs.give_back(ino, 1), "the last of {count}");
                assert!(!refs.holds(ino) && !refs.give_back(ino, 1));
            }
        }
        assert!(refs.rows.is_empty() && refs.large.is_empty());
    }

    #[test]
    fn giving_back_too_much_is_giving_back_all() {
        let mut refs = Refs::default();
        refs.take(Ino(3));
        refs.take(Ino(4));
        assert!(refs.give_back(Ino(3), u64::MAX));
        assert!(refs.holds(Ino(4)));
    }

    #[test]
    fn a_million_inodes_that_the_kernel_remembers_take_a_few_megabytes_and_leave_none() {
        let mut refs = Refs::default();
        (1..=1_000_000).for_each(|ino| refs.take(Ino(ino)));
        assert!(refs.bytes() < 4_000_000, "{}", refs.bytes());
        assert!((1..=1_000_000).all(|ino| refs.give_back(Ino(ino), 1)));
        assert!(refs.bytes() < 500_000, "{}", refs.bytes());
    }
}
