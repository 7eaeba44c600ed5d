//! Users of one mount: each goes through its own habits, beside the others, and tells the history what it did.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coffer::base::{FileKind, Ino};
use coffer::data::DataError;
use coffer::meta::MetaError;
use coffer::meta::engine::EngineError;
use coffer::vfs::{Caller, Handle, RenameMode, Vfs, VfsError, XattrMode};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::busy::Busy;
use crate::contents;
use crate::history::History;
use crate::trace::Trace;
use crate::tree::NOTE;

pub const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };
const NAMES: [&[u8]; 6] =
    [b"a", b"b", b"c", b"d", b"e", b"a name of some length, so that entries are not all short"];
pub const BLOCK: u64 = 65_536;
/// Files stay below this.
pub const SIZE_MAX: u64 = 5 * BLOCK;

/// What an actor likes to do.
#[derive(Clone, Copy, Debug)]
pub enum Habit {
    /// Makes, writes, links, renames, removes whatever it finds.
    Wanders,
    /// Writes a new file, syncs it, and renames it over the old one.
    Replaces,
    /// Overwrites pieces of one file, syncing after each.
    KeepsABook,
    /// Writes one file from start to end.
    Streams,
    /// Syncs what others have written, while they write.
    Worries,
    /// Opens files, takes their names away, and goes on using them.
    Hoards,
    /// Fills a directory and puts it in the place of another.
    Publishes,
    /// Cuts, empties and overwrites one file, and has another one synced before that is sent.
    Revises,
}

pub const HABITS: [Habit; 9] = [
    Habit::Wanders,
    Habit::Wanders,
    Habit::Replaces,
    Habit::KeepsABook,
    Habit::Streams,
    Habit::Worries,
    Habit::Hoards,
    Habit::Publishes,
    Habit::Revises,
];

/// An actor's end that is no failure: its mount has been taken over, or ends.
pub struct Gone;

pub type Step<T = ()> = Result<T, Gone>;

pub struct Actor {
    pub vfs: Arc<Vfs>,
    pub history: Rc<RefCell<History>>,
    pub trace: Arc<Trace>,
    pub number: u64,
    pub rng: SmallRng,
    /// Numbers the writes of all actors of a seed.
    pub versions: Rc<RefCell<u64>>,
    /// Counts the operations of all actors of a seed.
    pub operations: Rc<Cell<u64>>,
    /// Files that are copied, and written to, at present.
    pub busy: Busy,
}

impl Actor {
    /// Does about `steps` things, and ends earlier if its mount does.
    pub async fn live(mut self, habit: Habit, steps: u32) {
        for _ in 0..steps {
            let step = match habit {
                Habit::Wanders => self.wander().await,
                Habit::Replaces => self.replace().await,
                Habit::KeepsABook => self.keep_book().await,
                Habit::Streams => self.stream().await,
                Habit::Worries => self.worry().await,
                Habit::Hoards => self.hoard().await,
                Habit::Publishes => self.publish().await,
                Habit::Revises => self.revise().await,
            };
            if step.is_err() {
                break;
            }
            self.rest().await;
        }
    }

    /// Mostly a moment; at times long enough for a commit by age, rarely for garbage to be collected.
    pub async fn rest(&mut self) {
        let ms = match self.rng.random_range(0..100) {
            0..50 => return,
            50..75 => self.rng.random_range(0..20),
            75..93 => self.rng.random_range(0..2_000),
            93..99 => self.rng.random_range(3_000..12_000),
            _ => self.rng.random_range(60_000..1_500_000),
        };
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// What an operation gave. Errors of POSIX are a part of life; others end it, or the test.
    pub fn outcome<T>(&mut self, what: &str, result: Result<T, VfsError>) -> Step<Option<T>> {
        self.operations.set(self.operations.get() + 1);
        let errno = result.as_ref().err().map_or(0, VfsError::errno);
        self.trace.event(&[b"actor", &self.number.to_be_bytes(), what.as_bytes(), &errno.to_be_bytes()]);
        match result {
            Ok(value) => Ok(Some(value)),
            Err(VfsError::Fenced | VfsError::ShutDown) => Err(Gone),
            Err(error) if error.is_passing() => Ok(None),
            Err(VfsError::Data(DataError::Missing { .. })) if self.history.borrow().is_contested => Err(Gone),
            // So is what it had last committed, once its successor has let go of it.
            Err(VfsError::Meta(MetaError::Engine(EngineError::Fenced)))
                if self.history.borrow().is_contested =>
            {
                Err(Gone)
            }
            Err(error) if matches!(errno, libc::EIO | libc::EROFS) => panic!("{what}: {error:?}"),
            Err(_) => Ok(None),
        }
    }

    pub fn name(&mut self) -> &'static [u8] {
        NAMES[self.rng.random_range(0..NAMES.len())]
    }

    pub fn pick(&mut self, kind: FileKind) -> Option<u64> {
        let history = self.history.borrow();
        let found: Vec<u64> =
            history.now().0.iter().filter(|(_, node)| node.kind == kind).map(|(ino, _)| *ino).collect();
        (!found.is_empty()).then(|| found[self.rng.random_range(0..found.len())])
    }

