//! Reads sealed objects of the record engine: any range, few requests, nothing unauthenticated.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use lru::LruCache;
use object_store::path::Path;
use object_store::{Error as RawError, GetOptions, GetRange, ObjectStore};
use parking_lot::Mutex;

use super::chunks::ChunkCache;
use super::geometry::{Geometry, PIECE_BYTES, SPAN_CHUNKS, chunk_range, place_in_chunk};
use super::{Vault, VaultError, names};
use crate::base::Pool;
use crate::crypto::{HEAD_BYTES, ObjectHead, ObjectKey, ObjectKind, TAG_BYTES};
use crate::store::Bucket;

/// Objects whose keys are kept.
const KEYS_MAX: usize = 4096;
/// Most that is read at once.
const READ_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Chunks that are fetched beyond the first read of an object: 256 KiB, which the index of any but the largest table fits in.
const CHUNKS_AHEAD: u64 = 2;
/// Spans of one read that are fetched at a time.
const SPANS_AT_ONCE: usize = 4;

/// An object whose head has been checked.
#[derive(Clone)]
pub(super) struct Opened {
    pub name: Arc<str>,
    /// Where it lies in the bucket. Kept, because sealing a path costs as much as opening a piece.
    pub sealed: Arc<Path>,
    pub key: Arc<ObjectKey>,
    pub geometry: Geometry,
    pub last_modified: DateTime<Utc>,
}

/// What the bucket gave.
struct Fetched {
    bytes: Bytes,
    /// Length of the whole sealed object, as the bucket says.
    object_len: u64,
    last_modified: DateTime<Utc>,
}

/// The reading side of the sealed store.
pub(super) struct Reader {
    pub vault: Vault,
    pub cache: Arc<ChunkCache>,
    opened: Mutex<LruCache<Arc<str>, Opened>>,
}

impl Reader {
    pub(super) fn new(vault: Vault, cache_bytes: u64, pool: &Arc<Pool>) -> Self {
        let cache = ChunkCache::new(cache_bytes, vault.cached().clone(), pool);
        let keys_max = std::num::NonZeroUsize::new(KEYS_MAX).unwrap_or(std::num::NonZeroUsize::MIN);
        Self { vault, cache, opened: Mutex::new(LruCache::new(keys_max)) }
    }

    /// Notes an object that was written or opened here.
    pub(super) fn remember(&self, opened: Opened) {
        self.opened.lock().put(opened.name.clone(), opened);
    }

    /// Notes that an object is gone.
    pub(super) fn forget(&self, plain: &Path) {
        let name: Arc<str> = plain.as_ref().into();
        self.opened.lock().pop(&name);
        self.cache.remove(&(name, 0));
    }

    /// The object called `plain`. Of one that was not seen before, the first span is fetched: so a small object costs one request in
    /// all, and its length is authenticated by its last piece before anyone relies on it. That of a larger one is what the bucket says
    /// until its last piece is read.
    pub(super) async fn open(&self, plain: &Path) -> Result<Opened, RawError> {
        let name: Arc<str> = plain.as_ref().into();
        if let Some(opened) = self.seen(&name) {
            return Ok(opened);
        }
        let sealed = names::seal(self.vault.ring(), plain);
        let fetch = async {
            if let Some(opened) = self.seen(&name) {
                return Ok(opened);
            }
            let fetched = self.fetch(&sealed, chunk_range(0, SPAN_CHUNKS - 1)).await?;
            let opened = self.check_head(&name, &sealed, &fetched)?;
            let last = opened.geometry.last_chunk();
            let chunks: Vec<_> = split(&fetched.bytes, 0, last.min(SPAN_CHUNKS - 1)).collect();
            if last < SPAN_CHUNKS {
                let end = chunks.last().map(|(_, chunk)| chunk.clone()).unwrap_or_default();
                self.open_piece(&opened, opened.geometry.pieces() - 1, &end, &mut Vec::new())?;
            }
            for (number, chunk) in chunks {
                self.cache.insert((name.clone(), number), chunk);
            }
            self.remember(opened.clone());
            Ok(opened)
        };
        self.cache.alone((name.clone(), 0), fetch).await
    }

    fn seen(&self, name: &Arc<str>) -> Option<Opened> {
        self.opened.lock().get(name).cloned()
    }

    /// The plaintext bytes `range` of the object called `plain`, clipped to its end.
    pub(super) async fn read(
        &self,
        plain: &Path,
        wanted: Option<&GetRange>,
    ) -> Result<(Opened, Range<u64>, Bytes), RawError> {
        let opened = match wanted {
            Some(GetRange::Bounded(range)) => self.open_for(plain, range).await?,
            _ => self.open(plain).await?,
        };
        let len = opened.geometry.plain_len;
        let range = match wanted {
            None => 0..len,
            Some(wanted) => wanted
                .as_range(len)
                .map_err(|error| RawError::Generic { store: "vault", source: Box::new(error) })?,
        };
        let bytes = self.read_opened(&opened, range.clone()).await?;
        Ok((opened, range, bytes))
    }

