//! Decides what a repair does about each finding.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::MaintError;
use super::check::Survey;
use super::desk::Desk;
use super::finding::{Finding, Problem, Subject};
use super::words::kind_word;
use crate::base::{FileKind, Ino, LiveDelta, Tag, Time};
use crate::meta::{Body, Entry, Garbage, Inode, Key, Record};

/// What a repair does, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// What it is about.
    pub place: String,
    /// What is done.
    pub what: String,
}

/// One round of a repair: what is found, and what is going to be changed.
pub(super) struct Mender<'a> {
    pub(super) survey: &'a Survey<'a>,
    pub(super) desk: Desk,
    pub(super) deeds: Vec<Deed>,
    pub(super) now: Time,
    pub(super) salvages: bool,
    pub(super) lost_and_found: Option<Ino>,
    /// Inodes that are made anew, and as what.
    pub(super) rebuilt: BTreeMap<Ino, FileKind>,
    /// Inodes that an earlier round has freed: what is left of them in segments is nobody's.
    pub(super) freed: HashSet<Ino>,
    /// Files whose gaps have been looked into: what is left of those are holes.
    pub(super) settled: HashSet<Ino>,
    /// Blocks of files that are gone were found and left.
    pub(super) kept_for_salvage: bool,
    /// Bytes of segments that were those of freed files.
    pub(super) let_go: LiveDelta,
    /// Files of whose pages some are missing.
    pub(super) gappy: HashSet<Ino>,
}