    pub fn dir(&mut self) -> u64 {
        if self.rng.random_bool(0.4) { 1 } else { self.pick(FileKind::Directory).unwrap_or(1) }
    }

    pub fn version(&self) -> u64 {
        let mut version = self.versions.borrow_mut();
        *version += 1;
        *version
    }

    pub async fn make(&mut self, dir: u64, name: &[u8], kind: FileKind) -> Step<Option<u64>> {
        let made = match kind {
            FileKind::Directory => self.vfs.mkdir(&CALLER, Ino(dir), name, 0o755).await,
            _ => self.vfs.create(&CALLER, Ino(dir), name, 0o644, true).await,
        };
        let Some(attr) = self.outcome("make", made)? else { return Ok(None) };
        let ino = attr.ino.0;
        self.history.borrow_mut().record(&[dir, ino], |tree| tree.make(dir, name, ino, kind));
        self.vfs.forget(attr.ino, 1);
        Ok(Some(ino))
    }

    pub async fn write(&mut self, ino: u64, offset: u64, len: usize) -> Step {
        let Some(_writing) = self.busy.write(ino) else { return Ok(()) };
        let data = contents::bytes(ino, self.version(), offset, len);
        let written = self.vfs.write(Ino(ino), offset, &data, true).await;
        if self.outcome("write", written)?.is_some() {
            self.history.borrow_mut().record_write(&[ino], |tree| tree.write(ino, offset, &data));
        }
        Ok(())
    }

    pub async fn fsync(&mut self, ino: u64) -> Step<bool> {
        if self.history.borrow().now().node(ino).is_none() {
            // Somebody else has removed it. Nobody can have it open to ask for it.
            return Ok(false);
        }
        let mark = self.history.borrow().mark_of(ino);
        let synced = self.vfs.fsync(Ino(ino), false).await;
        let is_done = self.outcome("fsync", synced)?.is_some();
        if is_done {
            self.history.borrow_mut().acknowledge_of(ino, mark);
        }
        Ok(is_done)
    }

    pub async fn sync_all(&mut self) -> Step {
        let mark = self.history.borrow().mark();
        let synced = self.vfs.sync_all().await;
        if self.outcome("sync", synced)?.is_some() {
            self.history.borrow_mut().acknowledge(mark);
        }
        Ok(())
    }

    pub async fn rename(&mut self, dir: u64, name: &[u8], to: u64, new: &[u8], mode: RenameMode) -> Step {
        let renamed = self.vfs.rename(Ino(dir), name, Ino(to), new, mode).await;
        if self.outcome("rename", renamed)?.is_some() {
            let is_exchange = mode == RenameMode::Exchange;
            let mut touched = Vec::new();
            let mut history = self.history.borrow_mut();
            let mut next = history.now().clone();
            touched.extend(next.rename(dir, name, to, new, is_exchange));
            let below: Vec<u64> = touched.iter().skip(2).flat_map(|ino| history.now().below(*ino)).collect();
            history.record_move(&touched, &below, |tree| *tree = next);
        }
        Ok(())
    }

    pub async fn remove(&mut self, dir: u64, name: &[u8], is_dir: bool) -> Step {
        let removed = match is_dir {
            true => self.vfs.rmdir(Ino(dir), name).await,
            false => self.vfs.unlink(Ino(dir), name).await,
        };
        if self.outcome("remove", removed)?.is_some() {
            let mut history = self.history.borrow_mut();
            let mut next = history.now().clone();
            let mut touched = next.remove(dir, name);
            touched.push(dir);
            history.record(&touched, |tree| *tree = next);
        }
        Ok(())
    }

    /// Reads a file whole. Unless someone changed it meanwhile it must be what the history says.
    pub async fn check(&mut self, ino: u64) -> Step {
        let Some(before) = self.history.borrow().now().node(ino).cloned() else { return Ok(()) };
        let len = before.data.len() + 1;
        let read = self.vfs.read(Handle(0), Ino(ino), 0, len).await;
        let Some(data) = self.outcome("read", read)? else { return Ok(()) };
        let after = self.history.borrow().now().node(ino).cloned();
        if after.is_some_and(|after| Arc::ptr_eq(&before.data, &after.data)) && data != *before.data {
            let at = data.iter().zip(before.data.iter()).position(|(a, b)| a != b);
            let at = at.unwrap_or(data.len().min(before.data.len()));
            panic!(
                "a read of {ino} differs at {at} of {} (expected {}):\n  expected {}\n  found    {}",
                data.len(),
                before.data.len(),
                contents::show(&before.data, at),
                contents::show(&data, at)
            );
        }
        Ok(())
    }

    pub fn span(&mut self) -> (u64, usize) {
        let len = [1, 60, 900, 5_000, 65_536, 100_000][self.rng.random_range(0..6)];
        let offset = self.rng.random_range(0..SIZE_MAX - len as u64);
        (if self.rng.random_bool(0.4) { offset / BLOCK * BLOCK } else { offset }, len)
    }

