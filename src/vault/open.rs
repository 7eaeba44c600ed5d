//! Reads sealed objects of the record engine: any range, few requests, nothing unauthenticated.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use lru::LruCache;
use object_store::path::Path;
use object_store::{Error as RawError, GetOptions, GetRange, ObjectStore};
use parking_lot::Mutex;

use super::geometry::{Geometry, PIECE_BYTES, place_in_span, span_range};
use super::spans::{Span, SpanCache};
use super::{Vault, VaultError, names};
use crate::crypto::{HEAD_BYTES, ObjectHead, ObjectKey, ObjectKind, TAG_BYTES};

/// Objects whose keys are kept.
const KEYS_MAX: usize = 4096;
/// Most that is read at once.
const READ_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Spans of one read that are fetched at a time.
const SPANS_AT_ONCE: usize = 4;

/// An object whose head has been checked.
#[derive(Clone)]
pub(super) struct Opened {
    pub name: Arc<str>,
    pub key: Arc<ObjectKey>,
    pub geometry: Geometry,
    pub last_modified: DateTime<Utc>,
}

/// The reading side of the sealed store.
pub(super) struct Reader {
    pub vault: Vault,
    pub spans: SpanCache,
    opened: Mutex<LruCache<Arc<str>, Opened>>,
}

impl Reader {
    pub(super) fn new(vault: Vault, cache_bytes: u64) -> Self {
        let keys_max = std::num::NonZeroUsize::new(KEYS_MAX).unwrap_or(std::num::NonZeroUsize::MIN);
        Self { vault, spans: SpanCache::new(cache_bytes), opened: Mutex::new(LruCache::new(keys_max)) }
    }

    /// Notes an object that was written or opened here.
    pub(super) fn remember(&self, opened: Opened) {
        self.opened.lock().put(opened.name.clone(), opened);
    }

    /// Notes that an object is gone.
    pub(super) fn forget(&self, plain: &Path) {
        let name: Arc<str> = plain.as_ref().into();
        self.opened.lock().pop(&name);
        self.spans.remove(&(name, 0));
    }

    /// The object called `plain`. For one that was not seen before, its first span is fetched: so a small
    /// object costs one request in all, and its length is authenticated before anyone relies on it.
    pub(super) async fn open(&self, plain: &Path) -> Result<Opened, RawError> {
        let name: Arc<str> = plain.as_ref().into();
        if let Some(opened) = self.opened.lock().get(&name) {
            return Ok(opened.clone());
        }
        let sealed = names::seal(self.vault.ring(), plain);
        let first = self.span(&name, &sealed, 0).await?;
        let opened = self.check_head(&name, &sealed, &first.bytes, &first)?;
        let last = opened.geometry.pieces() - 1;
        if place_in_span(last).0 == 0 {
            let mut end = Vec::new();
            self.open_piece(&opened, &sealed, last, &first, &mut end)?;
        }
        self.remember(opened.clone());
        Ok(opened)
    }

    /// The plaintext bytes `range` of the object called `plain`, clipped to its end.
    pub(super) async fn read(
        &self,
        plain: &Path,
        wanted: Option<&GetRange>,
    ) -> Result<(Opened, Range<u64>, Bytes), RawError> {
        let opened = match wanted {
            Some(GetRange::Bounded(range)) => self.open_for(plain, range.start).await?,
            _ => self.open(plain).await?,
        };
        let len = opened.geometry.plain_len;
        let range = match wanted {
            None => 0..len,
            Some(wanted) => wanted
                .as_range(len)
                .map_err(|error| RawError::Generic { store: "vault", source: Box::new(error) })?,
        };
        let bytes = self.read_opened(plain, &opened, range.clone()).await?;
        Ok((opened, range, bytes))
    }

    /// As [`Reader::open`], but for a read far into an unseen object: the head alone is fetched, while the
    /// span that is wanted comes along at the same time.
    async fn open_for(&self, plain: &Path, start: u64) -> Result<Opened, RawError> {
        let name: Arc<str> = plain.as_ref().into();
        let (span, _) = place_in_span(start / PIECE_BYTES);
        if span == 0 || self.opened.lock().contains(&name) {
            return self.open(plain).await;
        }
        let sealed = names::seal(self.vault.ring(), plain);
        let head = self.fetch(&sealed, 0..HEAD_BYTES as u64);
        let (head, _) = futures::try_join!(head, self.span(&name, &sealed, span))?;
        let opened = self.check_head(&name, &sealed, &head.bytes, &head)?;
        self.remember(opened.clone());
        Ok(opened)
    }

