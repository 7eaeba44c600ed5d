//! Finds out by trying what a store can do, how fast it is, and by whose clock it goes.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::{Trouble, classify};
use super::probe::{DIRECTORY, LISTED_MAX};
use super::{Bucket, StoreError};
use crate::base::{Entropy, OsEntropy, SegmentId};

/// Writers that want one name at the same time.
const RACERS: usize = 8;
/// Races that are run: a store that only mostly decides them is found out by one of several.
const RACES: usize = 5;
/// Times that each kind of request is timed.
const ROUNDS: usize = 5;
/// Objects under way at once while bandwidth is measured.
const STREAMS: u64 = 4;
/// Size of an object whose requests are timed.
const SMALL_BYTES: usize = 1024;

/// One thing that a volume needs, and whether the store does it.
#[derive(Debug)]
pub struct Ability {
    /// What it is, in a word or two.
    pub name: &'static str,
    /// What the store did.
    pub told: String,
    /// Why that is not enough.
    pub lacks: Option<StoreError>,
}

/// How long requests take: the medians of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Writing a small object.
    pub put: Duration,
    /// Reading it.
    pub get: Duration,
    /// Listing a small directory.
    pub list: Duration,
    /// Deleting the object.
    pub delete: Duration,
}

/// How fast contents move, several objects at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth {
    /// Bytes that were sent, and fetched again.
    pub bytes: u64,
    /// Time to send them.
    pub up: Duration,
    /// Time to fetch them.
    pub down: Duration,
}

/// What was found out.
#[derive(Debug)]
pub struct Survey {
    /// Everything that a volume needs.
    pub abilities: Vec<Ability>,
    /// Milliseconds that the store's clock is ahead of this machine's; it tells whole seconds only.
    pub clock_ahead_millis: Option<i64>,
    /// How long requests take.
    pub latency: Option<Latency>,
    /// How fast contents move, if that was asked for.
    pub bandwidth: Option<Bandwidth>,
}

impl Survey {
    /// The first thing that a volume needs and the store lacks.
    #[must_use]
    pub fn lacks(&self) -> Option<&StoreError> {
        self.abilities.iter().find_map(|ability| ability.lacks.as_ref())
    }
}

/// Tries things in a directory of its own, which [`Surveyor::clean`] empties.
pub struct Surveyor {
    bucket: Bucket,
    directory: Path,
    /// What may be there: a store whose listings lie must not be left with any of it.
    written: Mutex<BTreeSet<Path>>,
}

impl Surveyor {
    /// One that has not done anything yet.
    #[must_use]
    pub fn new(bucket: Bucket, entropy: &dyn Entropy) -> Self {
        let mut name = [0; 16];
        entropy.fill(&mut name);
        let directory = Path::from(DIRECTORY).join(format!("try-{}", SegmentId(name)));
        Self { bucket, directory, written: Mutex::default() }
    }

    /// Tries everything. `bandwidth_bytes` are sent and fetched to see how fast that goes; none if 0.
    ///
    /// # Errors
    /// The bucket cannot be reached, is not there, or refuses the first write: then nothing can be found out.
    pub async fn run(&self, bandwidth_bytes: u64) -> Result<Survey, StoreError> {
        super::probe::prove_class(&self.bucket, &OsEntropy).await?;
        let first = self.directory.clone().join("first");
        let started = SystemTime::now();
        match self.create(&first, "first").await {
            Err(error) if self.is_unfit(&error) => {
                let lacks = Some(self.ignores());
                let told = format!("no, the store refuses the condition: {}", super::error::detail(&error));
                let abilities = vec![Ability { name: WRITES_ONCE, told, lacks }];
                return Ok(Survey { abilities, clock_ahead_millis: None, latency: None, bandwidth: None });
            }
            written => written.map_err(|error| self.bucket.error(first.as_ref(), &error))?,
        }
        let ended = SystemTime::now();
        let abilities = vec![
            self.ability(WRITES_ONCE, self.writes_once(&first).await),
            self.ability("races", self.races().await),
            self.ability("ranges", self.ranges().await),
            self.ability("listing", self.listing().await),
            self.ability("deletes", self.deletes().await),
        ];
        let clock_ahead_millis = self.clock(&first, started, ended).await;
        let is_fit = abilities.iter().all(|ability| ability.lacks.is_none());
        let (mut latency, mut bandwidth) = (None, None);
        if is_fit {
            latency = Some(self.latency().await?);
            if bandwidth_bytes >= STREAMS {
                bandwidth = Some(self.bandwidth(bandwidth_bytes).await?);
            }
        }
        Ok(Survey { abilities, clock_ahead_millis, latency, bandwidth })
    }

