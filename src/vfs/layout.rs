//! What a commit does to the extents of files: from a group's edits to records.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::base::{FileKind, Ino, LiveDelta, PAGE_BLOCKS, RunList, Tag};
use crate::data::{FileEdit, Moved};
use crate::meta::{Body, Inode, Key, Page, Record};

use super::left_out::LeftOut;
use super::locate;
use super::touched::{Touched, by_page};
use super::{Vfs, VfsError};

/// Records read from the engine at a time.
const SCAN_COUNT: usize = 1024;

/// What a commit writes besides the group's own records.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Extents, inline blocks and attributes that change; `None` deletes.
    pub(super) records: BTreeMap<Key, Option<Record>>,
    /// Files whose contents lie elsewhere now.
    pub(super) bodies: BTreeMap<Ino, NewBody>,
    /// Bytes that segments gained and lost.
    pub(super) live: LiveDelta,
    /// Change of the plaintext bytes stored.
    pub(super) allocated: i64,
    /// Moves that were granted.
    pub(super) moved: Moved,
    /// What cannot be done, because it would change what cannot be read.
    pub(super) left_out: LeftOut,
}

impl Layout {
    /// Adds what becomes of another file.
    fn add(&mut self, other: Self) {
        self.records.extend(other.records);
        self.bodies.extend(other.bodies);
        self.live.merge(&other.live);
        self.allocated += other.allocated;
        self.moved.extend(other.moved);
        self.left_out.add(other.left_out);
    }
}

/// Where a file's contents are after a commit.
#[derive(Clone, Debug)]
pub(super) struct NewBody {
    pub(super) body: Body,
    pub(super) allocated: u64,
}

/// One page being edited.
#[derive(Default)]
struct PageEdit {
    runs: RunList,
    /// Inline blocks of the page and their lengths; 0 where it is not known.
    inline: BTreeMap<u32, u32>,
}

impl Vfs {
    /// Works out the records for `edits`. Depends on nothing that can change while a group is
    /// sealed. What would change records that are damaged is left out if `is_last_try`, else an error.
    pub(super) async fn lay_out(
        &self,
        edits: Vec<(Ino, FileEdit)>,
        is_last_try: bool,
    ) -> Result<Layout, VfsError> {
        let mut layout = Layout::default();
        for (ino, edit) in edits {
            let mut own = Layout::default();
            match self.lay_out_edit(&mut own, ino, &edit, is_last_try).await {
                Ok(()) => layout.add(own),
                Err(error) if !self.is_certain(&error, is_last_try) => return Err(error),
                // Its blocks stay where they are.
                Err(_) if only_moves(&edit) => {}
                Err(error) if edit.is_freed => layout.left_out.keep_removed(ino, error),
                Err(error) => {
                    let committed = self.read_txn(|txn| locate::committed_inode(txn, ino)).await;
                    let size = committed.ok().flatten().map(|inode| inode.size);
                    layout.left_out.keep_file(ino, size, error);
                }
            }
        }
        Ok(layout)
    }

    async fn lay_out_edit(
        &self,
        layout: &mut Layout,
        ino: Ino,
        edit: &FileEdit,
        is_last_try: bool,
    ) -> Result<(), VfsError> {
        let is_new = self.state.lock().overlay.is_sealed_fresh(&Key::Inode(ino));
        let inode = match is_new {
            true => None,
            false => self.read_txn(|txn| locate::committed_inode(txn, ino)).await?,
        };
        if !edit.is_freed {
            return self.lay_out_file(layout, ino, inode.as_deref(), edit, is_last_try).await;
        }
        if let Some(inode) = inode {
            self.clear(layout, ino, &inode, 0..u64::MAX).await?;
            layout.allocated -= signed(inode.allocated);
            if inode.xattrs > 0 {
                self.clear_xattrs(layout, ino).await?;
            }
        }
        Ok(())
    }

