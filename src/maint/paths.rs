//! Finds the paths of what was found, after the fact: a sound volume costs nothing here.

use std::collections::{HashMap, HashSet};

use super::MaintError;
use super::check::Survey;
use super::finding::Subject;
use super::nodes::NOBODY;
use super::rows::Rows;
use crate::base::Ino;
use crate::meta::{Key, Record};

/// Longest path that is put together; a ring of directories has none.
const DEPTH_MAX: usize = 4096;

/// Names of the inodes that are asked for.
#[derive(Default)]
struct Names(HashMap<Ino, (Ino, Vec<u8>)>);

impl Survey<'_> {
    /// Gives every finding the path of its subject, as far as that has one.
    pub(super) async fn find_paths(&mut self) -> Result<(), MaintError> {
        let mut wanted: HashSet<Ino> = HashSet::new();
        let mut dirs: HashSet<Ino> = HashSet::new();
        for finding in &self.findings.kept {
            match &finding.subject {
                Subject::Inode(ino) => drop(wanted.insert(*ino)),
                Subject::Entry { dir, .. } => self.add_ancestors(*dir, &mut dirs),
                _ => {}
            }
        }
        wanted.remove(&Ino::ROOT);
        if wanted.is_empty() && dirs.is_empty() {
            return Ok(());
        }
        let mut names = Names::default();
        if !wanted.is_empty() {
            self.find_names(&wanted, &mut names).await?;
        }
        names.0.values().for_each(|(dir, _)| self.add_ancestors(*dir, &mut dirs));
        dirs.retain(|dir| !names.0.contains_key(dir));
        if !dirs.is_empty() {
            self.find_names(&dirs, &mut names).await?;
        }
        for finding in &mut self.findings.kept {
            finding.path = match &finding.subject {
                Subject::Inode(ino) => names.path(*ino),
                Subject::Entry { dir, name: Some(name), .. } => names.path(*dir).map(|path| join(path, name)),
                Subject::Entry { dir, .. } => names.path(*dir),
                _ => None,
            };
        }
        Ok(())
    }

    fn add_ancestors(&self, dir: Ino, dirs: &mut HashSet<Ino>) {
        let mut at = dir;
        while at != Ino::ROOT && dirs.insert(at) {
            match self.nodes.get(at).map(|node| node.named_by) {
                Some(NOBODY) | None => break,
                Some(parent) => at = parent,
            }
        }
    }

    /// Looks through all entries for those that name one of `wanted`.
    async fn find_names(&self, wanted: &HashSet<Ino>, names: &mut Names) -> Result<(), MaintError> {
        let mut rows = Rows::of(&self.source.engine, b'D');
        while let Some(row) = rows.next().await? {
            let (Some(Key::Entry(dir, tag)), Ok(Record::Entry(entry))) = (row.key, row.record) else {
                continue;
            };
            if wanted.contains(&entry.ino)
                && !names.0.contains_key(&entry.ino)
                && let Ok(name) = self.source.ring().open_name(dir, tag, &entry.name)
            {
                names.0.insert(entry.ino, (dir, name.as_bytes().to_vec()));
            }
        }
        Ok(())
    }
}

impl Names {
    fn path(&self, ino: Ino) -> Option<Vec<u8>> {
        let mut parts = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            if parts.len() >= DEPTH_MAX {
                return None;
            }
            let (dir, name) = self.0.get(&at)?;
            parts.push(name.as_slice());
            at = *dir;
        }
        let path = parts.iter().rev().fold(Vec::new(), |path, name| join(path, name));
        Some(if path.is_empty() { b"/".to_vec() } else { path })
    }
}

fn join(mut path: Vec<u8>, name: &[u8]) -> Vec<u8> {
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