    /// As [`Reader::open`], but for a read far into an unseen object: only the head is fetched, and at the
    /// same time what is wanted with a little of what follows. Of a table that is the filter, and behind it the index, for which
    /// SlateDB asks next.
    async fn open_for(&self, plain: &Path, range: &Range<u64>) -> Result<Opened, RawError> {
        let name: Arc<str> = plain.as_ref().into();
        let first = place_in_chunk(range.start / PIECE_BYTES).0;
        if first < SPAN_CHUNKS || self.seen(&name).is_some() {
            return self.open(plain).await;
        }
        let sealed = names::seal(self.vault.ring(), plain);
        let last = place_in_chunk(range.end.saturating_sub(1) / PIECE_BYTES).0;
        let last = last.clamp(first, first.saturating_add(SPAN_CHUNKS - 1)).saturating_add(CHUNKS_AHEAD);
        let fetch = async {
            if let Some(opened) = self.seen(&name) {
                return Ok(opened);
            }
            let head = self.fetch(&sealed, 0..HEAD_BYTES as u64);
            let wanted = self.fetch(&sealed, chunk_range(first, last));
            let (head, wanted) = futures::try_join!(head, wanted)?;
            let opened = self.check_head(&name, &sealed, &head)?;
            for (number, chunk) in split(&wanted.bytes, first, last.min(opened.geometry.last_chunk())) {
                self.cache.insert((name.clone(), number), chunk);
            }
            self.remember(opened.clone());
            Ok(opened)
        };
        self.cache.alone((name.clone(), first / SPAN_CHUNKS), fetch).await
    }

    async fn read_opened(&self, opened: &Opened, range: Range<u64>) -> Result<Bytes, RawError> {
        let (len, sealed) = (range.end.saturating_sub(range.start), &*opened.sealed);
        if len > READ_BYTES_MAX {
            return Err(damaged(sealed, format!("{len} bytes are more than it can have")));
        }
        if len == 0 {
            return Ok(Bytes::new());
        }
        let (first, last) = (range.start / PIECE_BYTES, (range.end - 1) / PIECE_BYTES);
        let (first_chunk, last_chunk) = (place_in_chunk(first).0, place_in_chunk(last).0);
        let chunks = self.chunks(opened, first_chunk, last_chunk).await?;
        let mut out = Vec::with_capacity(usize::try_from(len + 2 * PIECE_BYTES).unwrap_or(0));
        let mut at = range.start;
        for piece in first..=last {
            let index = usize::try_from(place_in_chunk(piece).0 - first_chunk).unwrap_or(usize::MAX);
            let chunk = chunks.get(index).ok_or_else(|| self.cut_short(sealed))?;
            let begun = out.len();
            self.open_piece(opened, piece, chunk, &mut out)?;
            let start = piece * PIECE_BYTES;
            let end = start + opened.geometry.piece_len(piece);
            let (skip, keep) = (at - start, range.end.min(end) - start);
            trim(&mut out, begun, skip, keep);
            at = end;
        }
        Ok(out.into())
    }

    /// The chunks `first` to `last`, from the cache or the bucket.
    async fn chunks(&self, opened: &Opened, first: u64, last: u64) -> Result<Vec<Bytes>, RawError> {
        let is_scan = self.cache.continues(&opened.name, first, last);
        let spans = first / SPAN_CHUNKS..=last / SPAN_CHUNKS;
        let fetches = spans.map(|span| {
            let from = first.max(span * SPAN_CHUNKS);
            let to = last.min(span * SPAN_CHUNKS + SPAN_CHUNKS - 1);
            self.chunks_of_span(opened, from, to, is_scan)
        });
        let spans: Vec<Vec<Bytes>> = stream::iter(fetches).buffered(SPANS_AT_ONCE).try_collect().await?;
        Ok(spans.into_iter().flatten().collect())
    }

    /// The chunks `first` to `last`, all of one span. A scan takes the rest of the span along.
    async fn chunks_of_span(
        &self,
        opened: &Opened,
        first: u64,
        last: u64,
        is_scan: bool,
    ) -> Result<Vec<Bytes>, RawError> {
        let name = &opened.name;
        let here: Option<Vec<Bytes>> = self.cache.get(name, first, last).into_iter().collect();
        if let Some(here) = here {
            return Ok(here);
        }
        let fetch = async {
            let mut found = self.cache.get(name, first, last);
            let Some(missing) = found.iter().position(Option::is_none) else {
                return Ok(found.into_iter().flatten().collect());
            };
            let from = first + missing as u64;
            let span_end = (from / SPAN_CHUNKS + 1) * SPAN_CHUNKS - 1;
            let to = if is_scan { span_end.min(opened.geometry.last_chunk()) } else { last };
            let fetched = self.fetch(&opened.sealed, chunk_range(from, to)).await?;
            for (number, chunk) in split(&fetched.bytes, from, to) {
                self.cache.insert((name.clone(), number), chunk.clone());
                let index = usize::try_from(number - first).unwrap_or(usize::MAX);
                if let Some(place) = found.get_mut(index) {
                    *place = Some(chunk);
                }
            }
            Ok(found.into_iter().map(Option::unwrap_or_default).collect())
        };
        self.cache.alone((name.clone(), first / SPAN_CHUNKS), fetch).await
    }