    async fn lay_out_file(
        &self,
        layout: &mut Layout,
        ino: Ino,
        inode: Option<&Inode>,
        edit: &FileEdit,
        is_last_try: bool,
    ) -> Result<(), VfsError> {
        let (old_body, old_allocated) = match inode {
            Some(inode) if inode.kind == FileKind::Regular => (inode.body.clone(), inode.allocated),
            _ => (Body::Empty, 0),
        };
        let mut freed: u64 = 0;
        let mut body = old_body.clone();
        if let Some(inode) = inode {
            for range in edit.void.iter() {
                if *range == (0..u64::MAX) {
                    freed = old_allocated;
                    self.clear(layout, ino, inode, range.clone()).await?;
                    body = Body::Empty;
                } else {
                    freed += self.void_pages(layout, ino, &mut body, range.clone()).await?;
                }
            }
        }
        let mut gained: u64 = 0;
        for (page, touched) in by_page(edit) {
            let first = page * PAGE_BLOCKS;
            let mut edited = match self.open_page_to_write(layout, ino, &body, page, &touched).await {
                Ok(edited) => edited,
                Err(error) if !self.is_certain(&error, is_last_try) => return Err(error),
                Err(_) if !touched.is_written() => continue,
                Err(error) => {
                    layout.left_out.keep_page(ino, page, error);
                    continue;
                }
            };
            for (block, bytes) in &touched.inline {
                freed += plain_bytes(&edited, *block..*block + 1);
                edited.runs.remove(*block..*block + 1, &mut layout.live);
                edited.inline.insert(*block, *bytes);
                gained += u64::from(*bytes);
            }
            for (block, place) in &touched.stored {
                freed += plain_bytes(&edited, *block..*block + 1);
                if edited.inline.remove(block).is_some() {
                    layout.records.insert(Key::Inline(ino, first + u64::from(*block)), None);
                }
                gained += u64::from(place.piece.plain);
            }
            edited.runs.replace(&touched.stored, &mut layout.live);
            for place in &touched.shared {
                layout.records.insert(Key::Reference(place.segment, ino, page), Some(Record::Reference));
            }
            let has_moved = grant_moves(layout, ino, page, &mut edited, &touched);
            if has_moved || touched.is_written() {
                close_page(layout, ino, &mut body, page, edited);
            }
        }
        let allocated = (old_allocated + gained).saturating_sub(freed);
        layout.allocated += signed(allocated) - signed(old_allocated);
        if body != old_body || allocated != old_allocated {
            layout.bodies.insert(ino, NewBody { body, allocated });
        }
        Ok(())
    }

    /// Voids blocks of a file that keeps others. Gives the plaintext bytes that went.
    async fn void_pages(
        &self,
        layout: &mut Layout,
        ino: Ino,
        body: &mut Body,
        range: Range<u64>,
    ) -> Result<u64, VfsError> {
        let pages = match body {
            Body::Empty | Body::Link(_) => return Ok(0),
            Body::Inline | Body::Run(_) => vec![0],
            Body::Pages => {
                let wanted = range.start / PAGE_BLOCKS..range.end.div_ceil(PAGE_BLOCKS);
                self.pages(layout, ino, wanted).await?
            }
        };
        let mut freed = 0;
        for page in pages {
            let first = page * PAGE_BLOCKS;
            let from = range.start.saturating_sub(first).min(PAGE_BLOCKS) as u32;
            let to = range.end.saturating_sub(first).min(PAGE_BLOCKS) as u32;
            if from >= to {
                continue;
            }
            let mut edited = self.open_page(layout, ino, body, page).await?;
            freed += plain_bytes(&edited, from..to);
            edited.runs.remove(from..to, &mut layout.live);
            let gone: Vec<u32> = edited.inline.range(from..to).map(|(block, _)| *block).collect();
            for block in gone {
                edited.inline.remove(&block);
                layout.records.insert(Key::Inline(ino, first + u64::from(block)), None);
            }
            close_page(layout, ino, body, page, edited);
        }
        Ok(freed)
    }

    /// The pages of a file within a range of page numbers that have extents.
    async fn pages(&self, layout: &Layout, ino: Ino, range: Range<u64>) -> Result<Vec<u64>, VfsError> {
        let edited = layout.records.range(Key::Extents(ino, range.start)..Key::Extents(ino, range.end));
        let mut pages: std::collections::BTreeSet<u64> = edited.filter_map(|(key, _)| page_of(key)).collect();
        let mut from = Key::Extents(ino, range.start);
        let to = Key::Extents(ino, range.end);
        loop {
            let (records, last) = self.scan(from, to, SCAN_COUNT).await?;
            pages.extend(records.iter().filter_map(|(key, _)| page_of(key)));
            match last {
                Some(Key::Extents(_, page)) => from = Key::Extents(ino, page + 1),
                _ => return Ok(pages.into_iter().collect()),
            }
        }
    }

