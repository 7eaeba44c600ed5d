//! The directory for what has lost its name.

use super::MaintError;
use super::mender::Mender;
use crate::base::{FileKind, Ino, Name};
use crate::meta::{Body, Entry, Inode, Key, Record};

use std::sync::Arc;

const LOST_AND_FOUND: &str = "lost+found";
/// Names that are tried where one is taken.
const NAMES_MAX: u32 = 1000;

impl Mender<'_> {
    /// A new inode of root's that nobody else may look into.
    pub(super) fn private(&self, kind: FileKind) -> Inode {
        let is_dir = kind == FileKind::Directory;
        Inode {
            kind,
            perm: if is_dir { 0o700 } else { 0o600 },
            uid: 0,
            gid: 0,
            nlink: if is_dir { 2 } else { 1 },
            rdev: 0,
            size: 0,
            allocated: 0,
            atime: self.now,
            mtime: self.now,
            ctime: self.now,
            btime: self.now,
            parent: Ino(0),
            entries: 0,
            xattrs: 0,
            body: Body::Empty,
        }
    }

    /// Gives `ino` a name below `/lost+found`: its number.
    pub(super) async fn connect(&mut self, ino: Ino, kind: FileKind) -> Result<(), MaintError> {
        let dir = self.lost_and_found().await?;
        self.name(dir, &ino.to_string(), ino, kind).await?;
        if kind == FileKind::Directory {
            self.desk.change(ino, |inode| inode.parent = dir).await?;
        }
        Ok(())
    }

    async fn lost_and_found(&mut self) -> Result<Ino, MaintError> {
        if let Some(dir) = self.lost_and_found {
            return Ok(dir);
        }
        let dir = match self.existing().await? {
            Some(dir) => dir,
            None => {
                let dir = self.desk.new_ino();
                let inode = Inode { parent: Ino::ROOT, ..self.private(FileKind::Directory) };
                self.desk.put_inode(dir, inode);
                self.name(Ino::ROOT, LOST_AND_FOUND, dir, FileKind::Directory).await?;
                dir
            }
        };
        self.lost_and_found = Some(dir);
        Ok(dir)
    }

    /// The directory that is there already, if it is sound.
    async fn existing(&self) -> Result<Option<Ino>, MaintError> {
        let Ok(name) = Name::new(LOST_AND_FOUND.as_bytes()) else { return Ok(None) };
        let sealed = self.desk.vault.ring().seal_name(Ino::ROOT, &name);
        let Some(Record::Entry(entry)) = self.desk.get(Key::Entry(Ino::ROOT, sealed.tag)).await? else {
            return Ok(None);
        };
        let inode = self.desk.inode(entry.ino).await?;
        let is_sound = inode.is_some_and(|inode| inode.kind == FileKind::Directory);
        Ok(is_sound.then_some(entry.ino))
    }

    /// Adds an entry; another name with a number is taken where there is one already.
    async fn name(&mut self, dir: Ino, name: &str, ino: Ino, kind: FileKind) -> Result<(), MaintError> {
        for number in 0..NAMES_MAX {
            let name = if number == 0 { name.to_owned() } else { format!("{name}.{number}") };
            let Ok(name) = Name::new(name.as_bytes()) else { return Ok(()) };
            let sealed = self.desk.vault.ring().seal_name(dir, &name);
            let key = Key::Entry(dir, sealed.tag);
            if self.desk.get(key).await?.is_some() {
                continue;
            }
            let entry = Entry::new(sealed.bytes, ino, kind);
            self.desk.put(key, Some(Record::Entry(Arc::new(entry))));
            let subdirs = u32::from(kind == FileKind::Directory);
            let now = self.now;
            return self
                .desk
                .change(dir, |dir| {
                    dir.entries = dir.entries.saturating_add(1);
                    dir.nlink = dir.nlink.saturating_add(subdirs);
                    (dir.mtime, dir.ctime) = (now, now);
                })
                .await;
        }
        Ok(())
    }
}