    /// Deletes whatever was left, also by a run that was cut off.
    ///
    /// # Errors
    /// Why something may be left.
    pub async fn clean(&self) -> Result<(), StoreError> {
        let failed = |error: object_store::Error| self.bucket.error(self.directory.as_ref(), &error);
        let listing = self.bucket.prompt().list(Some(&self.directory)).take(LISTED_MAX);
        // What the store says is there is deleted, so it must be where nobody else has anything.
        let ours = listing.map_ok(|entry| entry.location).try_filter(|path| {
            futures::future::ready(path.prefix_matches(&self.directory) && *path != self.directory)
        });
        let mut left: BTreeSet<Path> = ours.try_collect().await.map_err(failed)?;
        left.append(&mut self.written.lock());
        let deleted = self.bucket.prompt().delete_stream(stream::iter(left).map(Ok).boxed());
        deleted.try_for_each(|_| async { Ok(()) }).await.map_err(failed)?;
        self.bucket.remove_empty(&self.directory).await
    }

    /// Where everything is tried.
    #[must_use]
    pub fn directory(&self) -> &str {
        self.directory.as_ref()
    }

    fn ability(&self, name: &'static str, tried: Tried) -> Ability {
        match tried {
            Ok(told) => Ability { name, told, lacks: None },
            Err(lacks) => Ability { name, told: format!("no: {lacks}"), lacks: Some(lacks) },
        }
    }

    async fn create(&self, path: &Path, text: impl Into<PutPayload>) -> Result<(), object_store::Error> {
        self.written.lock().insert(path.clone());
        let opts = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.bucket.prompt().put_opts(path, text.into(), opts).await.map(|_| ())
    }

    async fn put(&self, name: &str, text: impl Into<PutPayload>) -> Result<Path, StoreError> {
        let path = self.directory.clone().join(name);
        let written = self.create(&path, text).await;
        written.map_err(|error| self.bucket.error(path.as_ref(), &error))?;
        Ok(path)
    }

    async fn get(&self, path: &Path) -> Result<bytes::Bytes, StoreError> {
        let failed = |error| self.bucket.error(path.as_ref(), &error);
        self.bucket.prompt().get(path).await.map_err(failed)?.bytes().await.map_err(failed)
    }

    /// Whether the store says by `error` that it knows no conditions.
    fn is_unfit(&self, error: &object_store::Error) -> bool {
        classify(error) == Trouble::Final
    }

    fn ignores(&self) -> StoreError {
        StoreError::IgnoresPreconditions { bucket: self.bucket.display_url().to_owned() }
    }

    fn misbehaves(&self, what: impl Into<String>) -> StoreError {
        StoreError::Misbehaves { bucket: self.bucket.display_url().to_owned(), what: what.into() }
    }

    async fn writes_once(&self, first: &Path) -> Tried {
        match self.create(first, "second").await {
            Err(object_store::Error::AlreadyExists { .. }) => {}
            Ok(()) => return Err(self.ignores()),
            Err(error) => return Err(self.bucket.error(first.as_ref(), &error)),
        }
        if self.get(first).await? == "first" {
            Ok("yes: it refuses to write over an object".to_owned())
        } else {
            Err(self.misbehaves("it says that it has not written over an object, and has"))
        }
    }

    async fn races(&self) -> Tried {
        for race in 0..RACES {
            let path = self.directory.clone().join(format!("race-{race}"));
            let racer = |racer: usize| {
                let path = &path;
                async move { self.create(path, format!("racer {racer}")).await }
            };
            let mut winners = Vec::new();
            for (number, told) in
                futures::future::join_all((0..RACERS).map(racer)).await.into_iter().enumerate()
            {
                match told {
                    Ok(()) => winners.push(number),
                    Err(object_store::Error::AlreadyExists { .. }) => {}
                    Err(error) => return Err(self.bucket.error(path.as_ref(), &error)),
                }
            }
            let stored = self.get(&path).await?;
            if winners.len() != 1 || !winners.iter().any(|winner| stored == format!("racer {winner}")) {
                let what =
                    format!("of {RACERS} writers at once, {} were told that they had won", winners.len());
                return Err(self.misbehaves(what));
            }
        }
        Ok(format!("yes: of {RACERS} writers at once one wins ({RACES} times of {RACES})"))
    }

