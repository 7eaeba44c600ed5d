//! Cleaning: live blocks of segments that are mostly dead, or tiny, are copied into new ones.
//!
//! The copies travel with a commit as moves, which it grants where a block still lies where it was
//! found. Nothing that a program can see changes, and a crash at any point leaves a segment too many
//! at worst.

use std::collections::{BTreeSet, HashMap};

use futures::FutureExt;
use serde::Serialize;

use crate::base::{BlockIndex, BlockPlace, Ino, NewSegment, PAGE_BLOCKS, SegmentId};
use crate::data::segment::read_blocks;
use crate::data::{DataError, Move, Pick, Reason, SegmentBuilder};
use crate::store::StoreError;

use super::survey::{LiveBlock, Survey};
use super::{Vfs, VfsError};

/// Segments that could not be read, remembered for whoever asks.
const DAMAGED_MAX: usize = 1024;

/// What the cleaner has done in this mount.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cleaned {
    /// Segments whose live blocks were copied.
    pub rewritten_count: u64,
    /// Bytes of segments written.
    pub written_bytes: u64,
    /// Bytes of live blocks read.
    pub read_bytes: u64,
    /// Blocks that lie elsewhere now.
    pub moved_blocks: u64,
    /// Segments deleted, also those that died by themselves.
    pub deleted_count: u64,
    /// Their bytes, as far as this mount knew them.
    pub deleted_bytes: u64,
    /// Segments that are left alone because something in them is damaged or missing.
    pub damaged: BTreeSet<String>,
}

/// What became of one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Bytes read and written.
    pub(super) bytes: u64,
}

/// What was copied out of segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Copied {
    /// Segments whose live blocks were copied; the others are damaged.
    pub(super) segments: u64,
    /// Bytes read and written.
    pub(super) bytes: u64,
}

/// A block on its way.
struct Copy {
    from: BlockPlace,
    owners: Vec<(Ino, u64)>,
    stored: Vec<u8>,
}

impl Vfs {
    /// Cleans the next segments that are worth it, in a commit of its own. `None` if there are none.
    pub(super) async fn clean_round(&self) -> Result<Option<Round>, VfsError> {
        let _turn = self.clean_turn.lock().await;
        let pick = {
            let mut state = self.state.lock();
            state.check_writable()?;
            state.ledger.pick(self.cleaning_room())
        };
        let Some(pick) = pick else { return Ok(None) };
        let surveys = self.survey_all(&pick).await?;
        let copied = self.copy_live(&surveys).await?;
        {
            let mut state = self.state.lock();
            // Whichever the commit changes comes back by itself.
            pick.victims.iter().for_each(|(id, _)| state.ledger.pass_over(*id));
            state.ledger.judge(copied.segments > 0);
        }
        self.commit(false, false).await?;
        Ok(Some(Round { bytes: copied.bytes }))
    }

    /// Copies what lives in these segments into new ones, and hands it over to the next commit.
    pub(super) async fn copy_live(&self, surveys: &[Survey]) -> Result<Copied, VfsError> {
        let (mut copies, mut segments, mut read_bytes) = (Vec::new(), 0, 0);
        for survey in surveys {
            if let Some(read) = self.read_live(survey).await? {
                segments += 1;
                let bytes: usize = read.iter().map(|copy| copy.stored.len()).sum();
                self.state.lock().cleaned.read_bytes += bytes as u64;
                read_bytes += bytes as u64;
                copies.extend(read);
            }
        }
        let written_bytes = self.write_copies(arranged(copies)).await?;
        let mut state = self.state.lock();
        state.cleaned.rewritten_count += segments;
        state.cleaned.written_bytes += written_bytes;
        Ok(Copied { segments, bytes: read_bytes + written_bytes })
    }

    /// Live bytes cleaned in one round: a new segment needs room for its footer beside them.
    pub(super) const fn cleaning_room(&self) -> u64 {
        self.options.segment_room_bytes as u64 / 16 * 15
    }

    /// Looks at what was picked; only what is worth a rewrite remains, oldest first.
    pub(super) async fn survey_all(&self, pick: &Pick) -> Result<Vec<Survey>, VfsError> {
        let mut surveys = Vec::new();
        for (id, _) in &pick.victims {
            match self.survey(*id).await {
                Ok(Some(survey)) => surveys.push(survey),
                Ok(None) => {}
                Err(error) if error.is_damage() => self.leave_damaged(*id, &error),
                Err(error) => return Err(error),
            }
        }
        match pick.reason {
            // The account counts head, footer and padding as dead, and shared blocks too often.
            Reason::Sparse => surveys.retain(|survey| {
                let len = u64::from(survey.segment.len);
                len.saturating_sub(survey.rewritten_bytes()) >= len / 16
            }),
            Reason::Tiny if surveys.len() < 2 => surveys.clear(),
            Reason::Tiny | Reason::Outdated => {}
        }
        surveys.sort_by_key(|survey| survey.segment.born);
        Ok(surveys)
    }

