//! What a repair does about an inode, its attributes and its contents.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::MaintError;
use super::finding::{Finding, Problem};
use super::mend_segments::within;
use super::mender::Mender;
use super::rows::Rows;
use crate::base::{BLOCK_LEN, FILE_BYTES_MAX, FileKind, Ino, PAGE_BLOCKS, RunList, Tag};
use crate::meta::{Body, Inode, Key, Page, Record};

/// How many of a file's stray records of blocks it takes back.
enum TakenBack {
    All,
    NotAll,
    Later,
}

impl Mender<'_> {
    pub(super) async fn mend_inode(&mut self, finding: &Finding, ino: Ino) -> Result<(), MaintError> {
        match &finding.problem {
            Problem::ParentWrong { named_by, .. } => {
                self.desk.change(ino, |inode| inode.parent = *named_by).await?;
                self.tell(finding, format!("notes {named_by} as its parent"));
            }
            Problem::Cycle => {
                self.cut_before(ino).await?;
                self.tell(finding, "cuts the ring and puts the directory below /lost+found");
            }
            Problem::Unreachable { kind } => {
                let kind = self.rebuilt.get(&ino).copied().unwrap_or(*kind);
                self.connect(ino, kind).await?;
                self.tell(finding, format!("names it /lost+found/{ino}"));
            }
            Problem::OrphanNamed | Problem::OrphanEmpty => {
                self.desk.put(Key::Orphan(ino), None);
                self.tell(finding, "takes the mark away");
            }
            Problem::Orphan => {
                self.free(ino).await?;
                self.tell(finding, "frees it");
            }
            Problem::InodeOdd { .. } => {
                self.desk.change(ino, straighten).await?;
                self.tell(finding, "sets it to what it can be");
            }
            Problem::BodyOdd => self.mend_body(finding, ino).await?,
            Problem::ContentsUnused { .. } => self.mend_unused(finding, ino).await?,
            Problem::BeyondEnd { end, .. } => {
                let end = (*end).min(FILE_BYTES_MAX);
                self.desk.change(ino, |inode| inode.size = inode.size.max(end)).await?;
                self.tell(finding, format!("lets the file end at byte {end}"));
            }
            Problem::PagesMissing { counted, .. } => self.mend_gaps(finding, ino, *counted).await?,
            Problem::XattrName { tag } => {
                self.desk.put(Key::Xattr(ino, Tag(*tag)), None);
                self.desk.change(ino, |inode| inode.xattrs = inode.xattrs.saturating_sub(1)).await?;
                self.tell(finding, "removes the attribute");
            }
            Problem::XattrsAstray { .. } if !self.rebuilt.contains_key(&ino) => {
                for key in self.keys_of(ino, b'X').await? {
                    self.desk.put(key, None);
                }
                self.tell(finding, "removes the attributes of nobody");
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) async fn keys_of(&self, ino: Ino, letter: u8) -> Result<Vec<Key>, MaintError> {
        let from = [&[letter][..], &ino.0.to_be_bytes()].concat();
        let to = [&[letter][..], &ino.0.saturating_add(1).to_be_bytes()].concat();
        let mut rows = Rows::between(&self.desk.engine, from, to);
        let mut keys = Vec::new();
        while let Some(row) = rows.next().await? {
            keys.extend(row.key);
        }
        Ok(keys)
    }

    /// Frees an orphan, its contents and attributes. What segments count is put right when that is done: were it noted before
    /// all of this is, a mount that frees the rest would count it twice, and let go what other files need.
    async fn free(&mut self, ino: Ino) -> Result<(), MaintError> {
        if let Some(Inode { body: Body::Run(run), .. }) = self.desk.inode(ino).await? {
            self.let_go.lose(run.segment, run.sealed_bytes());
        }
        for letter in *b"BEX" {
            for key in self.keys_of(ino, letter).await? {
                if let Some(Record::Extents(page)) = self.desk.get(key).await? {
                    page.runs.runs().iter().for_each(|run| self.let_go.lose(run.segment, run.sealed_bytes()));
                }
                self.desk.put(key, None);
            }
        }
        self.desk.put(Key::Inode(ino), None);
        self.desk.put(Key::Orphan(ino), None);
        self.freed.insert(ino);
        Ok(())
    }

    async fn mend_body(&mut self, finding: &Finding, ino: Ino) -> Result<(), MaintError> {
        let has_entries = self.survey.nodes.get(ino).is_some_and(|node| node.is_counted)
            || self.rebuilt.get(&ino) == Some(&FileKind::Directory);
        self.desk
            .change(ino, |inode| match &inode.body {
                _ if has_entries => inode.body = Body::Empty,
                Body::Link(target) if !target.is_empty() => inode.kind = FileKind::Symlink,
                Body::Link(_) => (inode.kind, inode.body) = (FileKind::Regular, Body::Empty),
                _ => inode.kind = FileKind::Regular,
            })
            .await?;
        self.desk.change(ino, straighten).await?;
        self.tell(finding, "makes it what its contents are");
        Ok(())
    }

    /// Makes an inode anew for extents and records that have lost theirs.
    pub(super) async fn rebuild_file(&mut self, ino: Ino) -> Result<(), MaintError> {
        let mut inode = self.private(FileKind::Regular);
        let end = self.adopt(ino, ino).await?;
        (inode.body, inode.size) = (Body::Pages, end);
        self.desk.put_inode(ino, inode);
        Ok(())
    }

    /// Contents that the inode does not refer to: its own, if it has no others, else those of a new file.
    async fn mend_unused(&mut self, finding: &Finding, ino: Ino) -> Result<(), MaintError> {
        let Some(inode) = self.desk.inode(ino).await? else { return Ok(()) };
        if inode.kind == FileKind::Regular && inode.body == Body::Empty {
            let end = self.adopt(ino, ino).await?;
            self.desk
                .change(ino, |inode| {
                    inode.body = Body::Pages;
                    // A block is as long as what was written to it; the file may end within it.
                    if inode.size.next_multiple_of(BLOCK_LEN) < end {
                        inode.size = end;
                    }
                })
                .await?;
            self.tell(finding, "gives the contents back to the file");
            return Ok(());
        }
        if inode.body == Body::Pages {
            match self.take_back(ino).await? {
                TakenBack::All => {
                    self.tell(finding, "gives the contents back to the file");
                    return Ok(());
                }
                // Their page is written anew first.
                TakenBack::Later => return Ok(()),
                TakenBack::NotAll => {}
            }
        }
        let new = self.desk.new_ino();
        let end = self.adopt(ino, new).await?;
        let made = Inode { size: end, body: Body::Pages, ..self.private(FileKind::Regular) };
        self.desk.put_inode(new, made);
        self.connect(new, FileKind::Regular).await?;
        self.tell(finding, format!("gives them to a new file, /lost+found/{new}"));
        Ok(())
    }

    /// Notes blocks that are records in pages that have none.
    async fn take_back(&mut self, ino: Ino) -> Result<TakenBack, MaintError> {
        let there = self.keys_of(ino, b'E').await?;
        let mut pages: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for key in self.keys_of(ino, b'B').await? {
            let Key::Inline(_, index) = key else { continue };
            let (page, block) = within(index);
            if !there.contains(&Key::Extents(ino, page)) {
                pages.entry(page).or_default().push(block);
            } else if let Some(Record::Extents(page)) = self.desk.get(Key::Extents(ino, page)).await?
                && !page.inline.contains(&block)
            {
                return Ok(TakenBack::NotAll);
            }
        }
        if pages.is_empty() {
            return Ok(TakenBack::Later);
        }
        for (number, inline) in pages {
            let page = Page { runs: RunList::new(), inline };
            self.desk.put(Key::Extents(ino, number), Some(Record::Extents(Arc::new(page))));
        }
        Ok(TakenBack::All)
    }

    /// Makes pages of all extents and inline blocks of `from` that its inode does not refer to, for `to`.
    /// Gives the byte at which they end.
    async fn adopt(&mut self, from: Ino, to: Ino) -> Result<u64, MaintError> {
        let body = match from == to {
            true => Body::Empty,
            false => self.desk.inode(from).await?.map(|inode| inode.body).unwrap_or_default(),
        };
        let mut pages: BTreeMap<u64, Page> = BTreeMap::new();
        let mut end = 0;
        let mut referred = Vec::new();
        for key in self.keys_of(from, b'E').await? {
            let Key::Extents(_, number) = key else { continue };
            let Some(Record::Extents(page)) = self.desk.get(key).await? else {
                // In its own file it is found to be broken, and marked as lost.
                if from != to && body != Body::Pages {
                    self.desk.put(key, None);
                }
                continue;
            };
            let first = number.saturating_mul(PAGE_BLOCKS);
            if body == Body::Pages {
                referred.extend(page.inline.iter().map(|block| first.saturating_add(u64::from(*block))));
                continue;
            }
            for run in page.runs.runs() {
                let last = run.rest.last().map_or(BLOCK_LEN, |piece| u64::from(piece.plain));
                let index = first.saturating_add(u64::from(run.end())).saturating_sub(1);
                end = end.max(index.saturating_mul(BLOCK_LEN).saturating_add(last));
            }
            let page = Page { runs: page.runs.clone(), inline: Vec::new() };
            pages.insert(number, page);
            if from != to {
                self.desk.put(key, None);
            }
        }
        for key in self.keys_of(from, b'B').await? {
            let Key::Inline(_, index) = key else { continue };
            if referred.binary_search(&index).is_ok() || (body == Body::Inline && index == 0) {
                continue;
            }
            let Some(Record::Inline(bytes)) = self.desk.get(key).await? else {
                self.desk.put(key, None);
                continue;
            };
            let page = pages.entry(index / PAGE_BLOCKS).or_default();
            let block = (index % PAGE_BLOCKS) as u32;
            if page.runs.lookup(block).is_some() {
                self.desk.put(key, None);
                continue;
            }
            page.inline.push(block);
            end = end.max(index.saturating_mul(BLOCK_LEN).saturating_add(bytes.len() as u64));
            if from != to {
                self.desk.put(key, None);
                self.desk.put(Key::Inline(to, index), Some(Record::Inline(bytes)));
            }
        }
        for (number, page) in pages {
            self.desk.put(Key::Extents(to, number), Some(Record::Extents(Arc::new(page))));
        }
        Ok(end.min(FILE_BYTES_MAX))
    }
}

/// Sets each field that has a value which cannot be to the nearest that can.
fn straighten(inode: &mut Inode) {
    inode.perm &= 0o7777;
    for time in [&mut inode.atime, &mut inode.mtime, &mut inode.ctime, &mut inode.btime] {
        time.nanos = time.nanos.min(999_999_999);
    }
    inode.size = match (&inode.body, inode.kind) {
        (Body::Link(target), FileKind::Symlink) => target.len() as u64,
        (_, FileKind::Regular) => inode.size.min(FILE_BYTES_MAX),
        _ => 0,
    };
    if inode.kind != FileKind::Directory {
        (inode.parent, inode.entries) = (Ino(0), 0);
    }
}