    async fn ranges(&self) -> Tried {
        let bytes: Vec<u8> = (0..SMALL_BYTES).map(|at| (at / 3) as u8).collect();
        let path = self.put("ranges", bytes.clone()).await?;
        let end = SMALL_BYTES as u64;
        for range in [0..10, 500..600, end - 7..end] {
            let part = self.bucket.prompt().get_range(&path, range.clone()).await;
            let part = part.map_err(|error| self.bucket.error(path.as_ref(), &error))?;
            let wanted = bytes.get(range.start as usize..range.end as usize);
            if wanted != Some(&part[..]) {
                return Err(self.misbehaves("a part of an object reads as other bytes than were written"));
            }
        }
        Ok("yes".to_owned())
    }

    /// The names and sizes below a directory of the survey's own.
    async fn listed(&self, below: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let directory = self.directory.clone().join(below);
        let listing = self.bucket.prompt().list(Some(&directory)).take(LISTED_MAX);
        let entries =
            listing.map_ok(|entry| (entry.location.filename().unwrap_or_default().to_owned(), entry.size));
        let listed: Result<Vec<_>, _> = entries.try_collect().await;
        let mut listed = listed.map_err(|error| self.bucket.error(directory.as_ref(), &error))?;
        listed.sort();
        Ok(listed)
    }

    async fn listing(&self) -> Tried {
        let all = [("l", "1"), ("l", "10"), ("l", "2"), ("long", "1")];
        for (directory, name) in all {
            let path = self.directory.clone().join(directory).join(name);
            let written = self.create(&path, name).await;
            written.map_err(|error| self.bucket.error(path.as_ref(), &error))?;
        }
        let wanted = [("1", 1), ("10", 2), ("2", 1)].map(|(name, size)| (name.to_owned(), size));
        if self.listed("l").await? != wanted {
            return Err(self.misbehaves("a listing does not show what was just written, or shows it twice"));
        }
        let gone = self.directory.clone().join("l").join("10");
        self.bucket.prompt().delete(&gone).await.map_err(|error| self.bucket.error(gone.as_ref(), &error))?;
        if self.listed("l").await?.iter().any(|(name, _)| name == "10") {
            return Err(self.misbehaves("a listing still shows what was just deleted"));
        }
        Ok("yes: what was written is listed at once, what was deleted is not".to_owned())
    }

    async fn deletes(&self) -> Tried {
        let path = self.put("deleted", "x").await?;
        self.bucket.prompt().delete(&path).await.map_err(|error| self.bucket.error(path.as_ref(), &error))?;
        match self.get(&path).await {
            Err(StoreError::NotFound { .. }) => {}
            Ok(_) => return Err(self.misbehaves("a deleted object is still there")),
            Err(error) => return Err(error),
        }
        self.put("deleted", "y").await?;
        Ok("yes".to_owned())
    }

    /// Milliseconds that the store's clock is ahead, by the time it gives the object that was written in between.
    async fn clock(&self, path: &Path, started: SystemTime, ended: SystemTime) -> Option<i64> {
        let modified = self.bucket.prompt().head(path).await.ok()?.last_modified;
        let middle = started + ended.duration_since(started).ok()? / 2;
        Some((modified - chrono::DateTime::<chrono::Utc>::from(middle)).num_milliseconds())
    }

    async fn latency(&self) -> Result<Latency, StoreError> {
        let mut times: [Vec<Duration>; 4] = Default::default();
        let [puts, gets, lists, deletes] = &mut times;
        for round in 0..ROUNDS {
            let bytes: Vec<u8> = vec![round as u8; SMALL_BYTES];
            let started = Instant::now();
            let path = self.put(&format!("timed-{round}"), bytes).await?;
            puts.push(started.elapsed());
            let started = Instant::now();
            self.get(&path).await?;
            gets.push(started.elapsed());
            let started = Instant::now();
            self.listed("l").await?;
            lists.push(started.elapsed());
            let started = Instant::now();
            let deleted = self.bucket.prompt().delete(&path).await;
            deleted.map_err(|error| self.bucket.error(path.as_ref(), &error))?;
            deletes.push(started.elapsed());
        }
        let [put, get, list, delete] = times.map(median);
        Ok(Latency { put, get, list, delete })
    }