    /// Reads the live blocks of a segment. `None` if one of them is damaged: then all are left where
    /// they are, because the segment has to stay.
    async fn read_live(&self, survey: &Survey) -> Result<Option<Vec<Copy>>, VfsError> {
        let places: Vec<BlockPlace> = survey.blocks.iter().map(|block| block.place).collect();
        match read_blocks(&self.vault, survey.id, &survey.segment.seal, &places).await {
            Ok(blocks) => {
                let live = survey.blocks.iter().zip(blocks);
                let copies = live.map(|(LiveBlock { place, owners }, stored)| Copy {
                    from: *place,
                    owners: owners.clone(),
                    stored,
                });
                Ok(Some(copies.collect()))
            }
            Err(error) => {
                let error = VfsError::Data(error);
                if error.is_damage() {
                    self.leave_damaged(survey.id, &error);
                    return Ok(None);
                }
                Err(error)
            }
        }
    }

    fn leave_damaged(&self, id: SegmentId, error: &VfsError) {
        tracing::error!(segment = %id, %error, "it cannot be cleaned; nothing of it is moved or deleted");
        self.note_damage(None, error);
        let mut state = self.state.lock();
        if state.cleaned.damaged.len() < DAMAGED_MAX {
            state.cleaned.damaged.insert(id.to_string());
        }
    }

    /// Packs blocks into new segments, brings those into the bucket, and hands them over to the next
    /// commit. Gives the bytes written.
    async fn write_copies(&self, copies: Vec<Copy>) -> Result<u64, VfsError> {
        let mut written_bytes = 0;
        let mut left: usize = copies.iter().map(|copy| copy.stored.len()).sum();
        let mut copies = copies.into_iter().peekable();
        while copies.peek().is_some() {
            let compression = self.options.compression;
            let mut builder = SegmentBuilder::with_capacity(&self.vault, compression, left);
            let mut moves = Vec::new();
            while let Some(copy) = copies.peek() {
                let Some((ino, index)) = copy.owners.first().copied() else {
                    copies.next();
                    continue;
                };
                let is_over = builder.len() + copy.stored.len() > self.options.segment_room_bytes;
                if is_over && !builder.is_empty() {
                    break;
                }
                match builder.push_stored(ino, BlockIndex(index), copy.from.piece, &copy.stored) {
                    Ok(to) => moves.extend(moves_of(copy, to)),
                    Err(DataError::SegmentFull { .. }) if !builder.is_empty() => break,
                    Err(error) => return Err(error.into()),
                }
                left -= copy.stored.len();
                copies.next();
            }
            written_bytes += self.put_copies(builder, moves).await?;
        }
        Ok(written_bytes)
    }

    async fn put_copies(&self, builder: SegmentBuilder, moves: Vec<(Ino, Move)>) -> Result<u64, VfsError> {
        if builder.is_empty() {
            return Ok(0);
        }
        let finished = builder.finish();
        let id = finished.id;
        {
            let mut state = self.state.lock();
            state.check_writable()?;
            if state.is_closing {
                return Err(VfsError::ShutDown);
            }
            // From here on a listing may show it.
            state.moving.insert(id);
        }
        let len = finished.bytes.len() as u32;
        let put = tokio::select! {
            biased;
            put = self.vault.put_segment(id, finished.bytes).boxed() => put,
            // What is dead makes room, and who deletes it may be the one who waits here.
            () = self.until_full() => {
                let object = self.vault.bucket().display_url().to_owned();
                Err(StoreError::Full { object, detail: "nothing is copied there for now".to_owned() }.into())
            }
        };
        for (_, block) in &moves {
            if let Some(bytes) = self.cache.peek(block.from.segment, block.from.pos) {
                self.cache.insert_ahead(id, block.to.pos, bytes);
            }
        }
        let mut state = self.state.lock();
        let is_ours = state.moving.remove(&id);
        match put {
            Ok(()) if is_ours => {
                state.moves.add(id, NewSegment { len, seal: finished.seal }, moves);
                Ok(len.into())
            }
            // The mount is ending and has noted it as a leftover.
            Ok(()) => Err(VfsError::ShutDown),
            Err(error) => {
                if is_ours {
                    // It may be there all the same.
                    self.note_leftover(&mut state, id, len.into(), self.clock.now());
                    self.note_change(&mut state);
                }
                let source = Some(std::sync::Arc::new(error));
                Err(DataError::Unavailable { segment: id, source }.into())
            }
        }
    }
}

/// A move for each who refers to the block. The new footer names the first.
fn moves_of(copy: &Copy, to: BlockPlace) -> Vec<(Ino, Move)> {
    let first = copy.owners.first().map(|(ino, index)| (*ino, index / PAGE_BLOCKS, *index));
    let moves = copy.owners.iter().map(|(ino, index)| {
        let is_shared = first != Some((*ino, index / PAGE_BLOCKS, *index));
        (*ino, Move { index: *index, from: copy.from, to, is_shared })
    });
    moves.collect()
}

/// The order in which blocks are packed: files as they were first met, because those written together
/// are read together; within a file by index.
fn arranged(mut copies: Vec<Copy>) -> Vec<Copy> {
    let mut ranks: HashMap<Ino, usize> = HashMap::new();
    for copy in &copies {
        let next = ranks.len();
        if let Some((ino, _)) = copy.owners.first() {
            ranks.entry(*ino).or_insert(next);
        }
    }
    copies.sort_by_key(|copy| {
        let first = copy.owners.first().copied().unwrap_or((Ino(0), 0));
        (ranks.get(&first.0).copied().unwrap_or_default(), first.1)
    });
    copies
}