    async fn read_opened(&self, plain: &Path, opened: &Opened, range: Range<u64>) -> Result<Bytes, RawError> {
        let len = range.end.saturating_sub(range.start);
        if len > READ_BYTES_MAX {
            let source = format!("{len} bytes of {plain} are more than are read at once").into();
            return Err(RawError::NotSupported { source });
        }
        if len == 0 {
            return Ok(Bytes::new());
        }
        let sealed = names::seal(self.vault.ring(), plain);
        let (first, last) = (range.start / PIECE_BYTES, (range.end - 1) / PIECE_BYTES);
        let spans = self.gather(&opened.name, &sealed, place_in_span(first).0, place_in_span(last).0).await?;
        let mut out = Vec::with_capacity(usize::try_from(len).unwrap_or(0) + TAG_BYTES);
        let mut at = range.start;
        for piece in first..=last {
            let (number, _) = place_in_span(piece);
            let index = usize::try_from(number - place_in_span(first).0).unwrap_or(usize::MAX);
            let span = spans.get(index).ok_or_else(|| self.cut_short(&sealed))?;
            let begun = out.len();
            self.open_piece(opened, &sealed, piece, span, &mut out)?;
            let start = piece * PIECE_BYTES;
            let end = start + opened.geometry.piece_len(piece);
            let (skip, keep) = (at - start, range.end.min(end) - start);
            trim(&mut out, begun, skip, keep);
            at = end;
        }
        Ok(out.into())
    }

    async fn gather(
        &self,
        name: &Arc<str>,
        sealed: &Path,
        first: u64,
        last: u64,
    ) -> Result<Vec<Span>, RawError> {
        use futures::{StreamExt, TryStreamExt};
        if first == last {
            return Ok(vec![self.span(name, sealed, first).await?]);
        }
        let fetches = (first..=last).map(|number| self.span(name, sealed, number));
        futures::stream::iter(fetches).buffered(SPANS_AT_ONCE).try_collect().await
    }

    async fn span(&self, name: &Arc<str>, sealed: &Path, number: u64) -> Result<Span, RawError> {
        self.spans.get((name.clone(), number), || self.fetch(sealed, span_range(number))).await
    }

    async fn fetch(&self, sealed: &Path, range: Range<u64>) -> Result<Span, RawError> {
        let start = range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        match self.vault.bucket().objects.get_opts(sealed, options).await {
            Ok(result) => {
                let (object_len, last_modified) = (result.meta.size, result.meta.last_modified);
                Ok(Span { bytes: result.bytes().await?, object_len, last_modified })
            }
            Err(error) => match self.vault.len_after_refusal(sealed, &error).await {
                Some(len) if len <= start => Err(self.cut_short(sealed)),
                _ => Err(error),
            },
        }
    }

    fn check_head(
        &self,
        name: &Arc<str>,
        sealed: &Path,
        bytes: &[u8],
        span: &Span,
    ) -> Result<Opened, RawError> {
        let head = ObjectHead::decode(bytes).map_err(|error| damaged(sealed, error))?;
        let key = self.vault.ring().open_object(ObjectKind::Meta, name.as_bytes(), &head);
        let key = key.map_err(|error| damaged(sealed, error))?;
        let geometry = Geometry::of_sealed(span.object_len).ok_or_else(|| self.cut_short(sealed))?;
        Ok(Opened { name: name.clone(), key: Arc::new(key), geometry, last_modified: span.last_modified })
    }

    /// Appends the plaintext of `piece` to `out`.
    fn open_piece(
        &self,
        opened: &Opened,
        sealed: &Path,
        piece: u64,
        span: &Span,
        out: &mut Vec<u8>,
    ) -> Result<(), RawError> {
        let (_, position) = place_in_span(piece);
        let len = opened.geometry.piece_len(piece) + TAG_BYTES as u64;
        let slice = usize::try_from(position).ok().zip(usize::try_from(position + len).ok());
        let bytes = slice.and_then(|(start, end)| span.bytes.get(start..end));
        let bytes = bytes.ok_or_else(|| self.cut_short(sealed))?;
        let begun = out.len();
        out.extend_from_slice(bytes);
        let target = out.get_mut(begun..).unwrap_or_default();
        match opened.key.open_piece(piece, opened.geometry.is_last(piece), target) {
            Ok(_) => {
                out.truncate(out.len().saturating_sub(TAG_BYTES));
                Ok(())
            }
            Err(error) => {
                // It may be that a damaged copy was kept: the next read asks the bucket again.
                self.spans.remove(&(opened.name.clone(), place_in_span(piece).0));
                out.truncate(begun);
                Err(damaged(sealed, error))
            }
        }
    }

    fn cut_short(&self, sealed: &Path) -> RawError {
        damaged(sealed, "its length does not fit")
    }
}

/// Keeps the bytes from `skip` to `keep` of what was appended since `begun`.
fn trim(out: &mut Vec<u8>, begun: usize, skip: u64, keep: u64) {
    out.truncate(begun.saturating_add(usize::try_from(keep).unwrap_or(usize::MAX)));
    let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(out.len() - begun);
    if skip > 0 {
        out.drain(begun..begun + skip);
    }
}

/// The error of a damaged object; the record engine finds the [`VaultError`] in it.
pub(super) fn damaged(sealed: &Path, what: impl std::fmt::Display) -> RawError {
    RawError::Generic { store: "vault", source: Box::new(VaultError::damaged(sealed.as_ref(), what)) }
}
