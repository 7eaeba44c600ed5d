//! Reading: what is in memory at once, the rest from the bucket side by side.

use std::ops::Range;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::try_join_all;

use crate::base::{BLOCK_LEN, BlockIndex, BlockPlace, Ino};
use crate::data::{BlockReader, DataError, Paint, ReadHint, Want};
use crate::meta::engine::EngineError;
use crate::meta::{Key, MetaError};

use super::locate::{self, Located, Stored};
use super::txn::{Halt, Txn};
use super::{Handle, Vfs, VfsError};

/// Files up to this size are read with their neighbourhood: what was written together is read
/// together.
pub(super) const SMALL_FILE_BYTES: u64 = 1024 * 1024;

/// Who reads ahead so many blocks or more at a time is given what else a GET brings that fetches the last of them: or each time
/// would begin and end with a GET for a few.
const ROUNDED_FROM: u64 = 64;
const ROUNDED_BY_MAX: u64 = 64;

/// One block's part of a read.
struct Part {
    /// Where in the block it begins.
    from: usize,
    /// Where in the answer it goes.
    at: usize,
    len: usize,
    located: Located,
    paint: Paint,
}

/// A read, with all that the tree knows about it.
struct Plan {
    len: usize,
    parts: Vec<Part>,
    is_small: bool,
}

impl Plan {
    /// The stored blocks it needs.
    fn places(&self) -> Vec<BlockPlace> {
        let stored = self.parts.iter().filter_map(|part| match &part.located {
            Located::Stored(stored) => Some(stored.place),
            _ => None,
        });
        stored.collect()
    }
}

