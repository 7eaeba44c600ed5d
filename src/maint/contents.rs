//! Inodes one after the other, each with its contents, attributes and orphan record.

use super::MaintError;
use super::blocks::Ranges;
use super::check::Survey;
use super::finding::{LostBecause, Problem, Subject};
use super::nodes::Node;
use super::read::DataReader;
use super::rows::{Row, Rows};
use super::segments::LOST;
use crate::base::{BLOCK_LEN, FILE_BYTES_MAX, FileKind, Ino, PAGE_BLOCKS, Run};
use crate::meta::{Body, Inode, Key, Page, Record};

const PAGE_LEN: u64 = PAGE_BLOCKS * BLOCK_LEN;
const SYMLINK_BYTES_MAX: usize = 4095;
const XATTR_BYTES_MAX: usize = 65_536;

/// What the records of one file add up to.
#[derive(Default)]
pub(super) struct File {
    ino: Option<Ino>,
    size: u64,
    /// Plaintext bytes.
    plain: u64,
    /// Where the last stored block ends.
    end: u64,
    /// Records that nothing refers to.
    unused: u64,
    /// Pages without a record, up to the end.
    gaps: Ranges,
    next_page: u64,
}

/// The walks that move along together.
struct Walks<'a> {
    inodes: Rows<'a>,
    extents: Rows<'a>,
    inline: Rows<'a>,
    xattrs: Rows<'a>,
    orphans: Rows<'a>,
}

