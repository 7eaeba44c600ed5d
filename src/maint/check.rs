//! Checks a volume: one look at everything, streamed, and a report.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{StreamExt, stream};

use super::MaintError;
use super::blocks::Lost;
use super::finding::{Finding, Findings, Problem, Severity, Subject};
use super::nodes::Nodes;
use super::objects::Listing;
use super::overlap::Overlap;
use super::read::DataReader;
use super::rows::Rows;
use super::segments::Segments;
use crate::base::{Ino, SegmentId};
use crate::crypto::KeyRing;
use crate::data::DataError;
use crate::data::segment::{read_footer, read_seal};
use crate::meta::engine::Engine;
use crate::meta::{Key, Segment, Superblock};
use crate::vault::Vault;
use crate::volume::Examined;

/// Segments whose heads and footers are fetched at once.
const FRAMES_AT_ONCE: usize = 16;
/// How often a check begins anew because newer records came in between.
const TRIES_MAX: usize = 5;

/// How a volume is checked.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// Fetch and open every block that a file refers to, every footer, every metadata object.
    pub read_data: bool,
    /// Findings that are kept; more are only counted.
    pub findings_max: usize,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { read_data: false, findings_max: 100_000 }
    }
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This is looked at from now on.
    Part(Part),
    /// A look begins, perhaps anew. As far as the volume tells, so many inodes and names are to be looked at, and so many
    /// sealed bytes to be opened.
    Begun {
        /// Inodes and names.
        records: u64,
        /// Sealed bytes of contents and of metadata objects.
        bytes: u64,
    },
    /// So many inodes and names have been looked at.
    Records(u64),
    /// So many sealed bytes have been opened.
    Bytes(u64),
}

/// What a check looks at, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The superblock and the chain of commits.
    History,
    /// Which segments and other objects there are.
    Objects,
    /// Inodes, without their contents.
    Inodes,
    /// Inodes, with all of their contents.
    Contents,
    /// Names in directories.
    Names,
    /// What refers to segments, and whether those that are missing are so still.
    Segments,
    /// Headers with their keys.
    Headers,
    /// Heads and footers of segments.
    Frames,
    /// The objects that records are in.
    Metadata,
}

impl Part {
    /// In words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Objects => "objects",
            Self::Inodes => "inodes",
            Self::Contents => "contents",
            Self::Names => "names",
            Self::Segments => "segments",
            Self::Headers => "headers",
            Self::Frames => "heads of segments",
            Self::Metadata => "metadata",
        }
    }
}

/// Told how far a check is.
pub type Watch<'a> = &'a (dyn Fn(Step) + Send + Sync);

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Inodes.
    pub files: u64,
    /// Plaintext bytes stored.
    pub stored_bytes: u64,
    /// Objects in the bucket.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Sealed bytes of contents that were fetched and opened.
    pub read_bytes: u64,
}

/// What a check has found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The commit that was checked; `None` if the volume does not tell.
    pub commit: Option<u64>,
    /// Whether someone has the volume mounted for writing, or had when it crashed.
    pub is_held: bool,
    /// Findings, in the order of their subjects.
    pub findings: Vec<Finding>,
    /// How many of each severity, in the order of [`Severity::ALL`].
    pub counts: [u64; 4],
    /// What there is.
    pub totals: Totals,
}

impl Report {
    /// The worst that was found; `None` if nothing was.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        let counted = Severity::ALL.into_iter().zip(self.counts);
        counted.filter(|(_, count)| *count > 0).map(|(severity, _)| severity).max()
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.worst().is_none_or(|worst| worst == Severity::Note)
    }

    /// Whether the bucket offers an older history than this machine has seen.
    #[must_use]
    pub fn is_rollback(&self) -> bool {
        self.findings.iter().any(|finding| matches!(finding.problem, Problem::RolledBack { .. }))
    }

    /// Whether the bucket offers another history than this machine has seen.
    #[must_use]
    pub fn is_fork(&self) -> bool {
        self.findings.iter().any(|finding| finding.problem == Problem::Forked)
    }
}

