//! What blocks come to, counted as they come and go.

use std::iter::Sum;
use std::ops::{Add, AddAssign, SubAssign};

use super::block::{Block, Under};

/// What blocks come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// How many they are.
    pub(crate) count: usize,
    /// Bytes of contents that they hold in memory.
    pub(crate) mem: usize,
    /// Bytes more that they will hold once they are completed by what lies under them.
    pub(crate) to_come: usize,
    /// Bytes of contents that they are about to add to what the volume stores.
    pub(crate) plain: u64,
}

impl Sums {
    /// Of one block.
    pub(crate) fn of(block: &Block) -> Self {
        let mem = mem_len(block);
        let beneath = match block {
            Block::Stored(place) => place.piece.plain,
            Block::Mem(mem) => match mem.under() {
                Under::Place(place) => place.piece.plain,
                Under::Zeros | Under::Older => 0,
            },
            Block::Sent { .. } => 0,
        };
        Self { count: 1, mem, to_come: to_come(block), plain: (mem as u64).max(beneath.into()) }
    }
}

/// Bytes of memory that a block holds on its own account.
pub(crate) fn mem_len(block: &Block) -> usize {
    match block {
        Block::Mem(mem) => mem.len(),
        Block::Sent { bytes, .. } => bytes.len(),
        Block::Stored(_) => 0,
    }
}

/// Bytes more that a block will hold once it is completed.
pub(crate) fn to_come(block: &Block) -> usize {
    match block {
        Block::Mem(mem) => mem.to_come(),
        Block::Sent { .. } | Block::Stored(_) => 0,
    }
}

impl Add for Sums {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            mem: self.mem + other.mem,
            to_come: self.to_come + other.to_come,
            plain: self.plain + other.plain,
        }
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Sums {
    fn sub_assign(&mut self, other: Self) {
        self.count -= other.count;
        self.mem -= other.mem;
        self.to_come -= other.to_come;
        self.plain -= other.plain;
    }
}

impl Sum for Sums {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}