    async fn wander(&mut self) -> Step {
        match self.rng.random_range(0..100) {
            0..18 => {
                let (dir, name) = (self.dir(), self.name());
                if let Some(ino) = self.make(dir, name, FileKind::Regular).await? {
                    let len = self.rng.random_range(1..3_000);
                    self.write(ino, 0, len).await?;
                }
            }
            18..24 => {
                let (dir, name) = (self.dir(), self.name());
                self.make(dir, name, FileKind::Directory).await?;
            }
            24..32 => {
                let (dir, name, is_dir) = (self.dir(), self.name(), self.rng.random_bool(0.25));
                self.remove(dir, name, is_dir).await?;
            }
            32..46 => {
                let (dir, name, to, new) = (self.dir(), self.name(), self.dir(), self.name());
                let mode = if self.rng.random_bool(0.2) { RenameMode::Exchange } else { RenameMode::Replace };
                self.rename(dir, name, to, new, mode).await?;
            }
            46..90 => self.work_on_a_file().await?,
            90..96 => {
                let ino = if self.rng.random_bool(0.3) {
                    self.dir()
                } else {
                    self.pick(FileKind::Regular).unwrap_or(1)
                };
                self.fsync(ino).await?;
            }
            _ => self.sync_all().await?,
        }
        Ok(())
    }

    async fn work_on_a_file(&mut self) -> Step {
        let Some(ino) = self.pick(FileKind::Regular) else { return Ok(()) };
        match self.rng.random_range(0..10) {
            0..4 => {
                let (offset, len) = self.span();
                self.write(ino, offset, len).await
            }
            4 => self.resize(ino).await,
            5 if self.rng.random_bool(0.5) => self.copy(ino).await,
            5 => self.allocate(ino).await,
            6 => {
                let (dir, name) = (self.dir(), self.name());
                let linked = self.vfs.link(Ino(ino), Ino(dir), name).await;
                if let Some(attr) = self.outcome("link", linked)? {
                    self.history.borrow_mut().record(&[dir, ino], |tree| tree.link(ino, dir, name));
                    self.vfs.forget(attr.ino, 1);
                }
                Ok(())
            }
            7 => {
                let note = format!("note {}", self.version()).into_bytes();
                let set = self.vfs.set_xattr(Ino(ino), NOTE, &note, XattrMode::Set).await;
                if self.outcome("note", set)?.is_some() {
                    self.history
                        .borrow_mut()
                        .record(&[ino], |tree| tree.change(ino, |node| node.note = note));
                }
                Ok(())
            }
            _ => self.check(ino).await,
        }
    }

    async fn replace(&mut self) -> Step {
        let tmp = format!("tmp{}", self.number).into_bytes();
        let name = self.name();
        let Some(ino) = self.make(1, &tmp, FileKind::Regular).await? else {
            return self.remove(1, &tmp, false).await;
        };
        for block in 0..self.rng.random_range(1..4_u64) {
            let len = self.rng.random_range(1..=BLOCK) as usize;
            self.write(ino, block * BLOCK, len).await?;
        }
        if self.rng.random_bool(0.7) {
            self.fsync(ino).await?;
        }
        self.rename(1, &tmp, 1, name, RenameMode::Replace).await?;
        if self.rng.random_bool(0.4) {
            let synced = if self.rng.random_bool(0.5) { 1 } else { ino };
            self.fsync(synced).await?;
        }
        Ok(())
    }

    async fn worry(&mut self) -> Step {
        for _ in 0..4 {
            let kind = if self.rng.random_bool(0.2) { FileKind::Directory } else { FileKind::Regular };
            if let Some(ino) = self.pick(kind) {
                self.fsync(ino).await?;
            }
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..30))).await;
        }
        if self.rng.random_bool(0.2) { self.sync_all().await } else { Ok(()) }
    }

    async fn keep_book(&mut self) -> Step {
        let Some(ino) = self.own("book", FileKind::Regular).await? else { return Ok(()) };
        let page = self.rng.random_range(0..40_u64);
        self.write(ino, page * 4096, 4096).await?;
        if self.rng.random_bool(0.3) {
            self.write(ino, 0, 100).await?;
        }
        self.fsync(ino).await?;
        if self.rng.random_bool(0.2) { self.check(ino).await } else { Ok(()) }
    }

    async fn stream(&mut self) -> Step {
        let name = format!("stream{}", self.number).into_bytes();
        let Some(ino) = self.make(1, &name, FileKind::Regular).await? else {
            return self.remove(1, &name, false).await;
        };
        for piece in 0..4 {
            self.write(ino, piece * BLOCK, BLOCK as usize).await?;
        }
        if self.rng.random_bool(0.3) {
            self.fsync(ino).await?;
        }
        if self.rng.random_bool(0.3) { self.check(ino).await } else { Ok(()) }
    }
}

/// A generator of its own for each use of a seed.
pub fn fork(rng: &mut SmallRng) -> SmallRng {
    SmallRng::seed_from_u64(rng.random())
}