impl Mender<'_> {
    /// Decides about everything but counts. When nothing is left of that, decides about counts.
    pub(super) async fn decide(&mut self) -> Result<(), MaintError> {
        let survey = self.survey;
        self.mend_history().await?;
        if self.salvages {
            self.salvage().await?;
        }
        for finding in &survey.findings.kept {
            self.rebuild(finding).await?;
        }
        for finding in &survey.findings.kept {
            self.mend(finding).await?;
        }
        Ok(())
    }

    pub(super) fn tell(&mut self, finding: &Finding, what: impl Into<String>) {
        self.deeds.push(Deed { place: finding.place(), what: what.into() });
    }

    /// Makes inodes anew of which something is left.
    async fn rebuild(&mut self, finding: &Finding) -> Result<(), MaintError> {
        let Subject::Inode(ino) = finding.subject else { return Ok(()) };
        match finding.problem {
            _ if self.rebuilt.contains_key(&ino) => Ok(()),
            Problem::RootMissing | Problem::EntriesAstray { .. } if ino == Ino::ROOT => {
                let inode = Inode { perm: 0o755, parent: ino, ..self.private(FileKind::Directory) };
                self.desk.put_inode(ino, inode);
                self.rebuilt.insert(ino, FileKind::Directory);
                self.tell(finding, "makes a new root directory, owned by root");
                Ok(())
            }
            Problem::EntriesAstray { is_gone: true, .. } => {
                let inode = self.private(FileKind::Directory);
                self.desk.put_inode(ino, inode);
                self.tell(finding, "makes the directory anew, owned by root");
                self.place(ino, FileKind::Directory).await
            }
            Problem::EntriesAstray { .. } => {
                self.tell(finding, "makes it a directory again");
                self.rebuilt.insert(ino, FileKind::Directory);
                self.desk
                    .change(ino, |inode| {
                        inode.kind = FileKind::Directory;
                        inode.body = Body::Empty;
                        inode.size = 0;
                    })
                    .await
            }
            Problem::ContentsAstray { .. } => {
                self.rebuild_file(ino).await?;
                self.tell(finding, "makes the file anew from its contents, owned by root");
                self.place(ino, FileKind::Regular).await
            }
            _ => Ok(()),
        }
    }

    /// Gives an inode that is made anew its old names, or one below `/lost+found`.
    pub(super) async fn place(&mut self, ino: Ino, kind: FileKind) -> Result<(), MaintError> {
        self.rebuilt.insert(ino, kind);
        let mut parent = None;
        for finding in &self.survey.findings.kept {
            let (Subject::Entry { dir, tag, .. }, Problem::EntryDangling { ino: named, .. }) =
                (&finding.subject, &finding.problem)
            else {
                continue;
            };
            // A directory has one name; the others go.
            if *named == ino && (kind != FileKind::Directory || parent.is_none()) {
                parent = Some(*dir);
                let key = Key::Entry(*dir, Tag(*tag));
                if let Some(Record::Entry(entry)) = self.desk.get(key).await? {
                    let entry = Entry { kind, ..(*entry).clone() };
                    self.desk.put(key, Some(Record::Entry(Arc::new(entry))));
                }
            }
        }
        match parent {
            Some(dir) if kind == FileKind::Directory => {
                self.desk.change(ino, |inode| inode.parent = dir).await
            }
            Some(_) => Ok(()),
            None => self.connect(ino, kind).await,
        }
    }

    async fn mend(&mut self, finding: &Finding) -> Result<(), MaintError> {
        match &finding.subject {
            Subject::Record(raw) => self.mend_record(finding, raw).await,
            Subject::Entry { dir, tag, .. } => self.mend_entry(finding, *dir, Tag(*tag)).await,
            Subject::Inode(ino) => self.mend_inode(finding, *ino).await,
            Subject::Segment(id) => self.mend_segment(finding, *id).await,
            Subject::Commit(_) | Subject::Volume | Subject::Header(_) | Subject::Object(_) => Ok(()),
        }
    }

    async fn mend_record(&mut self, finding: &Finding, raw: &[u8]) -> Result<(), MaintError> {
        let Some(key) = Key::decode(raw) else {
            self.desk.drop_stray(raw.to_vec());
            self.tell(finding, "removes it");
            return Ok(());
        };
        match key {
            // Written anew with the history, or from the segment itself.
            Key::Super | Key::Segment(_) => Ok(()),
            Key::Inode(ino) if self.rebuilt.contains_key(&ino) => Ok(()),
            Key::Extents(ino, page) => {
                self.keep_inline(ino, page).await?;
                self.mark_page_lost(ino, page).await?;
                self.tell(finding, "marks that part of the file as lost, so that reading it fails");
                Ok(())
            }
            Key::Garbage(id) => {
                let is_used = self.survey.segments.get(id).is_some_and(|known| known.counted > 0);
                let died = self.desk.superblock.commit;
                let garbage = (!is_used).then_some(Record::Garbage(Garbage { died, born: 0 }));
                self.desk.put(key, garbage);
                self.tell(finding, "writes it anew");
                Ok(())
            }
            Key::Entry(dir, tag) => {
                self.remove_entry(dir, tag, false).await?;
                self.tell(finding, "removes the entry, of which not even the name is left");
                Ok(())
            }
            _ => {
                self.desk.put(key, None);
                self.tell(finding, "removes it");
                Ok(())
            }
        }
    }

    async fn remove_entry(&mut self, dir: Ino, tag: Tag, names_dir: bool) -> Result<(), MaintError> {
        self.desk.put(Key::Entry(dir, tag), None);
        let now = self.now;
        self.desk
            .change(dir, |inode| {
                inode.entries = inode.entries.saturating_sub(1);
                inode.nlink = inode.nlink.saturating_sub(u32::from(names_dir));
                (inode.mtime, inode.ctime) = (now, now);
            })
            .await
    }

    async fn mend_entry(&mut self, finding: &Finding, dir: Ino, tag: Tag) -> Result<(), MaintError> {
        match &finding.problem {
            Problem::EntryDangling { ino, kind } => {
                if let Some(Record::Entry(_)) = self.desk.get(Key::Entry(dir, tag)).await?
                    && self.keeps_entry(*ino, dir).await?
                {
                    return Ok(());
                }
                self.remove_entry(dir, tag, *kind == FileKind::Directory).await?;
                self.tell(finding, format!("removes the name of {} {ino}, which is gone", kind_word(*kind)));
            }
            Problem::EntryName { kind, .. } => {
                self.remove_entry(dir, tag, *kind == FileKind::Directory).await?;
                self.tell(finding, "removes the entry; what it names goes below /lost+found");
            }
            Problem::SecondName { .. } => {
                self.remove_entry(dir, tag, false).await?;
                self.tell(finding, "removes this name; the directory keeps its other one");
            }
            Problem::EntryOfRoot => {
                self.remove_entry(dir, tag, true).await?;
                self.tell(finding, "removes the entry");
            }
            Problem::EntryKind { ino, is } => {
                // What the inode is may just have been put right.
                let kind = self.desk.inode(*ino).await?.map_or(*is, |inode| inode.kind);
                let key = Key::Entry(dir, tag);
                if let Some(Record::Entry(entry)) = self.desk.get(key).await?
                    && entry.kind != kind
                {
                    let entry = Entry { kind, ..(*entry).clone() };
                    self.desk.put(key, Some(Record::Entry(Arc::new(entry))));
                    self.tell(finding, format!("notes that it is a {}", kind_word(kind)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a dangling entry is one of the names of an inode that is made anew.
    async fn keeps_entry(&self, ino: Ino, dir: Ino) -> Result<bool, MaintError> {
        Ok(match self.rebuilt.get(&ino) {
            None => false,
            Some(FileKind::Directory) => self.desk.inode(ino).await?.is_some_and(|inode| inode.parent == dir),
            Some(_) => true,
        })
    }

    /// Cuts a ring of directories before `ino`.
    pub(super) async fn cut_before(&mut self, ino: Ino) -> Result<(), MaintError> {
        let Some(node) = self.survey.nodes.get(ino).copied() else { return Ok(()) };
        let named_by = node.named_by;
        let from = Key::Entry(named_by, Tag([0; 16])).encode();
        let to = Key::Entry(Ino(named_by.0.saturating_add(1)), Tag([0; 16])).encode();
        let engine = self.desk.engine.clone();
        let mut rows = super::rows::Rows::between(&engine, from, to);
        let mut found = BTreeSet::new();
        while let Some(row) = rows.next().await? {
            if let (Some(Key::Entry(dir, tag)), Ok(Record::Entry(entry))) = (row.key, row.record)
                && entry.ino == ino
            {
                found.insert((dir, tag));
            }
        }
        for (dir, tag) in found {
            self.remove_entry(dir, tag, true).await?;
        }
        self.connect(ino, FileKind::Directory).await
    }
}
