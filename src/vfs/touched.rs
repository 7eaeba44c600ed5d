//! What an edit does to each page of its file.

use std::collections::BTreeMap;

use crate::base::{BlockPlace, PAGE_BLOCKS};
use crate::data::{FileEdit, Move};

/// What an edit does to one page. Blocks are counted within it.
#[derive(Debug, Default)]
pub(super) struct Touched<'a> {
    /// Blocks that are in records now, and their lengths.
    pub(super) inline: Vec<(u32, u32)>,
    /// Blocks that are in segments now, in order.
    pub(super) stored: Vec<(u32, BlockPlace)>,
    /// Those of them that lie where a copy was asked to share them.
    pub(super) shared: Vec<BlockPlace>,
    /// Blocks that the cleaner has copied.
    pub(super) moves: Vec<&'a Move>,
}

impl Touched<'_> {
    /// Whether it puts anything there, rather than only moving what is there.
    pub(super) const fn is_written(&self) -> bool {
        !self.stored.is_empty() || !self.inline.is_empty()
    }
}

/// The pages in which an edit puts or moves blocks, in one pass over what it has.
pub(super) fn by_page(edit: &FileEdit) -> BTreeMap<u64, Touched<'_>> {
    let mut pages: BTreeMap<u64, Touched<'_>> = BTreeMap::new();
    let place = |index: u64| (index / PAGE_BLOCKS, (index % PAGE_BLOCKS) as u32);
    for (index, bytes) in &edit.inline {
        let (page, block) = place(*index);
        pages.entry(page).or_default().inline.push((block, *bytes));
    }
    for (index, stored) in &edit.stored {
        let (page, block) = place(*index);
        let touched = pages.entry(page).or_default();
        touched.stored.push((block, *stored));
        if edit.shared.binary_search(index).is_ok() {
            touched.shared.push(*stored);
        }
    }
    for block in &edit.moves {
        pages.entry(place(block.index).0).or_default().moves.push(block);
    }
    pages
}
