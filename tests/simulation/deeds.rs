//! More that actors do: sizes and holes, shared copies, files without a name, directories put in others' places.

use std::time::Duration;

use coffer::base::{FileKind, Ino};
use coffer::vfs::{RenameMode, SetAttr, VfsError};
use rand::Rng;

use crate::actor::{Actor, BLOCK, CALLER, SIZE_MAX, Step};

const KEEP_SIZE: i32 = libc::FALLOC_FL_KEEP_SIZE;
const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP_SIZE;
const ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE;

impl Actor {
    pub async fn resize(&mut self, ino: u64) -> Step {
        let Some(_writing) = self.busy.write(ino) else { return Ok(()) };
        let size = if self.rng.random_bool(0.4) { 0 } else { self.rng.random_range(0..SIZE_MAX) };
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        let resized = self.vfs.setattr(&CALLER, Ino(ino), &set).await;
        if self.outcome("resize", resized)?.is_some() {
            self.history.borrow_mut().record_write(&[ino], |tree| tree.resize(ino, size));
        }
        Ok(())
    }

    /// A file or directory of this actor's in the root, which is made if it is not there.
    pub async fn own(&mut self, name: &str, kind: FileKind) -> Step<Option<u64>> {
        let name = format!("{name}{}", self.number).into_bytes();
        let known = self.history.borrow().now().0[&1].entries.get(&name).copied();
        match known {
            Some(ino) => Ok(Some(ino)),
            None => self.make(1, &name, kind).await,
        }
    }

    /// Makes room or holes somewhere.
    pub async fn allocate(&mut self, ino: u64) -> Step {
        let (offset, len) = self.span();
        let modes = [PUNCH_HOLE, PUNCH_HOLE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE, 0, KEEP_SIZE];
        let mode = modes[self.rng.random_range(0..modes.len())];
        self.fallocate(ino, mode, offset, len as u64).await
    }

    async fn fallocate(&mut self, ino: u64, mode: i32, offset: u64, len: u64) -> Step {
        let Some(_writing) = self.busy.write(ino) else { return Ok(()) };
        let end = offset + len;
        let done = self.vfs.fallocate(Ino(ino), mode, offset, len).await;
        if self.outcome("allocate", done)?.is_some() {
            self.history.borrow_mut().record_write(&[ino], |tree| {
                let size = tree.node(ino).map_or(0, |node| node.data.len() as u64);
                if mode & KEEP_SIZE == 0 && end > size {
                    tree.resize(ino, end);
                }
                if mode & !KEEP_SIZE != 0 {
                    tree.punch(ino, offset, len);
                }
            });
        }
        Ok(())
    }

    /// Copies a part of another file, or of the same: mostly whole blocks, which are shared.
    pub async fn copy(&mut self, to: u64) -> Step {
        match self.pick(FileKind::Regular) {
            Some(from) => self.copy_from(from, to).await,
            None => Ok(()),
        }
    }

    async fn copy_from(&mut self, from: u64, to: u64) -> Step {
        let Some(_copying) = self.busy.copy(from) else { return Ok(()) };
        let _writing = match from == to {
            true => None,
            false => match self.busy.write(to) {
                None => return Ok(()),
                writing => writing,
            },
        };
        let (mut from_offset, len) = self.span();
        let mut to_offset = self.span().0.min(SIZE_MAX - len as u64);
        if self.rng.random_bool(0.7) {
            (from_offset, to_offset) = (from_offset / BLOCK * BLOCK, to_offset / BLOCK * BLOCK);
        }
        let Some(source) = self.history.borrow().now().node(from).cloned() else { return Ok(()) };
        let copied = self.vfs.copy_file_range(Ino(from), from_offset, Ino(to), to_offset, len as u64).await;
        if let Some(count) = self.outcome("copy", copied)?.filter(|count| *count > 0) {
            let bytes = &source.data[from_offset as usize..(from_offset + count) as usize];
            self.history.borrow_mut().record_write(&[to], |tree| tree.write(to, to_offset, bytes));
        }
        Ok(())
    }