    async fn fetch(&self, sealed: &Path, range: Range<u64>) -> Result<Fetched, RawError> {
        let start = range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        match self.vault.bucket().objects.get_opts(sealed, options).await {
            Ok(result) => {
                let (object_len, last_modified) = (result.meta.size, result.meta.last_modified);
                Ok(Fetched { bytes: result.bytes().await?, object_len, last_modified })
            }
            Err(error) => match self.vault.len_after_refusal(sealed, &error).await {
                Some(len) if len <= start => Err(self.cut_short(sealed)),
                _ => Err(of_object(sealed, error)),
            },
        }
    }

    fn check_head(&self, name: &Arc<str>, sealed: &Path, fetched: &Fetched) -> Result<Opened, RawError> {
        let head = ObjectHead::decode(&fetched.bytes).map_err(|error| damaged(sealed, error))?;
        let key = self.vault.ring().open_object(ObjectKind::Meta, name.as_bytes(), &head);
        let key = key.map_err(|error| raw(VaultError::refused(sealed.as_ref(), error)))?;
        let geometry = Geometry::of_sealed(fetched.object_len).ok_or_else(|| self.cut_short(sealed))?;
        let (name, sealed, key) = (name.clone(), Arc::new(sealed.clone()), Arc::new(key));
        Ok(Opened { name, sealed, key, geometry, last_modified: fetched.last_modified })
    }

    /// Appends the plaintext of `piece` to `out`.
    fn open_piece(
        &self,
        opened: &Opened,
        piece: u64,
        chunk: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), RawError> {
        let (number, position) = place_in_chunk(piece);
        let len = opened.geometry.piece_len(piece) + TAG_BYTES as u64;
        let slice = usize::try_from(position).ok().zip(usize::try_from(position + len).ok());
        let bytes = slice.and_then(|(start, end)| chunk.get(start..end));
        let Some(bytes) = bytes else {
            self.doubt(opened, number);
            return Err(self.cut_short(&opened.sealed));
        };
        let begun = out.len();
        out.extend_from_slice(bytes);
        let target = out.get_mut(begun..).unwrap_or_default();
        match opened.key.open_piece(piece, opened.geometry.is_last(piece), target) {
            Ok(_) => {
                out.truncate(out.len().saturating_sub(TAG_BYTES));
                Ok(())
            }
            Err(error) => {
                self.doubt(opened, number);
                out.truncate(begun);
                Err(damaged(&opened.sealed, error))
            }
        }
    }

    /// A chunk proved wrong, and with it perhaps the length that the object was said to have. The answers may have been lies that the
    /// bucket does not repeat: the next read asks again for both.
    fn doubt(&self, opened: &Opened, chunk: u64) {
        self.cache.remove(&(opened.name.clone(), chunk));
        self.opened.lock().pop(&opened.name);
    }

    fn cut_short(&self, sealed: &Path) -> RawError {
        damaged(sealed, "its length does not fit")
    }
}

/// Cuts the bytes of the chunks `first` to `last` into chunks. Each is a copy: a slice would keep all of
/// them in memory as long as any.
pub(super) fn split(bytes: &Bytes, first: u64, last: u64) -> impl Iterator<Item = (u64, Bytes)> {
    let base = chunk_range(first, last).start;
    (first..=last).map(move |number| {
        let range = chunk_range(number, number);
        let within = |at: u64| usize::try_from(at - base).unwrap_or(usize::MAX).min(bytes.len());
        (
            number,
            Bytes::copy_from_slice(bytes.get(within(range.start)..within(range.end)).unwrap_or_default()),
        )
    })
}

/// Keeps the bytes from `skip` to `keep` of what was appended since `begun`.
fn trim(out: &mut Vec<u8>, begun: usize, skip: u64, keep: u64) {
    out.truncate(begun.saturating_add(usize::try_from(keep).unwrap_or(usize::MAX)));
    let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(out.len() - begun);
    if skip > 0 {
        out.drain(begun..begun + skip);
    }
}

/// `error`, or that the object is damaged if it tells of the object alone.
pub(super) fn of_object(sealed: &Path, error: RawError) -> RawError {
    match Bucket::unfit(&error) {
        Some(what) => damaged(sealed, what),
        None => error,
    }
}

/// The error of a damaged object; the record engine finds the [`VaultError`] in it.
pub(super) fn damaged(sealed: &Path, what: impl std::fmt::Display) -> RawError {
    raw(VaultError::damaged(sealed.as_ref(), what))
}

fn raw(error: VaultError) -> RawError {
    RawError::Generic { store: "vault", source: Box::new(error) }
}
