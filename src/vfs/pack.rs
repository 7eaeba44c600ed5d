//! Dirty blocks into segments and up into the bucket.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use tokio::runtime::Handle;
use tokio::task::JoinError;

use crate::base::{BLOCK_BYTES, BlockIndex, BlockPlace, Ino, NewSegment, SEGMENT_BYTES_MAX, aside, behind};
use crate::data::{
    Batch, DataError, FinishedSegment, ReadHint, SEGMENT_BLOCKS_MAX, SEGMENT_ROOM_BYTES, SegmentBuilder,
    room_of,
};

use super::locate::{self, Located};
use super::state::Phase;
use super::{Vfs, VfsError};

/// Blocks completed from older contents at a time.
const COMPLETIONS_MAX: usize = 32;
/// Blocks that may stay in records until an urgent commit takes the time to pack them.
const REPACK_COUNT_MAX: usize = 256;
/// Blocks that are sealed where it is in nobody's way.
const MANY: usize = 16;
/// Pause after a segment could not be put, or a block not read.
const PAUSE: Duration = Duration::from_secs(1);

/// A block that rides in a record, with its contents.
type Rider = (Ino, u64, Bytes);
/// A block that is to be sent, and its length.
type Unsent = (Ino, u64, usize);

impl Vfs {
    /// Starts the upload of full blocks, as long as there are enough of them and uploads to spare.
    pub(super) fn send_full_blocks(&self) {
        let room = self.options.segment_room_bytes;
        let pack_bytes = room / room_of(BLOCK_BYTES) * BLOCK_BYTES;
        while self.state.lock().dirty.full_bytes() >= pack_bytes {
            let Ok(permit) = Arc::clone(&self.uploads).try_acquire_owned() else { return };
            let Some(this) = self.me.upgrade() else { return };
            let builder = self.builder(SEGMENT_BYTES_MAX);
            let Some(batch) = self.state.lock().dirty.take_full(builder.id(), pack_bytes) else { return };
            tokio::spawn(async move {
                this.upload(builder, batch).await;
                drop(permit);
                this.send_full_blocks();
            });
        }
    }

    fn builder(&self, plain_bytes: usize) -> SegmentBuilder {
        SegmentBuilder::in_buffer(&self.vault, self.options.compression, plain_bytes, &self.buffers)
    }

    /// Seals a batch and puts it into the bucket, however long that takes. Whatever happens, somebody hears of its blocks:
    /// writers and commits wait for them.
    async fn upload(&self, builder: SegmentBuilder, batch: Batch) {
        let batch = Arc::new(batch);
        let uploading = AssertUnwindSafe(self.seal_and_put(builder, &batch)).catch_unwind();
        if !matches!(uploading.await, Ok(Ok(()))) {
            // As where the system gives no more threads.
            tracing::error!(segment = %batch.segment, "an upload failed in an unforeseen way; trying again");
            tokio::time::sleep(PAUSE).await;
            let about = batch.blocks.iter().map(|block| block.bytes.len() as u64).sum();
            self.withdraw(&batch, about);
        }
    }

    /// An error says that nobody was there to seal it: it may be tried again.
    async fn seal_and_put(&self, builder: SegmentBuilder, batch: &Arc<Batch>) -> Result<(), JoinError> {
        let sealing = Arc::clone(batch);
        let seal = move || catch_unwind(AssertUnwindSafe(|| seal(builder, &sealing)));
        let sealing = async move { aside(&Handle::current(), seal).await };
        let sealed = match batch.blocks.len() {
            ..MANY => sealing.await?,
            MANY.. => behind(sealing).await??,
        };
        match sealed {
            Ok(Ok((finished, places))) => self.put_sealed(batch, &finished, &places).await,
            Ok(Err(error)) => self.lose(batch, &error.to_string()),
            Err(_) => self.lose(batch, "sealing it failed in an unforeseen way"),
        }
        Ok(())
    }

