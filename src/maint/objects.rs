//! Everything in the bucket: whose each object is, and whether headers and metadata objects are whole.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use super::MaintError;
use super::finding::{Findings, Problem, Subject};
use super::segments::Segments;
use crate::base::SegmentId;
use crate::keys;
use crate::vault::{Vault, VaultError, header, peek};

/// A file that nobody has written to for so long is left over.
const LEFT_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Metadata objects opened at once. Most are small, and what the others take is bounded by [`peek::ROOM_BYTES`].
const OPENED_AT_ONCE: usize = 16;

/// What a listing of the bucket shows.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) objects: u64,
    pub(super) bytes: u64,
    /// Paths of metadata objects, what the engine calls them, and their lengths.
    meta: Vec<(String, String, u64)>,
    headers: Vec<u64>,
}

impl Listing {
    /// Lists the bucket, and tells `segments` of every segment in it.
    pub(super) async fn take(
        vault: &Vault,
        segments: &mut Segments,
        findings: &mut Findings,
    ) -> Result<Self, MaintError> {
        let mut listing = Self::default();
        let bucket = vault.bucket().clone();
        let mut listed = peek::list(&bucket, None);
        while let Some((path, size)) = listed.try_next().await? {
            listing.objects += 1;
            listing.bytes = listing.bytes.saturating_add(size);
            let (room, rest) = path.split_once('/').unwrap_or((&path, ""));
            match room {
                "d" if segment_id(rest).is_some() => {
                    if let Some(id) = segment_id(rest) {
                        segments.of(id).1.object = Some(size);
                    }
                }
                "m" => match peek::engine_path(vault, &path) {
                    Some(name) => listing.meta.push((path, name, size)),
                    None => findings.add(Subject::Object(path), Problem::ObjectStray),
                },
                "header" => match rest.parse::<u64>() {
                    Ok(number) if number.to_string() == rest => listing.headers.push(number),
                    _ => findings.add(Subject::Object(path), Problem::ObjectStray),
                },
                "probe" if rest == "kept" => {}
                _ => findings.add(Subject::Object(path), Problem::ObjectStray),
            }
        }
        for file in vault.staged().await? {
            // What was written to within a day may be on its way still.
            let is_held = file.age < LEFT_AFTER;
            findings.add(Subject::Object(file.path), Problem::Leftover { bytes: file.bytes, is_held });
        }
        // A bucket may list an object more than once.
        listing.meta.sort_unstable();
        listing.meta.dedup();
        listing.headers.sort_unstable();
        listing.headers.dedup();
        Ok(listing)
    }

    /// Reads every header.
    pub(super) async fn check_headers(
        &self,
        vault: &Vault,
        findings: &mut Findings,
    ) -> Result<(), MaintError> {
        for number in &self.headers {
            let found = match header::read(vault.bucket(), *number).await {
                Ok(bytes) => match keys::describe(&bytes) {
                    Err(error) => Some(Problem::HeaderBroken { why: error.to_string() }),
                    Ok(header) if header.revision != *number => {
                        let why = format!("it is header {} under another's name", header.revision);
                        Some(Problem::HeaderBroken { why })
                    }
                    Ok(_) if !keys::is_genuine(&bytes, vault.ring()) => Some(Problem::HeaderForeign),
                    Ok(_) => None,
                },
                Err(VaultError::Damaged(damage)) => Some(Problem::HeaderBroken { why: damage.what }),
                // Headers are never deleted: the listing showed one that is not there.
                Err(VaultError::Missing(_)) => {
                    Some(Problem::HeaderBroken { why: "the bucket lists it and does not have it".to_owned() })
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(problem) = found {
                findings.add(Subject::Header(*number), problem);
            }
        }
        Ok(())
    }

    /// Bytes of all metadata objects.
    pub(super) fn meta_bytes(&self) -> u64 {
        self.meta.iter().fold(0, |sum, (_, _, size)| sum.saturating_add(*size))
    }

    /// Opens every byte of every metadata object, and tells how many that were so far. One that went away since it was
    /// listed was not needed, nor is one that is sealed with a key that was rotated away: the engine's opening has read
    /// what is.
    pub(super) async fn open_meta(
        &self,
        vault: &Vault,
        findings: &mut Findings,
        tell: impl Fn(u64),
    ) -> Result<(), MaintError> {
        let room = &Semaphore::new(peek::ROOM_BYTES);
        let mut opened = stream::iter(&self.meta)
            .map(|(path, name, size)| async move {
                // The bytes go at once: who is done waits here for those before.
                (path, name, size, peek::engine_object_within(vault, name, room).await.map(drop))
            })
            .buffered(OPENED_AT_ONCE);
        let mut done: u64 = 0;
        while let Some((path, name, size, result)) = opened.next().await {
            done = done.saturating_add(*size);
            tell(done);
            match result {
                // Or it is left from before the key was rotated, and waits to be collected.
                Ok(()) | Err(VaultError::Missing(_) | VaultError::OldKey { .. }) => {}
                Err(VaultError::Damaged(damage)) => {
                    let problem = Problem::MetaObject { name: name.clone(), why: damage.what };
                    findings.add(Subject::Object(path.clone()), problem);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// The segment at `d/<rest>`.
fn segment_id(rest: &str) -> Option<SegmentId> {
    let (directory, name) = rest.split_once('/')?;
    name.starts_with(directory).then_some(())?;
    (directory.len() == 2).then(|| SegmentId::parse(name))?
}