    async fn bandwidth(&self, bytes: u64) -> Result<Bandwidth, StoreError> {
        let each = usize::try_from(bytes / STREAMS).unwrap_or(usize::MAX);
        // Nothing that a store could make smaller.
        let mut noise = vec![0; each];
        OsEntropy.fill(&mut noise);
        let noise = bytes::Bytes::from(noise);
        let started = Instant::now();
        let sends = (0..STREAMS).map(|number| self.put_shared(number, noise.clone()));
        let paths = futures::future::try_join_all(sends).await?;
        let up = started.elapsed();
        let started = Instant::now();
        let fetched = futures::future::try_join_all(paths.iter().map(|path| self.get(path))).await?;
        let down = started.elapsed();
        if fetched.iter().any(|bytes| *bytes != noise) {
            return Err(self.misbehaves("an object reads as other bytes than were written"));
        }
        Ok(Bandwidth { bytes: each as u64 * STREAMS, up, down })
    }

    async fn put_shared(&self, number: u64, bytes: bytes::Bytes) -> Result<Path, StoreError> {
        self.put(&format!("stream-{number}"), PutPayload::from_bytes(bytes)).await
    }
}

/// What the store did, or why that is not enough.
type Tried = Result<String, StoreError>;

const WRITES_ONCE: &str = "writes once";

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::fault::scripted::FaultyStore;
    use crate::store::fault::{Fault, FaultPlan, FaultStore, Rule};

    async fn survey(bucket: &Bucket) -> Result<Survey, StoreError> {
        let surveyor = Surveyor::new(bucket.clone(), &OsEntropy);
        let found = surveyor.run(4096).await;
        surveyor.clean().await.unwrap();
        assert_eq!(bucket.objects.list(None).count().await, 0, "something is left");
        found
    }

    fn lacking(survey: &Survey) -> Vec<&'static str> {
        survey
            .abilities
            .iter()
            .filter(|ability| ability.lacks.is_some())
            .map(|ability| ability.name)
            .collect()
    }

    #[tokio::test]
    async fn a_good_store_can_do_everything_and_keeps_nothing() {
        let found = survey(&Bucket::memory()).await.unwrap();
        assert_eq!(lacking(&found), Vec::<&str>::new());
        assert!(found.lacks().is_none() && found.latency.is_some());
        assert_eq!(found.bandwidth.unwrap().bytes, 4096);
        assert!(found.clock_ahead_millis.unwrap().abs() < 60_000, "{found:?}");
    }

    #[tokio::test]
    async fn a_store_that_overwrites_is_told() {
        let store = Arc::new(FaultyStore { overwrites: true, ..FaultyStore::default() });
        let found = survey(&Bucket::from_store(store)).await.unwrap();
        assert_eq!(lacking(&found), ["writes once", "races"]);
        assert!(matches!(found.lacks(), Some(StoreError::IgnoresPreconditions { .. })), "{found:?}");
        assert!(
            found.latency.is_none() && found.bandwidth.is_none(),
            "nothing is measured of a store of no use"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_whose_listings_are_late_is_told() {
        let mut rule = Rule::new(Fault::StaleList, 1.0);
        rule.delay = Duration::from_secs(3600);
        let plan = FaultPlan { rules: vec![rule], ..FaultPlan::default() };
        let inner = Arc::new(object_store::memory::InMemory::new());
        let clock = Arc::new(crate::base::SystemClock::default());
        let faulty = FaultStore::new(inner, plan, clock);
        let bucket = Bucket::from_store(Arc::new(faulty.clone()));
        let surveyor = Surveyor::new(bucket, &OsEntropy);
        let found = surveyor.run(0).await.unwrap();
        assert_eq!(lacking(&found), ["listing"]);
        assert!(matches!(found.lacks(), Some(StoreError::Misbehaves { .. })), "{found:?}");
    }
}
