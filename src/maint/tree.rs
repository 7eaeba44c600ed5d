//! The tree: every entry against its inode, and every inode against its names.

use super::MaintError;
use super::check::Survey;
use super::finding::{Problem, Subject};
use super::nodes::{NOBODY, Node};
use super::rows::{Row, Rows};
use crate::base::{FileKind, Ino, Tag};
use crate::meta::{Entry, Key, Record};

/// Entries of one directory, counted.
#[derive(Default)]
struct Tally {
    dir: Option<Ino>,
    entries: u64,
    subdirs: u32,
}

/// How a directory hangs together with the root.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Unknown,
    OnTheWay,
    Settled,
}

impl Survey<'_> {
    /// Looks at every entry. The inodes are known by then.
    pub(super) async fn look_at_entries(&mut self) -> Result<(), MaintError> {
        let engine = self.source.engine.clone();
        let mut rows = Rows::of(&engine, b'D');
        let mut tally = Tally::default();
        while let Some(row) = rows.next().await? {
            let (Some(Key::Entry(dir, tag)), raw) = (row.key, &row.raw) else {
                self.findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordStray);
                continue;
            };
            if tally.dir != Some(dir) {
                self.close_directory(std::mem::take(&mut tally));
                tally.dir = Some(dir);
                self.highest_ino = self.highest_ino.max(dir);
            }
            tally.entries += 1;
            match &row {
                Row { record: Ok(Record::Entry(entry)), .. } => {
                    self.look_at_entry(dir, tag, entry, &mut tally);
                }
                Row { record: Err(why), .. } => {
                    let problem = Problem::RecordBroken { why: why.clone() };
                    self.findings.add(Subject::Record(raw.to_vec()), problem);
                }
                _ => {}
            }
            self.saw_records(1);
        }
        self.close_directory(tally);
        self.judge_nodes();
        self.find_cycles();
        Ok(())
    }

    fn look_at_entry(&mut self, dir: Ino, tag: Tag, entry: &Entry, tally: &mut Tally) {
        let (ino, kind) = (entry.ino, entry.kind);
        self.highest_ino = self.highest_ino.max(ino);
        let name = self.source.ring().open_name(dir, tag, &entry.name);
        let subject = |name| Subject::Entry { dir, tag: tag.0, name };
        let Ok(name) = name else {
            self.findings.add(subject(None), Problem::EntryName { ino, kind });
            return;
        };
        let name = Some(name.as_bytes().to_vec());
        let problem = match self.nodes.get_mut(ino) {
            None => Problem::EntryDangling { ino, kind },
            Some(node) if node.is_broken => Problem::EntryDangling { ino, kind },
            Some(_) if ino == Ino::ROOT => Problem::EntryOfRoot,
            Some(node) if node.is_dir() && node.names > 0 => Problem::SecondName { ino },
            Some(node) => {
                node.names = node.names.saturating_add(1);
                if node.named_by == NOBODY {
                    node.named_by = dir;
                }
                tally.subdirs = tally.subdirs.saturating_add(u32::from(node.is_dir()));
                if node.kind == kind {
                    return;
                }
                Problem::EntryKind { ino, is: node.kind }
            }
        };
        self.findings.add(subject(name), problem);
    }

    fn close_directory(&mut self, tally: Tally) {
        let Some(dir) = tally.dir else { return };
        let count = tally.entries;
        match self.nodes.get_mut(dir) {
            Some(node) if node.is_dir() => {
                node.is_counted = true;
                let node = *node;
                self.judge_counts(&node, tally.entries, tally.subdirs);
            }
            Some(node) => {
                let is_gone = node.is_broken;
                self.findings.inode(dir, Problem::EntriesAstray { count, is_gone });
            }
            None => self.findings.inode(dir, Problem::EntriesAstray { count, is_gone: true }),
        }
    }

    fn judge_counts(&mut self, node: &Node, entries: u64, subdirs: u32) {
        if node.entries != entries {
            let problem = Problem::EntryCount { recorded: node.entries, counted: entries };
            self.findings.inode(node.ino, problem);
        }
        let is_unlinked = node.is_orphan && node.names == 0;
        let counted = if is_unlinked { 0 } else { subdirs.saturating_add(2) };
        // An orphan's names are all counted only when the last directory has been seen.
        if node.nlink != counted && !node.is_orphan {
            let problem = Problem::LinkCount { recorded: node.nlink, counted, is_dir: true };
            self.findings.inode(node.ino, problem);
        }
    }

    fn judge_nodes(&mut self) {
        let root = self.nodes.get(Ino::ROOT).filter(|node| node.is_dir()).copied();
        if root.is_none() {
            self.findings.inode(Ino::ROOT, Problem::RootMissing);
        }
        for at in 0..self.nodes.len() {
            let Some(node) = self.nodes.at(at).copied() else { continue };
            if node.is_dir() && !node.is_counted {
                self.judge_counts(&node, 0, 0);
            }
            if node.is_broken || (node.ino == Ino::ROOT && root.is_none()) {
                continue;
            }
            for problem in problems_of(&node) {
                self.findings.inode(node.ino, problem);
            }
        }
    }

    /// Directories that are their own ancestors. Of each ring the one with the lowest number is named.
    fn find_cycles(&mut self) {
        let mut reach = vec![Reach::Unknown; self.nodes.len()];
        for start in 0..self.nodes.len() {
            let mut way = Vec::new();
            let mut at = Some(start);
            let mut ring = None;
            while let Some(here) = at {
                match reach.get(here) {
                    Some(Reach::Unknown) => {}
                    Some(Reach::OnTheWay) => {
                        ring = way.iter().position(|passed| *passed == here);
                        break;
                    }
                    _ => break,
                }
                let Some(node) = self.nodes.at(here).filter(|node| node.is_dir()) else { break };
                if node.ino == Ino::ROOT || node.named_by == NOBODY {
                    break;
                }
                way.push(here);
                reach.iter_mut().skip(here).take(1).for_each(|reach| *reach = Reach::OnTheWay);
                at = self.nodes.position(node.named_by);
            }
            for passed in &way {
                reach.iter_mut().skip(*passed).take(1).for_each(|reach| *reach = Reach::Settled);
            }
            // Numbers ascend with positions.
            let lowest = ring.and_then(|from| way.get(from..)?.iter().min());
            if let Some(node) = lowest.and_then(|at| self.nodes.at(*at)) {
                self.findings.inode(node.ino, Problem::Cycle);
            }
        }
    }
}

fn problems_of(node: &Node) -> Vec<Problem> {
    let mut found = Vec::new();
    if node.ino == Ino::ROOT {
        if node.parent != Ino::ROOT {
            found.push(Problem::ParentWrong { recorded: node.parent, named_by: Ino::ROOT });
        }
        if node.is_orphan {
            found.push(Problem::OrphanNamed);
        }
        return found;
    }
    match (node.is_orphan, node.names) {
        (true, 0) => return vec![Problem::Orphan],
        (true, _) => found.push(Problem::OrphanNamed),
        (false, 0) => return vec![Problem::Unreachable { kind: node.kind }],
        (false, _) => {}
    }
    if node.kind == FileKind::Directory {
        if node.parent != node.named_by {
            found.push(Problem::ParentWrong { recorded: node.parent, named_by: node.named_by });
        }
    } else if node.nlink != node.names {
        let (recorded, counted) = (node.nlink, node.names);
        found.push(Problem::LinkCount { recorded, counted, is_dir: false });
    }
    found
}