impl Vfs {
    /// Reads up to `len` bytes at `offset` of `ino`; fewer only at the end of the file.
    ///
    /// # Errors
    /// [`VfsError::Data`] if a stored block cannot be read or is not what was written.
    pub async fn read(&self, handle: Handle, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>, VfsError> {
        let ahead = match self.handles.lock().get_mut(&handle.0) {
            Some(open) => open.ahead.observe(offset, len as u64),
            None => None,
        };
        let mut plan = self.read_txn(|txn| plan(txn, ino, offset, len)).await?;
        let mut ahead = ahead;
        loop {
            let places = plan.places();
            match self.carry_out(ino, plan, ahead.take()).await {
                // A segment is deleted as soon as a commit has let go of its last block. Who comes
                // too late asks again where the bytes are, and believes the second answer if it is
                // the first.
                Err(error @ VfsError::Data(DataError::Missing { .. })) => {
                    if self.options.stays {
                        let why = self.why_missing(&places, error).boxed().await;
                        self.note_damage(Some(ino), &why);
                        return Err(why);
                    }
                    if self.options.read_only {
                        self.follow_early().await?;
                    }
                    plan = self.read_txn(|txn| self::plan(txn, ino, offset, len)).await?;
                    if plan.places() == places {
                        self.still_writes().boxed().await?;
                        self.note_damage(Some(ino), &error);
                        return Err(error);
                    }
                }
                done => return done.inspect_err(|error| self.note_damage(Some(ino), error)),
            }
        }
    }

    /// The contents of a file of up to `bytes_max` bytes, if all of them are in memory, be they sealed. Asks the bucket for nothing.
    #[must_use]
    pub fn at_hand(&self, ino: Ino, bytes_max: usize) -> Option<Vec<u8>> {
        let mut plan = {
            let mut state = self.state.lock();
            plan(&mut Txn::new(&mut state, self.clock.now()), ino, 0, bytes_max + 1).ok()?
        };
        if plan.len > bytes_max {
            return None;
        }
        for part in &mut plan.parts {
            if let Located::Stored(stored) = part.located {
                let block = if self.reader.holds(&stored.place) {
                    self.reader.cached(&stored.place)?
                } else {
                    let opened = self.reader.unsealed(&stored.place, &stored.seal)?;
                    self.enter_neighbourhood(ino, &stored.place);
                    opened
                };
                part.located = Located::Bytes(block);
            }
        }
        Some(assemble(&plan))
    }

    /// Asks whether this mount is still the writer, if it is one. Whoever has taken over may have removed what is missing
    /// here, which is no damage.
    pub(super) async fn still_writes(&self) -> Result<(), VfsError> {
        if self.options.read_only {
            return Ok(());
        }
        match self.engine.refresh().boxed().await {
            Ok(()) => Ok(()),
            Err(EngineError::Fenced | EngineError::NewKey) => {
                self.fence();
                Err(VfsError::Fenced)
            }
            Err(error) => Err(MetaError::from(error).into()),
        }
    }

    async fn carry_out(
        &self,
        ino: Ino,
        mut plan: Plan,
        ahead: Option<Range<u64>>,
    ) -> Result<Vec<u8>, VfsError> {
        let mut waiting = Vec::new();
        for part in &mut plan.parts {
            if let Located::Stored(stored) = part.located {
                match self.reader.cached(&stored.place) {
                    Some(bytes) => part.located = Located::Bytes(bytes),
                    None => waiting.push(stored),
                }
            }
        }
        if waiting.len() > 1 && !plan.is_small {
            self.reader.gather(&waiting.iter().map(want).collect::<Vec<_>>());
        }
        if let Some(blocks) = ahead {
            self.read_ahead(ino, blocks);
        }
        if !waiting.is_empty() {
            if plan.is_small {
                waiting.iter().for_each(|stored| self.enter_neighbourhood(ino, &stored.place));
            }
            let hint = if plan.is_small { ReadHint::Neighbourhood } else { ReadHint::Single };
            let fetches = waiting.iter().map(|stored| self.fetch(stored, hint));
            let mut fetched = try_join_all(fetches).boxed().await?.into_iter();
            for part in plan.parts.iter_mut().filter(|part| matches!(part.located, Located::Stored(_))) {
                part.located = fetched.next().map_or(Located::Hole, Located::Bytes);
            }
        }
        Ok(assemble(&plan))
    }

    /// Has blocks fetched before they are asked for: at once those of which the tree knows where they are, the others
    /// when the records that tell have been loaded. Errors are left to be found by who reads.
    fn read_ahead(&self, ino: Ino, blocks: Range<u64>) {
        let (known, missing) = {
            let mut state = self.state.lock();
            stored_blocks(&mut Txn::new(&mut state, self.clock.now()), ino, blocks.clone())
        };
        let from = known.last().map_or(blocks.start, |(index, _)| index + 1);
        self.reader.prefetch(known.into_iter().map(|(_, want)| want).collect());
        if !missing.is_empty()
            && let Some(this) = self.me.upgrade()
        {
            tokio::spawn(async move {
                let found = this.read_txn(|txn| match stored_blocks(txn, ino, from..blocks.end) {
                    (wants, missing) if missing.is_empty() => Ok(wants),
                    (_, missing) => Err(Halt::Missing(missing)),
                });
                let wants = found.await.unwrap_or_default();
                this.reader.prefetch(wants.into_iter().map(|(_, want)| want).collect());
            });
        }
    }

    /// The plaintext of a stored block.
    pub(super) async fn fetch(&self, stored: &Stored, hint: ReadHint) -> Result<Bytes, VfsError> {
        let len = u64::from(stored.segment_len);
        Ok(self.reader.read_block(&stored.place, &stored.seal, len, hint).await?)
    }
}

fn want(stored: &Stored) -> Want {
    (stored.place, stored.seal, u64::from(stored.segment_len))
}

fn plan(txn: &mut Txn, ino: Ino, offset: u64, len: usize) -> Result<Plan, Halt> {
    let inode = txn.regular(ino)?;
    let end = offset.saturating_add(len as u64).min(inode.size);
    let mut parts = Vec::new();
    let mut position = offset;
    while position < end {
        let index = BlockIndex::of(position);
        let from = (position - index.start()) as usize;
        let len = (end.min(index.start() + BLOCK_LEN) - position) as usize;
        let located = locate::current(txn, ino, &inode, index.0)?;
        let paint = txn.dirty().paint_of(ino, index.0);
        parts.push(Part { from, at: (position - offset) as usize, len, located, paint });
        position += len as u64;
    }
    Ok(Plan { len: end.saturating_sub(offset) as usize, parts, is_small: inode.size <= SMALL_FILE_BYTES })
}

/// The blocks of `blocks` that are stored, up to the first of which it is not known where it is; and all records that must be
/// loaded to know that of each.
fn stored_blocks(txn: &mut Txn, ino: Ino, blocks: Range<u64>) -> (Vec<(u64, Want)>, Vec<Key>) {
    let (mut wants, mut missing) = (Vec::new(), Vec::new());
    let inode = match txn.regular(ino) {
        Ok(inode) => inode,
        Err(Halt::Missing(keys)) => return (wants, keys),
        Err(Halt::Fail(_)) => return (wants, missing),
    };
    let end_of_file = inode.size.div_ceil(BLOCK_LEN);
    for index in blocks.start..blocks.end.min(end_of_file) {
        match locate::current(txn, ino, &inode, index) {
            Ok(Located::Stored(stored)) if missing.is_empty() => wants.push((index, want(&stored))),
            Ok(_) => {}
            Err(Halt::Missing(keys)) => missing.extend(keys),
            Err(Halt::Fail(_)) => break,
        }
    }
    missing.dedup();
    if missing.is_empty() && blocks.end.saturating_sub(blocks.start) >= ROUNDED_FROM {
        let last = wants.last().map(|(_, (place, ..))| *place);
        for index in blocks.end..blocks.end.saturating_add(ROUNDED_BY_MAX).min(end_of_file) {
            match locate::current(txn, ino, &inode, index) {
                Ok(Located::Stored(stored))
                    if last.is_some_and(|last| BlockReader::comes_along(&last, &stored.place)) =>
                {
                    wants.push((index, want(&stored)));
                }
                _ => break,
            }
        }
    }
    (wants, missing)
}

/// The answer, when all blocks that it needs are there. Each byte is written once.
fn assemble(plan: &Plan) -> Vec<u8> {
    let mut out = Vec::with_capacity(plan.len);
    for part in &plan.parts {
        if let Located::Bytes(block) = &part.located {
            let source = block.get(part.from.min(block.len())..).unwrap_or_default();
            out.extend_from_slice(source.get(..part.len).unwrap_or(source));
        }
        out.resize(part.at + part.len, 0);
        if let Some(target) = out.get_mut(part.at..) {
            part.paint.apply(target, part.from);
        }
    }
    out
}