    async fn put_sealed(&self, batch: &Batch, finished: &FinishedSegment, places: &[BlockPlace]) {
        tokio::select! {
            biased;
            is_put = self.put(finished) => if !is_put { return },
            () = self.outgrows(batch) => return self.withdraw(batch, finished.bytes.len() as u64),
        }
        for (block, place) in batch.blocks.iter().zip(places) {
            self.cache.insert_ahead(place.segment, place.pos, block.bytes.clone());
        }
        let new = NewSegment { len: finished.bytes.len() as u32, seal: finished.seal };
        let mut state = self.state.lock();
        state.dirty.stored(batch, new, places);
        self.note_change(&mut state);
        drop(state);
        self.signals.eased.notify_waiters();
    }

    /// Puts a segment into the bucket; gives whether that was done before the filesystem ceased to take changes.
    async fn put(&self, finished: &FinishedSegment) -> bool {
        while let Err(error) = self.vault.put_segment(finished.id, finished.bytes.clone()).await {
            tracing::warn!(segment = %finished.id, %error, "a segment could not be put; trying again");
            if self.state.lock().phase != Phase::Writable {
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
        true
    }

    /// A batch that cannot be sealed is a fault of this program; its files are told.
    fn lose(&self, batch: &Batch, why: &str) {
        tracing::error!(segment = %batch.segment, why, "a segment could not be made");
        let mut state = self.state.lock();
        for block in &batch.blocks {
            state.lose(block.ino, why.to_owned());
        }
        state.dirty.abandon(batch);
        drop(state);
        self.signals.eased.notify_waiters();
    }

    /// Brings every block of the sealed group into the bucket. Small files, and everything if
    /// `is_urgent` and there is little of it, stay for the commit's records: those are returned.
    pub(super) async fn pack_sealed(
        &self,
        is_urgent: bool,
        is_last_try: bool,
    ) -> Result<Vec<Rider>, VfsError> {
        // Where one `fsync` follows the other no commit is leisurely.
        if !is_urgent || self.state.lock().dirty.repack_count() >= REPACK_COUNT_MAX {
            self.repack().await?;
        }
        self.overtake(true);
        loop {
            self.complete_sealed(is_last_try).await?;
            let (inline, rest) = self.sort_sealed(is_urgent);
            let sending = async {
                self.send_sealed(rest).await;
                self.wait_for_uploads().await
            };
            tokio::select! {
                biased;
                sent = sending => {
                    sent?;
                    if !self.state.lock().dirty.take_withdrawn() {
                        return Ok(inline);
                    }
                }
                () = self.overflows() => {
                    self.regroup();
                    // What had been put off is in the group again.
                    self.overtake(true);
                }
            }
        }
    }

    /// The sealed group's blocks that ride in records, with their contents, and those that are to be sent.
    fn sort_sealed(&self, is_urgent: bool) -> (Vec<Rider>, Vec<Unsent>) {
        let mut state = self.state.lock();
        let (empty, unsent): (Vec<_>, Vec<_>) =
            state.dirty.sealed_unsent().into_iter().partition(|(_, _, bytes)| *bytes == 0);
        for (ino, index, _) in empty {
            state.dirty.void_sealed(ino, index);
        }
        let total: usize = unsent.iter().map(|(_, _, bytes)| bytes).sum();
        let all_inline = is_urgent && total <= self.options.inline_commit_bytes;
        let (inline, rest): (Vec<_>, Vec<_>) = unsent.into_iter().partition(|(ino, index, bytes)| {
            all_inline
                || (*index == 0
                    && *bytes <= self.options.inline_file_bytes
                    && state.dirty.sealed_is_alone(*ino, *index))
        });
        let inline = inline
            .into_iter()
            .filter_map(|(ino, index, _)| Some((ino, index, state.dirty.sealed_whole(ino, index)?)))
            .collect();
        (inline, rest)
    }

    async fn send_sealed(&self, blocks: Vec<Unsent>) {
        let Some(this) = self.me.upgrade() else { return };
        for chunk in chunks(blocks, self.options.segment_room_bytes) {
            let acquiring = Arc::clone(&self.uploads).acquire_owned();
            let permit = tokio::select! {
                biased;
                permit = self.unless_hurried(acquiring) => permit,
                () = self.all_put_off(&chunk.blocks) => continue,
            };
            let Ok(permit) = permit else { return };
            let builder = self.builder(chunk.bytes);
            let batch = self.state.lock().dirty.send_sealed(builder.id(), &chunk.blocks);
            let Some(batch) = batch else { continue };
            let this = Arc::clone(&this);
            tokio::spawn(async move {
                this.upload(builder, batch).await;
                drop(permit);
            });
        }
    }

    /// Returns when the sealed group has none of these blocks any more.
    async fn all_put_off(&self, blocks: &[(Ino, u64)]) {
        loop {
            let eased = self.signals.eased.notified();
            tokio::pin!(eased);
            {
                let state = self.state.lock();
                if !blocks.iter().any(|(ino, index)| state.dirty.is_sealed(*ino, *index)) {
                    return;
                }
                eased.as_mut().enable();
            }
            eased.await;
        }
    }

    async fn wait_for_uploads(&self) -> Result<(), VfsError> {
        loop {
            let eased = self.signals.eased.notified();
            tokio::pin!(eased);
            {
                let state = self.state.lock();
                // Nothing may arrive after the last commit that it does not know of.
                let is_last_out = state.is_closing && state.dirty.in_flight_bytes() > 0;
                if state.dirty.is_sealed_up() && !is_last_out {
                    return Ok(());
                }
                if state.phase == Phase::Fenced {
                    return Err(VfsError::Fenced);
                }
                eased.as_mut().enable();
            }
            self.unless_hurried(eased).await;
        }
    }

    /// Fills blocks that were written in part from their older contents. Where those are damaged, and that is certain, what
    /// was written is dropped.
    async fn complete_sealed(&self, is_last_try: bool) -> Result<(), VfsError> {
        let partial: Vec<(Ino, u64)> = {
            let state = self.state.lock();
            let unsent = state.dirty.sealed_unsent().into_iter();
            unsent
                .filter(|(ino, index, _)| !state.dirty.is_sealed_whole(*ino, *index))
                .map(|(ino, index, _)| (ino, index))
                .collect()
        };
        let mut completions = stream::iter(partial)
            .map(|(ino, index)| async move {
                // It may have been put off meanwhile.
                let is_sealed = self.state.lock().dirty.is_sealed(ino, index);
                if is_sealed { Some((ino, index, self.older_contents(ino, index).await)) } else { None }
            })
            .buffer_unordered(COMPLETIONS_MAX);
        while let Some(completed) = self.unless_hurried(completions.next()).await {
            let Some((ino, index, older)) = completed else { continue };
            match older {
                Ok(bytes) => self.state.lock().dirty.complete_sealed(ino, index, &bytes),
                Err(error) if !error.is_damage() => return Err(error),
                Err(error) => {
                    self.still_writes().boxed().await?;
                    self.note_damage(Some(ino), &error);
                    if !self.is_certain(&error, is_last_try) {
                        return Err(error);
                    }
                    // What lies under the block is lost already. Inventing it is worse than losing
                    // the write, of which the writer is told.
                    tracing::error!(%ino, index, %error, "a block cannot be completed; its new bytes are dropped");
                    let mut state = self.state.lock();
                    // It may have been put off meanwhile, and of a file that was removed nobody asks.
                    if state.dirty.drop_sealed(ino, index) {
                        state.lose(ino, error.to_string());
                    }
                }
            }
        }
        Ok(())
    }

    async fn older_contents(&self, ino: Ino, index: u64) -> Result<Bytes, VfsError> {
        let located = self
            .read_txn(|txn| {
                let beneath = txn.state().dirty.beneath_sealed(ino, index);
                locate::beneath_sealed(txn, ino, index, beneath)
            })
            .await?;
        match located {
            Located::Hole => Ok(Bytes::new()),
            Located::Bytes(bytes) => Ok(bytes),
            Located::Stored(stored) => self.fetch(&stored, ReadHint::Single).await,
        }
    }

    /// Takes blocks that an urgent commit left in records back, to be packed with the rest.
    async fn repack(&self) -> Result<(), VfsError> {
        let blocks = self.state.lock().dirty.take_repack();
        for (at, (ino, index)) in blocks.iter().copied().enumerate() {
            let located = self
                .read_txn(|txn| match locate::committed_inode(txn, ino)? {
                    Some(inode) => locate::committed(txn, ino, &inode, index),
                    None => Ok(Located::Hole),
                })
                .await;
            match located {
                Ok(Located::Bytes(bytes)) => {
                    self.state.lock().dirty.repack_sealed(ino, index, bytes.to_vec());
                }
                Ok(_) => {}
                // It stays where it cannot be read.
                Err(error) if error.is_damage() => self.note_damage(Some(ino), &error),
                Err(error) => {
                    self.state.lock().dirty.put_back_repack(blocks.into_iter().skip(at));
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Blocks for one segment.
struct Chunk {
    blocks: Vec<(Ino, u64)>,
    bytes: usize,
    room: usize,
}

impl Chunk {
    fn takes(&self, bytes: usize, room: usize) -> bool {
        self.room + room_of(bytes) <= room.min(SEGMENT_ROOM_BYTES)
            && self.blocks.len() < SEGMENT_BLOCKS_MAX as usize
    }
}

fn chunks(blocks: Vec<Unsent>, room: usize) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for (ino, index, bytes) in blocks {
        match chunks.last_mut() {
            Some(chunk) if chunk.takes(bytes, room) => {
                chunk.bytes += bytes;
                chunk.room += room_of(bytes);
                chunk.blocks.push((ino, index));
            }
            _ => chunks.push(Chunk { blocks: vec![(ino, index)], bytes, room: room_of(bytes) }),
        }
    }
    chunks
}

fn seal(mut builder: SegmentBuilder, batch: &Batch) -> Result<(FinishedSegment, Vec<BlockPlace>), DataError> {
    let mut places = Vec::with_capacity(batch.blocks.len());
    for block in &batch.blocks {
        places.push(builder.push(block.ino, BlockIndex(block.index), &block.bytes)?);
    }
    Ok((builder.finish(), places))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::SeededEntropy;
    use crate::crypto::{Epoch, Key, KeyRing};
    use crate::data::Compression;
    use crate::store::Bucket;
    use crate::vault::Vault;

    /// Every chunk must fit its segment, whatever the sizes: a block that does not is lost.
    #[tokio::test]
    async fn what_is_planned_for_a_segment_fits_into_it() {
        let entropy = Arc::new(SeededEntropy::new(5));
        let volume = crate::base::VolumeId([1; 16]);
        let ring = Arc::new(KeyRing::new(volume, Epoch::FIRST, &Key::random(entropy.as_ref())));
        let vault = Vault::new(Bucket::memory(), ring, entropy);
        for bytes in [1, 15, 100, 4096, 30_000, BLOCK_BYTES - 1, BLOCK_BYTES] {
            let blocks =
                (0..70_000.min(30_000_000 / bytes)).map(|index| (Ino(2), index as u64, bytes)).collect();
            for chunk in chunks(blocks, SEGMENT_ROOM_BYTES) {
                let mut builder = SegmentBuilder::with_capacity(&vault, Compression::None, chunk.bytes);
                for (ino, index) in chunk.blocks {
                    builder.push(ino, BlockIndex(index), &vec![7; bytes]).unwrap();
                }
                assert!(builder.finish().bytes.len() <= crate::base::SEGMENT_BYTES_MAX);
            }
        }
    }
}
