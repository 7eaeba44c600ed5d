//! The object store that the record engine is given: every path and every object sealed.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as RawError, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result as RawResult, UploadPart,
};

use super::geometry::Geometry;
use super::names::{self, Opener};
use super::open::{Opened, Reader, damaged, of_object, split};
use super::sealer::Sealer;
use super::{Vault, VaultError};
use crate::base::Pool;
use crate::crypto::ObjectKind;

/// Most objects of one listing; more are not the engine's doing.
const LISTED_MAX: usize = 1_000_000;
/// Largest object: one is held in memory until it is sent, in one request that can be repeated.
const OBJECT_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// The sealed store. Attributes, tags, versions and entity tags are neither sent nor believed.
pub(super) struct SealedStore(Arc<Reader>);

impl SealedStore {
    pub(super) fn new(vault: Vault, cache_bytes: u64, pool: &Arc<Pool>) -> Self {
        Self(Arc::new(Reader::new(vault, cache_bytes, pool)))
    }
}

impl fmt::Debug for SealedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedStore")
    }
}

impl fmt::Display for SealedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sealed objects in {}", self.0.vault.bucket().display_url())
    }
}

#[async_trait]
impl ObjectStore for SealedStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> RawResult<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) {
            let operation = "replacing an object".to_owned();
            return Err(RawError::NotImplemented { operation, implementer: self.to_string() });
        }
        let mut sealer = begin(&self.0.vault, path, payload.content_length());
        for chunk in payload.iter() {
            sealer.push(chunk);
        }
        put(&self.0, path, sealer, opts.mode).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        _: PutMultipartOptions,
    ) -> RawResult<Box<dyn MultipartUpload>> {
        let sealer = Some(begin(&self.0.vault, path, 0));
        Ok(Box::new(Upload { reader: self.0.clone(), path: path.clone(), sealer }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> RawResult<GetResult> {
        let conditional = options.if_match.is_some()
            || options.if_none_match.is_some()
            || options.if_modified_since.is_some()
            || options.if_unmodified_since.is_some()
            || options.version.is_some();
        if conditional {
            return Err(unsupported("conditional reads"));
        }
        if options.head {
            let opened = self.0.open(path).await?;
            let len = opened.geometry.plain_len;
            return Ok(result(path, &opened, 0..len, Bytes::new()));
        }
        let (opened, range, bytes) = self.0.read(path, options.range.as_ref()).await?;
        Ok(result(path, &opened, range, bytes))
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, RawResult<Path>>,
    ) -> BoxStream<'static, RawResult<Path>> {
        let (reader, opening) = (self.0.clone(), self.0.clone());
        let sealed = paths.map_ok(move |plain| {
            reader.forget(&plain);
            names::seal(reader.vault.ring(), &plain)
        });
        let deleted = self.0.vault.bucket().objects.delete_stream(sealed.boxed());
        deleted
            .map(move |sealed| {
                let sealed = sealed?;
                Opener::new(opening.vault.ring()).open(&sealed).ok_or_else(|| damaged(&sealed, "its name"))
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, RawResult<ObjectMeta>> {
        let reader = self.0.clone();
        let prefix = prefix.cloned().unwrap_or_default();
        async move { list(&reader, &prefix).await }
            .into_stream()
            .map_ok(|entries| stream::iter(entries.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, RawResult<ObjectMeta>> {
        let offset = offset.clone();
        let after = move |entry: &ObjectMeta| futures::future::ready(entry.location > offset);
        self.list(prefix).try_filter(after).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> RawResult<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        let depth = prefix.parts().count() + 1;
        let (mut objects, mut common_prefixes) = (Vec::new(), Vec::new());
        for entry in list(&self.0, &prefix).await? {
            if entry.location.parts().count() == depth {
                objects.push(entry);
            } else {
                common_prefixes.push(entry.location.parts().take(depth).collect::<Path>());
            }
        }
        common_prefixes.dedup();
        Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
    }

    /// Not offered: an object is bound to its name.
    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> RawResult<()> {
        Err(unsupported("copies"))
    }
}

fn unsupported(what: &str) -> RawError {
    RawError::NotSupported { source: format!("{what} of sealed objects are not offered").into() }
}

fn begin(vault: &Vault, path: &Path, plain_len: usize) -> Sealer {
    let (head, key) = vault.ring().new_object(ObjectKind::Meta, path.as_ref().as_bytes(), vault.entropy());
    Sealer::new(&head, key, plain_len)
}

async fn put(reader: &Reader, path: &Path, sealer: Sealer, mode: PutMode) -> RawResult<PutResult> {
    let (bytes, key) = sealer.finish();
    let sealed = names::seal(reader.vault.ring(), path);
    let is_table = !matches!(mode, PutMode::Create);
    let opts = PutOptions { mode, ..PutOptions::default() };
    let payload = PutPayload::from_bytes(bytes.clone());
    let written = reader.vault.bucket().objects.put_opts(&sealed, payload, opts).await;
    written.map_err(|error| of_object(&sealed, error))?;
    let object_len = bytes.len() as u64;
    let geometry = Geometry::of_sealed(object_len).ok_or_else(|| damaged(&sealed, "its own length"))?;
    let last_modified = chrono::DateTime::from(std::time::SystemTime::now());
    let name: Arc<str> = path.as_ref().into();
    reader.forget(path);
    if is_table {
        keep(reader, &name, &bytes, geometry);
    }
    let (sealed, key) = (Arc::new(sealed), Arc::new(key));
    reader.remember(Opened { name, sealed, key, geometry, last_modified });
    Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
}

/// Keeps what was just written for reading. Only tables are written without «create»; logs and manifests
/// are not read again by their writer.
fn keep(reader: &Reader, name: &Arc<str>, bytes: &Bytes, geometry: Geometry) {
    for (number, chunk) in split(bytes, 0, geometry.last_chunk()) {
        reader.cache.insert((name.clone(), number), chunk);
    }
}

fn result(path: &Path, opened: &Opened, range: std::ops::Range<u64>, bytes: Bytes) -> GetResult {
    GetResult {
        payload: GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed()),
        meta: ObjectMeta {
            location: path.clone(),
            last_modified: opened.last_modified,
            size: opened.geometry.plain_len,
            e_tag: None,
            version: None,
        },
        range,
        attributes: Default::default(),
        extensions: Default::default(),
    }
}

/// All objects below `prefix`, ordered by their plain paths. The lengths are the provider's word.
async fn list(reader: &Reader, prefix: &Path) -> RawResult<Vec<ObjectMeta>> {
    let ring = reader.vault.ring();
    let sealed_prefix = names::seal(ring, prefix);
    let mut listing = reader.vault.bucket().objects.list(Some(&sealed_prefix));
    let mut opener = Opener::new(ring);
    let (mut entries, mut foreign) = (Vec::new(), 0_usize);
    while let Some(entry) = listing.try_next().await? {
        let geometry = Geometry::of_sealed(entry.size);
        match opener.open(&entry.location).zip(geometry) {
            Some((location, geometry)) => entries.push(ObjectMeta {
                location,
                last_modified: entry.last_modified,
                size: geometry.plain_len,
                e_tag: None,
                version: None,
            }),
            None => {
                foreign += 1;
                tracing::debug!(object = %entry.location, "not a sealed object of ours");
            }
        }
        if entries.len() + foreign > LISTED_MAX {
            let too_many = VaultError::damaged(sealed_prefix.as_ref(), "it lists without end");
            return Err(RawError::Generic { store: "vault", source: Box::new(too_many) });
        }
    }
    if foreign > 0 {
        tracing::warn!(foreign, directory = %sealed_prefix, "objects that are not ours were passed over");
    }
    entries.sort_unstable_by(|a, b| a.location.cmp(&b.location));
    entries.dedup_by(|a, b| a.location == b.location);
    Ok(entries)
}

/// A table that comes in parts. It leaves as one PUT, which can be repeated as a part cannot.
struct Upload {
    reader: Arc<Reader>,
    path: Path,
    sealer: Option<Sealer>,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upload of {}", self.path)
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let result = match &mut self.sealer {
            None => Err(unsupported("further parts")),
            Some(sealer) if sealer.len() + data.content_length() > OBJECT_BYTES_MAX => {
                Err(unsupported("parts beyond one GiB"))
            }
            Some(sealer) => {
                data.iter().for_each(|chunk| sealer.push(chunk));
                Ok(())
            }
        };
        futures::future::ready(result).boxed()
    }

    async fn complete(&mut self) -> RawResult<PutResult> {
        let sealer = self.sealer.take().ok_or_else(|| unsupported("second completions"))?;
        put(&self.reader, &self.path, sealer, PutMode::Overwrite).await
    }

    async fn abort(&mut self) -> RawResult<()> {
        self.sealer = None;
        Ok(())
    }
}