impl Survey<'_> {
    /// Looks at every inode and all that hangs on it but its names.
    pub(super) async fn look_at_inodes(
        &mut self,
        mut reader: Option<&mut DataReader>,
    ) -> Result<(), MaintError> {
        let engine = self.source.engine.clone();
        let mut walks = Walks {
            inodes: Rows::of(&engine, b'I'),
            extents: Rows::of(&engine, b'E'),
            inline: Rows::of(&engine, b'B'),
            xattrs: Rows::of(&engine, b'X'),
            orphans: Rows::of(&engine, b'O'),
        };
        while let Some(ino) = self.next_ino(&mut walks).await? {
            self.highest_ino = self.highest_ino.max(ino);
            let row = walks.inodes.next_of(ino).await?;
            let orphan = walks.orphans.next_of(ino).await?;
            let is_orphan = orphan.is_some();
            if let Some(Row { raw, record: Err(why), .. }) = orphan {
                self.findings.add(Subject::Record(raw.to_vec()), Problem::RecordBroken { why });
            }
            match row {
                Some(Row { record: Ok(Record::Inode(inode)), .. }) => {
                    self.nodes.push(Node::of(ino, &inode, is_orphan));
                    self.totals.files += 1;
                    self.totals.stored_bytes = self.totals.stored_bytes.saturating_add(inode.allocated);
                    self.look_at_inode(ino, &inode);
                    self.look_at_contents(&mut walks, ino, &inode, &mut reader).await?;
                    self.look_at_xattrs(&mut walks.xattrs, ino, Some(&inode)).await?;
                }
                Some(row) => {
                    let why = row.record.err().unwrap_or_default();
                    self.findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordBroken { why });
                    self.nodes.push(Node::broken(ino, is_orphan));
                    self.look_at_astray(&mut walks, ino).await?;
                    while walks.xattrs.next_of(ino).await?.is_some() {}
                }
                None => {
                    if is_orphan {
                        self.findings.inode(ino, Problem::OrphanEmpty);
                    }
                    self.look_at_astray(&mut walks, ino).await?;
                    self.look_at_xattrs(&mut walks.xattrs, ino, None).await?;
                }
            }
            self.saw_records(1);
        }
        Ok(())
    }

    async fn next_ino(&mut self, walks: &mut Walks<'_>) -> Result<Option<Ino>, MaintError> {
        let mut next: Option<Ino> = None;
        let Walks { inodes, extents, inline, xattrs, orphans } = walks;
        for rows in [inodes, extents, inline, xattrs, orphans] {
            while let Some(row) = rows.peek().await? {
                if let Some(ino) = row.ino() {
                    next = Some(next.map_or(ino, |next| next.min(ino)));
                    break;
                }
                if let Some(row) = rows.next().await? {
                    self.findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordStray);
                }
            }
        }
        Ok(next)
    }

    fn look_at_inode(&mut self, ino: Ino, inode: &Inode) {
        let times = [inode.atime, inode.mtime, inode.ctime, inode.btime];
        let is_link = matches!(&inode.body, Body::Link(target) if inode.size == target.len() as u64);
        let odd = if inode.perm > 0o7777 {
            Some("its permission bits are none")
        } else if times.iter().any(|time| time.nanos >= 1_000_000_000) {
            Some("a time has more than a second's nanoseconds")
        } else if inode.size > FILE_BYTES_MAX {
            Some("its size is beyond what a file may have")
        } else if inode.kind == FileKind::Symlink && matches!(inode.body, Body::Link(_)) && !is_link {
            Some("its size is not that of its target")
        } else if !matches!(inode.kind, FileKind::Regular | FileKind::Symlink) && inode.size != 0 {
            Some("it has a size although it is no file")
        } else if inode.kind != FileKind::Directory && (inode.parent.0 != 0 || inode.entries != 0) {
            Some("it has a directory's fields although it is none")
        } else {
            None
        };
        let is_fitting = match (&inode.body, inode.kind) {
            (Body::Link(target), FileKind::Symlink) => (1..=SYMLINK_BYTES_MAX).contains(&target.len()),
            (Body::Link(_), _) | (_, FileKind::Symlink) => false,
            (Body::Empty, _) | (_, FileKind::Regular) => true,
            _ => false,
        };
        if !is_fitting {
            self.findings.inode(ino, Problem::BodyOdd);
        }
        if let Some(why) = odd {
            self.findings.inode(ino, Problem::InodeOdd { why });
        }
    }

    async fn look_at_contents(
        &mut self,
        walks: &mut Walks<'_>,
        ino: Ino,
        inode: &Inode,
        reader: &mut Option<&mut DataReader>,
    ) -> Result<(), MaintError> {
        let mut file = File { ino: Some(ino), size: inode.size, ..File::default() };
        match &inode.body {
            Body::Empty | Body::Link(_) => {}
            Body::Inline => self.look_at_inline(&mut walks.inline, &mut file, 0).await?,
            Body::Run(run) => self.look_at_run(&mut file, 0, run, reader).await?,
            Body::Pages => {
                while let Some(row) = walks.extents.next_of(ino).await? {
                    self.look_at_page(&mut walks.inline, &mut file, row, reader).await?;
                }
                file.pass_gap(inode.size.div_ceil(PAGE_LEN));
            }
        }
        while walks.extents.next_of(ino).await?.is_some() {
            file.unused += 1;
        }
        while walks.inline.next_of(ino).await?.is_some() {
            file.unused += 1;
        }
        self.judge_file(ino, inode, file);
        Ok(())
    }

    fn judge_file(&mut self, ino: Ino, inode: &Inode, file: File) {
        if file.unused > 0 {
            self.findings.inode(ino, Problem::ContentsUnused { records: file.unused });
        }
        // A block may be longer than what is left of the file, but none begins after its end.
        if file.end > inode.size.next_multiple_of(BLOCK_LEN) {
            self.findings.inode(ino, Problem::BeyondEnd { size: inode.size, end: file.end });
        }
        if file.plain < inode.allocated && file.gaps.bytes > 0 {
            let (ranges, recorded, counted) = (file.gaps.first, inode.allocated, file.plain);
            self.findings.inode(ino, Problem::PagesMissing { ranges, recorded, counted });
        } else if file.plain != inode.allocated {
            let (recorded, counted) = (inode.allocated, file.plain);
            self.findings.inode(ino, Problem::Allocated { recorded, counted });
        }
    }

    async fn look_at_page(
        &mut self,
        inline: &mut Rows<'_>,
        file: &mut File,
        row: Row,
        reader: &mut Option<&mut DataReader>,
    ) -> Result<(), MaintError> {
        let (Some(Key::Extents(ino, page)), record) = (row.key, row.record) else { return Ok(()) };
        let base = page.saturating_mul(PAGE_BLOCKS);
        file.pass_gap(page);
        file.next_page = page.saturating_add(1);
        let broken = match record {
            Ok(Record::Extents(extents)) => match fault_of(&extents) {
                None => {
                    for run in extents.runs.runs() {
                        self.look_at_run(file, base, run, reader).await?;
                    }
                    for block in &extents.inline {
                        self.look_at_inline(inline, file, base.saturating_add(u64::from(*block))).await?;
                    }
                    return Ok(());
                }
                Some(why) => why.to_owned(),
            },
            Ok(_) => return Ok(()),
            Err(why) => why,
        };
        self.findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordBroken { why: broken });
        let blocks = base..base.saturating_add(PAGE_BLOCKS);
        self.lost.add(ino, LostBecause::RecordMissing, None, blocks, file.size);
        Ok(())
    }

    /// Block `index`, which is to be a record of its own.
    async fn look_at_inline(
        &mut self,
        rows: &mut Rows<'_>,
        file: &mut File,
        index: u64,
    ) -> Result<(), MaintError> {
        let Some(ino) = file.ino else { return Ok(()) };
        while let Some(Row { key: Some(Key::Inline(found, block)), .. }) = rows.peek().await? {
            if *found != ino || *block > index {
                break;
            }
            let is_it = *block == index;
            let row = rows.next().await?;
            match row.map(|row| (row.raw, row.record)) {
                Some((_, Ok(Record::Inline(bytes)))) if is_it => {
                    file.stored(index, bytes.len() as u64);
                    return Ok(());
                }
                Some((raw, Err(why))) if is_it => {
                    self.findings.add(Subject::Record(raw.to_vec()), Problem::RecordBroken { why });
                    break;
                }
                _ => file.unused += 1,
            }
        }
        let blocks = index..index.saturating_add(1);
        self.lost.add(ino, LostBecause::RecordMissing, None, blocks, file.size);
        Ok(())
    }

    /// A run whose first block is `run.first` after `base`.
    async fn look_at_run(
        &mut self,
        file: &mut File,
        base: u64,
        run: &Run,
        reader: &mut Option<&mut DataReader>,
    ) -> Result<(), MaintError> {
        let Some(ino) = file.ino else { return Ok(()) };
        let first = base.saturating_add(u64::from(run.first));
        let lost = if run.segment == LOST {
            Some((LostBecause::Given, 0..run.block_count()))
        } else {
            let (place, known) = self.segments.of(run.segment);
            known.counted = known.counted.saturating_add(run.sealed_bytes());
            let lost = known.lost(run);
            self.overlap.note(place, run);
            lost
        };
        let plain: u64 = run.rest.iter().map(|piece| u64::from(piece.plain)).sum();
        let last = run.rest.last().map_or(BLOCK_LEN, |piece| u64::from(piece.plain));
        file.plain += plain + u64::from(run.full) * BLOCK_LEN;
        let last_index = first.saturating_add(u64::from(run.block_count())).saturating_sub(1);
        file.reaches(last_index, last);
        if let Some((because, blocks)) = &lost {
            let segment = (*because != LostBecause::Given).then_some(run.segment);
            let index = |block: u32| first.saturating_add(u64::from(block));
            let blocks = index(blocks.start)..index(blocks.end);
            self.lost.add(ino, *because, segment, blocks, file.size.max(file.end));
        }
        if let Some(reader) = reader
            && let Some(seal) = self.segments.seal(run.segment)
        {
            let whole = lost.map_or(run.block_count(), |(_, blocks)| blocks.start);
            for (index, place) in run.places().take(whole as usize) {
                let index = base.saturating_add(u64::from(index));
                reader.push(ino, index, file.size, place, &seal).await?;
            }
            self.tell_bytes(reader.opened());
        }
        Ok(())
    }

    async fn look_at_astray(&mut self, walks: &mut Walks<'_>, ino: Ino) -> Result<(), MaintError> {
        let mut records = 0;
        let mut file = File { ino: Some(ino), size: FILE_BYTES_MAX, ..File::default() };
        while let Some(row) = walks.extents.next_of(ino).await? {
            records += 1;
            self.look_at_page(&mut walks.inline, &mut file, row, &mut None).await?;
        }
        while walks.inline.next_of(ino).await?.is_some() {
            records += 1;
        }
        if records > 0 {
            self.findings.inode(ino, Problem::ContentsAstray { records });
        }
        Ok(())
    }

    async fn look_at_xattrs(
        &mut self,
        rows: &mut Rows<'_>,
        ino: Ino,
        inode: Option<&Inode>,
    ) -> Result<(), MaintError> {
        let mut count: u64 = 0;
        while let Some(row) = rows.next_of(ino).await? {
            count += 1;
            let (Some(Key::Xattr(_, tag)), Some(_)) = (row.key, inode) else { continue };
            match row.record {
                Ok(Record::Xattr(xattr)) => {
                    let opens = self.source.ring().open_xattr_name(ino, tag, &xattr.name).is_ok();
                    if !opens || xattr.value.len() > XATTR_BYTES_MAX {
                        self.findings.inode(ino, Problem::XattrName { tag: tag.0 });
                    }
                }
                Ok(_) => {}
                Err(why) => {
                    self.findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordBroken { why });
                }
            }
        }
        match inode {
            None if count > 0 => self.findings.inode(ino, Problem::XattrsAstray { count }),
            Some(inode) if u64::from(inode.xattrs) != count => {
                let (recorded, counted) = (inode.xattrs, u32::try_from(count).unwrap_or(u32::MAX));
                self.findings.inode(ino, Problem::XattrCount { recorded, counted });
            }
            _ => {}
        }
        Ok(())
    }
}

impl File {
    fn stored(&mut self, index: u64, plain: u64) {
        self.plain += plain;
        self.reaches(index, plain);
    }

    fn reaches(&mut self, index: u64, plain: u64) {
        self.end = self.end.max(index.saturating_mul(BLOCK_LEN).saturating_add(plain));
    }

    /// Notes that the pages before `page` have no record.
    fn pass_gap(&mut self, page: u64) {
        if self.next_page < page {
            let start = self.next_page.saturating_mul(PAGE_LEN);
            let end = page.saturating_mul(PAGE_LEN).min(self.size);
            if start < end {
                self.gaps.add(start..end);
            }
        }
    }
}

/// What is wrong with a page that decodes.
fn fault_of(page: &Page) -> Option<&'static str> {
    if !page.inline.is_sorted_by(|a, b| a < b) {
        return Some("its inline blocks are out of order");
    }
    if page.inline.iter().any(|block| u64::from(*block) >= PAGE_BLOCKS) {
        return Some("an inline block leaves its page");
    }
    if page.inline.iter().any(|block| page.runs.lookup(*block).is_some()) {
        return Some("a block is in two places");
    }
    None
}