    /// Opens a file, takes all its names away, and goes on reading and writing.
    pub async fn hoard(&mut self) -> Step {
        let Some(ino) = self.pick(FileKind::Regular) else { return Ok(()) };
        let opened = self.vfs.open(Ino(ino), true, false).await;
        let Some(handle) = self.outcome("open", opened)? else { return Ok(()) };
        let names = self.history.borrow().now().names_of(ino);
        for (dir, name) in names {
            self.remove(dir, &name, false).await?;
        }
        for _ in 0..self.rng.random_range(1..6) {
            match self.rng.random_range(0..6) {
                0 | 1 => {
                    let (offset, len) = self.span();
                    self.write(ino, offset, len).await?;
                }
                2 => self.resize(ino).await?,
                3 => drop(self.fsync(ino).await?),
                4 => self.copy(ino).await?,
                _ => self.rest().await,
            }
            let attr = self.vfs.getattr(Ino(ino)).await;
            assert!(!matches!(attr, Err(VfsError::NoEntry)), "{ino} is gone, which somebody has open");
            self.check(ino).await?;
        }
        self.vfs.release(handle);
        self.history.borrow_mut().record_write(&[], |tree| tree.forget(ino));
        Ok(())
    }

    /// Fills a new directory and puts it in the place of an empty one, or exchanges it for a full one.
    pub async fn publish(&mut self) -> Step {
        let (new, old) =
            (format!("new{}", self.number).into_bytes(), format!("old{}", self.number).into_bytes());
        let Some(dir) = self.own("new", FileKind::Directory).await? else { return Ok(()) };
        for name in [&b"x"[..], b"y"].into_iter().take(self.rng.random_range(1..3)) {
            let found =
                self.history.borrow().now().0.get(&dir).and_then(|dir| dir.entries.get(name).copied());
            let ino = match found {
                Some(ino) => Some(ino),
                None => self.make(dir, name, FileKind::Regular).await?,
            };
            if let Some(ino) = ino {
                let len = self.rng.random_range(1..=3 * BLOCK) as usize;
                self.write(ino, 0, len).await?;
            }
        }
        if self.rng.random_bool(0.3) {
            self.rest().await;
        }
        let mode = if self.rng.random_bool(0.5) { RenameMode::Exchange } else { RenameMode::Replace };
        self.rename(1, &new, 1, &old, mode).await?;
        if self.rng.random_bool(0.3) {
            self.fsync(1).await?;
        }
        Ok(())
    }

    /// Changes one file in all ways, so that much of it is not sent, some of it above what is about to be; shares it as
    /// it is then; and has another one synced, which need not wait for all that.
    pub async fn revise(&mut self) -> Step {
        let Some(draft) = self.own("draft", FileKind::Regular).await? else { return Ok(()) };
        let Some(slip) = self.own("slip", FileKind::Regular).await? else { return Ok(()) };
        // Something to lie under the holes.
        self.write(draft, 0, 4 * BLOCK as usize).await?;
        if self.rng.random_bool(0.7) {
            self.fsync(draft).await?;
        }
        self.strike(draft).await?;
        if self.rng.random_bool(0.6) {
            // Until a commit by age is under way.
            let age = if self.rng.random_bool(0.5) { 300 } else { 5_000 };
            let into_it = self.rng.random_range(0..150);
            tokio::time::sleep(Duration::from_millis(age + into_it)).await;
            self.strike(draft).await?;
        }
        if self.rng.random_bool(0.4)
            && let Some(copy) = self.own("copy", FileKind::Regular).await?
        {
            self.copy_from(draft, copy).await?;
            self.check(copy).await?;
        }
        self.write(slip, 0, 100).await?;
        self.fsync(slip).await?;
        self.check(draft).await
    }

    /// Cuts, empties and overwrites pieces of a file.
    async fn strike(&mut self, ino: u64) -> Step {
        for _ in 0..self.rng.random_range(1..5) {
            let block = self.rng.random_range(0..4_u64);
            match self.rng.random_range(0..6) {
                0 => self.resize(ino).await?,
                1 | 2 => self.fallocate(ino, PUNCH_HOLE, block * BLOCK, BLOCK).await?,
                3 => self.allocate(ino).await?,
                4 => self.write(ino, block * BLOCK + 100, 50_000).await?,
                _ => self.write(ino, block * BLOCK, BLOCK as usize - 1).await?,
            }
        }
        Ok(())
    }
}