    async fn open_page(
        &self,
        layout: &Layout,
        ino: Ino,
        body: &Body,
        page: u64,
    ) -> Result<PageEdit, VfsError> {
        match body {
            Body::Inline if page == 0 => {
                let len = self.inline_len(ino, 0).await?;
                Ok(PageEdit { inline: BTreeMap::from([(0, len)]), ..PageEdit::default() })
            }
            Body::Run(run) if page == 0 => {
                let mut edit = PageEdit::default();
                edit.runs.put(run.clone(), &mut LiveDelta::default());
                Ok(edit)
            }
            Body::Pages => {
                let key = Key::Extents(ino, page);
                let found = match layout.records.get(&key) {
                    Some(record) => record.clone(),
                    None => self.read_txn(|txn| txn.committed(key)).await?,
                };
                let Some(Record::Extents(extents)) = found else { return Ok(PageEdit::default()) };
                let mut inline = BTreeMap::new();
                for block in &extents.inline {
                    let index = page * PAGE_BLOCKS + u64::from(*block);
                    inline.insert(*block, self.inline_len(ino, index).await?);
                }
                Ok(PageEdit { runs: extents.runs.clone(), inline })
            }
            _ => Ok(PageEdit::default()),
        }
    }

    /// As [`Vfs::open_page`], if all segments can be read of which blocks come to be shared there.
    async fn open_page_to_write(
        &self,
        layout: &Layout,
        ino: Ino,
        body: &Body,
        page: u64,
        touched: &Touched<'_>,
    ) -> Result<PageEdit, VfsError> {
        for place in &touched.shared {
            self.read_txn(|txn| locate::segment(txn, place.segment)).await?;
        }
        self.open_page(layout, ino, body, page).await
    }

    /// How long an inline block is. What is not known of a damaged one is counted as nothing.
    async fn inline_len(&self, ino: Ino, index: u64) -> Result<u32, VfsError> {
        match self.read_txn(|txn| txn.committed(Key::Inline(ino, index))).await {
            Ok(Some(Record::Inline(bytes))) => Ok(bytes.len() as u32),
            Err(error) if !error.is_damage() => Err(error),
            _ => Ok(0),
        }
    }

    /// Drops all contents of a file.
    async fn clear(
        &self,
        layout: &mut Layout,
        ino: Ino,
        inode: &Inode,
        range: Range<u64>,
    ) -> Result<(), VfsError> {
        match &inode.body {
            Body::Empty | Body::Link(_) => {}
            Body::Inline => drop(layout.records.insert(Key::Inline(ino, 0), None)),
            Body::Run(run) => layout.live.lose(run.segment, run.sealed_bytes()),
            Body::Pages => {
                self.clear_pages(layout, ino, range.start..range.end.div_ceil(PAGE_BLOCKS)).await?;
            }
        }
        Ok(())
    }

    /// Drops all that a range of pages has, as they are read: a large file has hundreds of thousands.
    async fn clear_pages(&self, layout: &mut Layout, ino: Ino, pages: Range<u64>) -> Result<(), VfsError> {
        let (mut from, to) = (Key::Extents(ino, pages.start), Key::Extents(ino, pages.end));
        let edited = layout.records.range(from..to).filter_map(|(key, record)| Some((*key, record.clone()?)));
        for (key, record) in edited.collect::<Vec<_>>() {
            drop_page(layout, ino, key, &record);
        }
        loop {
            let (records, last) = self.scan(from, to, SCAN_COUNT).await?;
            for (key, record) in records {
                if !layout.records.contains_key(&key) {
                    drop_page(layout, ino, key, &record);
                }
            }
            match last {
                Some(Key::Extents(_, page)) => from = Key::Extents(ino, page + 1),
                _ => return Ok(()),
            }
        }
    }

    async fn clear_xattrs(&self, layout: &mut Layout, ino: Ino) -> Result<(), VfsError> {
        let mut from = Key::Xattr(ino, Tag([0; 16]));
        let to = Key::Xattr(Ino(ino.0.saturating_add(1)), Tag([0; 16]));
        loop {
            let (records, last) = self.scan(from, to, SCAN_COUNT).await?;
            layout.records.extend(records.into_iter().map(|(key, _)| (key, None)));
            match last {
                Some(Key::Xattr(_, tag)) => from = Key::Xattr(ino, super::xattr::next_tag(tag)),
                _ => return Ok(()),
            }
        }
    }
}