/// Where a survey looks.
pub(super) struct Source {
    pub(super) engine: Engine,
    pub(super) vault: Vault,
    pub(super) pin: Option<(u64, [u8; 32])>,
    /// The commit up to which an admin has accepted the history as it is.
    pub(super) accepted: Option<u64>,
    /// Nobody else has the volume, whatever its superblock says.
    pub(super) is_alone: bool,
}

impl Source {
    pub(super) fn ring(&self) -> &Arc<KeyRing> {
        self.vault.ring()
    }
}

/// Everything that one look at a volume gathers.
pub(super) struct Survey<'a> {
    pub(super) source: &'a Source,
    pub(super) findings: Findings,
    pub(super) superblock: Option<Superblock>,
    /// The highest commit that has a record.
    pub(super) newest_commit: u64,
    pub(super) nodes: Nodes,
    pub(super) segments: Segments,
    pub(super) lost: Lost,
    pub(super) overlap: Overlap,
    pub(super) highest_ino: Ino,
    pub(super) totals: Totals,
    watch: Watch<'a>,
    records: u64,
}

/// Checks an examined volume. Reads only.
///
/// # Errors
/// The bucket does not answer or refuses; what is wrong with the volume is no error.
pub async fn check(
    volume: &Examined,
    options: &CheckOptions,
    watch: Watch<'_>,
) -> Result<Report, MaintError> {
    let engine = match &volume.engine {
        Ok(engine) => engine.clone(),
        Err(error) => return Box::pin(without_records(volume, options, watch, error.to_string())).await,
    };
    let (vault, pin, accepted) = (volume.vault.clone(), volume.pin, volume.accepted);
    let source = Source { engine, vault, pin, accepted, is_alone: false };
    for _ in 0..TRIES_MAX {
        match Box::pin(one_look(&source, volume, options, watch)).await {
            Ok(Some(report)) => return Ok(report),
            Ok(None) => {}
            Err(MaintError::Meta(error)) if error.is_damage() => {
                return Box::pin(without_records(volume, options, watch, error.to_string())).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(MaintError::Moving)
}

/// One look; `None` if the records went on to a newer commit in between.
async fn one_look(
    source: &Source,
    volume: &Examined,
    options: &CheckOptions,
    watch: Watch<'_>,
) -> Result<Option<Report>, MaintError> {
    let before = super_bytes(&source.engine).await?;
    let newest = async || Ok(Some(volume.latest().await?));
    let found = survey(source, options, watch, newest).await?;
    let report = found.into_report().await?;
    Ok((super_bytes(&source.engine).await? == before).then_some(report))
}

async fn super_bytes(engine: &Engine) -> Result<Option<bytes::Bytes>, MaintError> {
    Ok(engine.get(&Key::Super.encode()).await?)
}

/// What can be said where the records cannot be read: which objects are at fault.
async fn without_records(
    volume: &Examined,
    options: &CheckOptions,
    watch: Watch<'_>,
    why: String,
) -> Result<Report, MaintError> {
    let mut findings = Findings::new(options.findings_max);
    findings.add(Subject::Volume, Problem::RecordsUnreadable { why });
    watch(Step::Part(Part::Objects));
    let listing = Listing::take(&volume.vault, &mut Segments::default(), &mut findings).await?;
    watch(Step::Begun { records: 0, bytes: listing.meta_bytes() });
    watch(Step::Part(Part::Headers));
    listing.check_headers(&volume.vault, &mut findings).await?;
    watch(Step::Part(Part::Metadata));
    listing.open_meta(&volume.vault, &mut findings, |bytes| watch(Step::Bytes(bytes))).await?;
    let totals = Totals { objects: listing.objects, object_bytes: listing.bytes, ..Totals::default() };
    let (findings, counts) = (findings.kept, findings.counts);
    Ok(Report { commit: None, is_held: false, findings, counts, totals })
}

/// Looks at everything. `newest` opens the records as they are by now, to tell what is missing from what
/// has been let go since; it gives `None` for the one writer, beside whom nothing happens.
pub(super) async fn survey<'a>(
    source: &'a Source,
    options: &CheckOptions,
    watch: Watch<'a>,
    newest: impl AsyncFn() -> Result<Option<Engine>, MaintError>,
) -> Result<Survey<'a>, MaintError> {
    let mut survey = Survey {
        source,
        findings: Findings::new(options.findings_max),
        superblock: None,
        newest_commit: 0,
        nodes: Nodes::default(),
        segments: Segments::default(),
        lost: Lost::default(),
        overlap: Overlap::default(),
        highest_ino: Ino::ROOT,
        totals: Totals::default(),
        watch,
        records: 0,
    };
    survey.look(options, newest).await?;
    Ok(survey)
}

impl Survey<'_> {
    async fn look(
        &mut self,
        options: &CheckOptions,
        newest: impl AsyncFn() -> Result<Option<Engine>, MaintError>,
    ) -> Result<(), MaintError> {
        let vault = self.source.vault.clone();
        self.begin(Part::History);
        self.history().await?;
        self.begin(Part::Objects);
        self.segments.load(&self.source.engine, &vault, &mut self.findings).await?;
        let listing = Listing::take(&vault, &mut self.segments, &mut self.findings).await?;
        (self.totals.objects, self.totals.object_bytes) = (listing.objects, listing.bytes);
        self.tell_what_is_to_be_done(options, &listing);
        self.segments.ask(&vault).await?;
        if self.segments.absent().next().is_some()
            && let Some(newest) = newest().await?
        {
            self.segments.forgive_overtaken(&newest).await?;
        }
        let mut reader = options.read_data.then(|| DataReader::new(vault.clone()));
        self.begin(if reader.is_some() { Part::Contents } else { Part::Inodes });
        self.inodes(reader.as_mut()).await?;
        self.begin(Part::Names);
        self.entries().await?;
        (self.watch)(Step::Records(self.records));
        self.begin(Part::Segments);
        self.look_at_overlaps().await?;
        self.look_for_strays().await?;
        // Once more, for segments that only files know of.
        self.segments.ask(&vault).await?;
        if self.segments.unknown().next().is_some()
            && let Some(newest) = newest().await?
        {
            self.segments.welcome_late(&newest).await?;
        }
        let (commit, is_held) = self.held();
        self.segments.judge(commit, is_held, &mut self.findings);
        self.judge_totals();
        self.begin(Part::Headers);
        listing.check_headers(&vault, &mut self.findings).await?;
        if let Some(reader) = reader {
            Box::pin(self.finish_reading(reader, &listing, newest)).await?;
        }
        std::mem::take(&mut self.lost).tell(&mut self.findings);
        Ok(())
    }

    // Walks are made in functions of their own, so that whoever goes on with one does not carry the states of all on its
    // stack.

    fn history(&mut self) -> BoxFuture<'_, Result<(), MaintError>> {
        Box::pin(self.look_at_history())
    }

    fn inodes<'s>(&'s mut self, reader: Option<&'s mut DataReader>) -> BoxFuture<'s, Result<(), MaintError>> {
        Box::pin(self.look_at_inodes(reader))
    }

    fn entries(&mut self) -> BoxFuture<'_, Result<(), MaintError>> {
        Box::pin(self.look_at_entries())
    }

    fn begin(&self, part: Part) {
        (self.watch)(Step::Part(part));
    }

    /// Tells how much there is to look at and to open.
    fn tell_what_is_to_be_done(&self, options: &CheckOptions, listing: &Listing) {
        let inodes = self.superblock.as_ref().map_or(0, |superblock| superblock.files);
        // Each but the root has a name, and some have several.
        let records = inodes.saturating_mul(2).saturating_sub(1);
        let live = self.segments.iter().filter_map(|(_, known)| Some(known.record?.live));
        let bytes = match options.read_data {
            true => live.fold(listing.meta_bytes(), u64::saturating_add),
            false => 0,
        };
        (self.watch)(Step::Begun { records, bytes });
    }

    /// The commit that is looked at, and whether somebody holds the volume.
    fn held(&self) -> (u64, bool) {
        let superblock = self.superblock.as_ref();
        let commit = superblock.map_or(self.newest_commit, |superblock| superblock.commit);
        let is_held = superblock.is_some_and(|superblock| superblock.holder.is_some());
        (commit, is_held && !self.source.is_alone)
    }

    async fn finish_reading(
        &mut self,
        reader: DataReader,
        listing: &Listing,
        newest: impl AsyncFn() -> Result<Option<Engine>, MaintError>,
    ) -> Result<(), MaintError> {
        self.begin(Part::Contents);
        let watch = self.watch;
        let (mut lost, bytes, opened) = reader.finish(|opened| watch(Step::Bytes(opened))).await?;
        self.totals.read_bytes = bytes;
        self.tell_bytes(opened);
        if lost.len() > 0
            && let Some(newest) = newest().await?
        {
            let mut gone = Vec::new();
            for id in lost.segments().collect::<Vec<SegmentId>>() {
                if newest.get(&Key::Segment(id).encode()).await?.is_none() {
                    gone.push(id);
                }
            }
            lost.retain(|id| !gone.contains(&id));
        }
        lost.tell(&mut self.findings);
        self.begin(Part::Frames);
        self.look_at_frames().await?;
        self.begin(Part::Metadata);
        let vault = &self.source.vault;
        listing.open_meta(vault, &mut self.findings, |more| watch(Step::Bytes(opened + more))).await
    }

    /// Heads and footers of all segments: what the cleaner and a salvage go by.
    async fn look_at_frames(&mut self) -> Result<(), MaintError> {
        let whole = self.segments.iter().filter_map(|(id, known)| {
            let record = known.record.filter(|_| known.is_own_seal && known.object.is_some())?;
            Some((id, record))
        });
        let whole: Vec<_> = whole.collect();
        let vault = &self.source.vault;
        let mut looked = stream::iter(whole)
            .map(|(id, record)| async move { (id, frame_of(vault, id, &record).await) })
            .buffer_unordered(FRAMES_AT_ONCE);
        while let Some((id, found)) = looked.next().await {
            for problem in found? {
                self.findings.add(Subject::Segment(id), problem);
            }
        }
        Ok(())
    }

    async fn look_for_strays(&mut self) -> Result<(), MaintError> {
        for mut rows in Rows::strays(&self.source.engine) {
            while let Some(row) = rows.next().await? {
                // A kind of record that the format has and this walk does not know is not for a repair to drop.
                if row.key.is_none() {
                    self.findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordStray);
                }
            }
        }
        Ok(())
    }

    pub(super) fn saw_records(&mut self, count: u64) {
        self.records += count;
        if self.records.is_multiple_of(1024) {
            (self.watch)(Step::Records(self.records));
        }
    }

    pub(super) fn tell_bytes(&self, bytes: u64) {
        (self.watch)(Step::Bytes(bytes));
    }

    pub(super) async fn into_report(mut self) -> Result<Report, MaintError> {
        self.find_paths().await?;
        let superblock = self.superblock.as_ref();
        let (_, is_held) = self.held();
        Ok(Report {
            commit: superblock.map(|superblock| superblock.commit),
            is_held,
            findings: self.findings.kept,
            counts: self.findings.counts,
            totals: self.totals,
        })
    }
}

/// What is wrong with a segment's head and footer. One that went away meanwhile is none of this check's.
async fn frame_of(vault: &Vault, id: SegmentId, record: &Segment) -> Result<Vec<Problem>, MaintError> {
    let mut found = Vec::new();
    match read_seal(vault, id).await {
        Ok(seal) if seal == record.seal => {}
        Err(DataError::Missing { .. }) => return Ok(found),
        Ok(_) | Err(DataError::Damaged { .. }) => found.push(Problem::SegmentHead),
        Err(error) => return Err(error.into()),
    }
    match read_footer(vault, id, &record.seal, u64::from(record.len)).await {
        Ok(_) | Err(DataError::Missing { .. }) => {}
        Err(DataError::Damaged { .. }) => found.push(Problem::SegmentFooter),
        Err(error) => return Err(error.into()),
    }
    Ok(found)
}