/// Lets those blocks of a page lie where they were copied to that still lie where they were found.
fn grant_moves(
    layout: &mut Layout,
    ino: Ino,
    page: u64,
    edited: &mut PageEdit,
    touched: &Touched<'_>,
) -> bool {
    let mut granted: Vec<_> = Vec::new();
    for block in touched.moves.iter().copied() {
        let within = (block.index % PAGE_BLOCKS) as u32;
        if edited.runs.lookup(within) == Some(block.from) && block.from.piece == block.to.piece {
            granted.push((within, block));
        }
    }
    // A round that was taken up again may have copied a block twice.
    granted.sort_by_key(|(within, _)| *within);
    granted.dedup_by_key(|(within, _)| *within);
    for (_, block) in &granted {
        layout.moved.note(block.from, block.to);
        if block.is_shared {
            let key = Key::Reference(block.to.segment, ino, page);
            layout.records.insert(key, Some(Record::Reference));
        }
    }
    let granted: Vec<_> = granted.into_iter().map(|(within, block)| (within, block.to)).collect();
    edited.runs.replace(&granted, &mut layout.live);
    !granted.is_empty()
}

/// Puts an edited page back, in the tersest form its file allows.
fn close_page(layout: &mut Layout, ino: Ino, body: &mut Body, page: u64, edit: PageEdit) {
    let is_empty = edit.runs.is_empty() && edit.inline.is_empty();
    if *body != Body::Pages && page == 0 {
        let is_first_only = edit.inline.len() == 1 && edit.inline.contains_key(&0);
        match edit.runs.runs() {
            [] if is_empty => *body = Body::Empty,
            [] if is_first_only => *body = Body::Inline,
            [run] if edit.inline.is_empty() && run.first == 0 => *body = Body::Run(run.clone()),
            _ => *body = put_page(layout, ino, page, edit),
        }
        return;
    }
    match body {
        Body::Run(run) => {
            let mut first = PageEdit::default();
            first.runs.put(run.clone(), &mut LiveDelta::default());
            put_page(layout, ino, 0, first);
        }
        Body::Inline => {
            put_page(layout, ino, 0, PageEdit { inline: BTreeMap::from([(0, 0)]), ..PageEdit::default() });
        }
        Body::Empty | Body::Link(_) if is_empty => return,
        Body::Empty | Body::Link(_) | Body::Pages => {}
    }
    *body = put_page(layout, ino, page, edit);
}

fn put_page(layout: &mut Layout, ino: Ino, page: u64, edit: PageEdit) -> Body {
    let record = (!edit.runs.is_empty() || !edit.inline.is_empty()).then(|| {
        let page = Page { runs: edit.runs, inline: edit.inline.keys().copied().collect() };
        Record::Extents(Arc::new(page))
    });
    layout.records.insert(Key::Extents(ino, page), record);
    Body::Pages
}

/// Drops a page and what it has.
fn drop_page(layout: &mut Layout, ino: Ino, key: Key, record: &Record) {
    if let (Key::Extents(_, page), Record::Extents(extents)) = (key, record) {
        for run in extents.runs.runs() {
            layout.live.lose(run.segment, run.sealed_bytes());
        }
        for block in &extents.inline {
            layout.records.insert(Key::Inline(ino, page * PAGE_BLOCKS + u64::from(*block)), None);
        }
        layout.records.insert(key, None);
    }
}

const fn page_of(key: &Key) -> Option<u64> {
    match key {
        Key::Extents(_, page) => Some(*page),
        _ => None,
    }
}

fn only_moves(edit: &FileEdit) -> bool {
    !edit.is_freed && edit.void.is_empty() && edit.stored.is_empty() && edit.inline.is_empty()
}

/// Plaintext bytes of the blocks of `range` that are stored.
fn plain_bytes(page: &PageEdit, range: Range<u32>) -> u64 {
    let stored: u64 =
        page.runs.iter_range(range.clone()).map(|(_, place)| u64::from(place.piece.plain)).sum();
    let inline: u64 = page.inline.range(range).map(|(_, bytes)| u64::from(*bytes)).sum();
    stored + inline
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
