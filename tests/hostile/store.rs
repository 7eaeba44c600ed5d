//! A store in the hands of an adversary: it keeps every version of every object, and lies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use parking_lot::Mutex;

/// The bytes of all objects, by name.
pub type Objects = BTreeMap<String, Bytes>;

/// What the store says that is not so, of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It is not in listings, not there when its head is asked for, not there when it is read.
    Hidden { list: bool, head: bool, get: bool },
    /// The bytes are those of a range that begins so much later or earlier; the answer says the one asked for.
    ShiftedBytes(i64),
    /// The answer says another range than was asked for.
    OtherRange,
    /// The body is so much shorter or longer than announced.
    BodyLength(i64),
    /// The length of the whole object is said to be so much more or less.
    Length(i64),
    /// It is listed so many times.
    Listed(usize),
    /// Its length in listings and heads is without measure.
    Endless,
    /// It was stored so many seconds after 1970.
    Date(i64),
    /// It has a version, an entity tag that is never the same, and attributes that nobody sent.
    Attributes,
}

#[derive(Default)]
struct State {
    objects: Objects,
    /// Every version that was ever stored, in order.
    ever: Vec<(String, Bytes)>,
    lies: BTreeMap<String, Lie>,
    /// What is said of every other object, those that are stored later among them.
    lie_of_all: Option<Lie>,
    /// Listings of this directory have no end, and go on with this name and a number, or without one.
    without_end: Option<(String, Option<String>)>,
    /// Tags that were made up.
    tag_count: u64,
    /// Objects that are there and in no listing.
    unlisted: BTreeSet<String>,
    /// Objects that are in listings with these lengths, and not there.
    ghosts: Vec<(String, u64)>,
    trace: Vec<String>,
    /// Counted when a body is taken, by what was announced.
    asked_bytes: Arc<AtomicU64>,
    /// Seconds since 1970, and when objects were stored; the others were at the beginning.
    now_secs: i64,
    stored_at: BTreeMap<String, i64>,
    /// The objects before each change, and what it was, if that is asked for.
    film: Option<Vec<(String, Objects)>>,
}

/// The store. Clones of its objects are cheap.
#[derive(Default)]
pub struct Hostile(Mutex<State>);

impl Hostile {
    pub fn of(objects: Objects) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { objects, ..State::default() })))
    }

    pub fn lying(objects: Objects, about: &str, lie: Lie) -> Arc<Self> {
        let lies = BTreeMap::from([(about.to_owned(), lie)]);
        Arc::new(Self(Mutex::new(State { objects, lies, ..State::default() })))
    }

    /// A store that says `lie` of everything that it has and will have.
    pub fn lying_of_all(objects: Objects, lie: Lie) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { objects, lie_of_all: Some(lie), ..State::default() })))
    }

    /// Says `lie` of the object from now on.
    pub fn lie(&self, about: &str, lie: Lie) {
        self.0.lock().lies.insert(about.to_owned(), lie);
    }

    /// A store whose listings of `directory` go on for ever, with an object that is listed again and again or with
    /// objects of other names each.
    pub fn without_end(objects: Objects, directory: &str, repeated: Option<&str>) -> Arc<Self> {
        let without_end = Some((directory.to_owned(), repeated.map(str::to_owned)));
        Arc::new(Self(Mutex::new(State { objects, without_end, ..State::default() })))
    }

    /// A store that has `objects`, lists those that were there `then`, and what is stored from now on.
    pub fn listing(objects: Objects, then: &Objects) -> Arc<Self> {
        let unlisted = objects.keys().filter(|name| !then.contains_key(*name)).cloned().collect();
        let gone = then.iter().filter(|(name, _)| !objects.contains_key(*name));
        let ghosts = gone.map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect();
        Arc::new(Self(Mutex::new(State { objects, unlisted, ghosts, ..State::default() })))
    }

    pub fn objects(&self) -> Objects {
        self.0.lock().objects.clone()
    }

    /// What is stored from now on is stored then.
    pub fn set_time(&self, secs: i64) {
        self.0.lock().now_secs = secs;
    }

    /// Every version of every object that was ever stored.
    pub fn ever(&self) -> Vec<(String, Bytes)> {
        self.0.lock().ever.clone()
    }

    /// Bytes that were asked for.
    pub fn asked_bytes(&self) -> u64 {
        self.0.lock().asked_bytes.load(Ordering::Relaxed)
    }

    /// Has the objects before each change kept from now on.
    pub fn film(&self) {
        self.0.lock().film = Some(Vec::new());
    }

    /// The objects before each change since then, and what it was.
    pub fn take_film(&self) -> Vec<(String, Objects)> {
        self.0.lock().film.take().unwrap_or_default()
    }

    /// Puts an object where it likes.
    pub fn plant(&self, name: &str, bytes: Bytes) {
        self.0.lock().objects.insert(name.to_owned(), bytes);
    }

    /// Every request since the last time, in order.
    pub fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().trace)
    }
}

impl fmt::Debug for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hostile")
    }
}

impl fmt::Display for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hostile:")
    }
}

const LATENCY: Duration = Duration::from_millis(2);
/// Requests of one case, beyond which somebody asks without end.
const REQUESTS_MAX: usize = 20_000;
/// Entries of one listing, beyond which somebody listens without end.
const LISTED_MAX: usize = 3_000_000;

impl State {
    fn shoot(&mut self, change: impl FnOnce() -> String) {
        if let Some(film) = &mut self.film {
            film.push((change(), self.objects.clone()));
        }
    }

    fn note(&mut self, request: String) {
        self.trace.push(request);
        if self.trace.len() > REQUESTS_MAX {
            // Whoever asks may be in a task whose panic nobody sees.
            eprintln!("requests without end: {:#?}", &self.trace[REQUESTS_MAX - 10..]);
            std::process::abort();
        }
    }

    fn lie_of(&self, name: &str) -> Option<Lie> {
        self.lies.get(name).copied().or(self.lie_of_all)
    }

    fn meta(&mut self, name: &str, size: u64) -> ObjectMeta {
        let lie = self.lie_of(name);
        let secs = match lie {
            Some(Lie::Date(secs)) => secs,
            _ => self.stored_at.get(name).copied().unwrap_or(crate::world::START_SECS),
        };
        let last_modified: DateTime<Utc> = DateTime::from_timestamp(secs, 0).unwrap();
        let [e_tag, version] = self.tags(lie);
        ObjectMeta { location: Path::from(name), last_modified, size, e_tag, version }
    }

    /// Entity tag and version.
    fn tags(&mut self, lie: Option<Lie>) -> [Option<String>; 2] {
        if lie != Some(Lie::Attributes) {
            return [None, None];
        }
        self.tag_count += 1;
        ["tag", "version"].map(|what| Some(format!("\"a {what} {}\"", self.tag_count)))
    }
}

/// What else is told of an object.
fn attributes(lie: Option<Lie>) -> Attributes {
    let told = [
        (Attribute::ContentType, "application/json"),
        (Attribute::ContentEncoding, "gzip"),
        (Attribute::ContentDisposition, "attachment; filename=\"../../etc/passwd\""),
        (Attribute::CacheControl, "max-age=0"),
        (Attribute::Metadata("mode".into()), "0777"),
        (Attribute::Metadata("uid".into()), "1000"),
    ];
    let is_told = lie == Some(Lie::Attributes);
    told.into_iter().filter(|_| is_told).collect()
}

fn moved(number: u64, by: i64) -> u64 {
    number.saturating_add_signed(by)
}

fn not_found(path: &Path) -> Error {
    Error::NotFound { path: path.to_string(), source: "so the store says".into() }
}

/// The bytes of a range, with noise where the object has none.
fn cut(bytes: &Bytes, range: Range<u64>) -> Bytes {
    let byte = |at: u64| usize::try_from(at).ok().and_then(|at| bytes.get(at).copied()).unwrap_or(0x5A);
    range.map(byte).collect()
}

#[async_trait]
impl ObjectStore for Hostile {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let mut state = self.0.lock();
        let name = path.to_string();
        let bytes: Bytes = payload.into();
        state.note(format!("PUT {name} {}", bytes.len()));
        if opts.mode == PutMode::Create && state.objects.contains_key(&name) {
            return Err(Error::AlreadyExists { path: name, source: "it is there".into() });
        }
        state.shoot(|| format!("PUT {name}"));
        state.ever.push((name.clone(), bytes.clone()));
        let now_secs = state.now_secs;
        state.stored_at.insert(name.clone(), now_secs);
        let lie = state.lie_of(&name);
        let [e_tag, version] = state.tags(lie);
        state.objects.insert(name, bytes);
        Ok(PutResult { e_tag, version, extensions: Default::default() })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotSupported { source: "multipart uploads".into() })
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        // No answer comes at once, so that who asks without end meets a deadline.
        tokio::time::sleep(LATENCY).await;
        let mut state = self.0.lock();
        let name = path.to_string();
        let verb = if options.head { "HEAD" } else { "GET" };
        state.note(format!("{verb} {name} {:?}", options.range));
        let lie = state.lie_of(&name);
        if let Some(Lie::Hidden { head, get, .. }) = lie
            && (if options.head { head } else { get })
        {
            return Err(not_found(path));
        }
        let bytes = state.objects.get(&name).cloned().ok_or_else(|| not_found(path))?;
        let said = match lie {
            Some(Lie::Length(by)) => moved(bytes.len() as u64, by),
            Some(Lie::Endless) => 1 << 50,
            _ => bytes.len() as u64,
        };
        let range = match &options.range {
            None => 0..said,
            Some(range) => range
                .as_range(said)
                .map_err(|error| Error::Generic { store: "hostile", source: Box::new(error) })?,
        };
        if options.head {
            let payload = GetResultPayload::Stream(stream::empty().boxed());
            let (attributes, extensions) = (attributes(lie), Default::default());
            let meta = state.meta(&name, said);
            return Ok(GetResult { payload, meta, range: 0..said, attributes, extensions });
        }
        let shown = range.start..range.end.min(range.start + (8 << 20));
        let body = match lie {
            Some(Lie::ShiftedBytes(by)) => cut(&bytes, moved(shown.start, by)..moved(shown.end, by)),
            Some(Lie::BodyLength(by)) => cut(&bytes, shown.start..moved(shown.end, by).max(shown.start)),
            _ => cut(&bytes, shown),
        };
        let range = match lie {
            Some(Lie::OtherRange) => range.start + 1..range.end + 1,
            _ => range,
        };
        let (asked, announced) = (Arc::clone(&state.asked_bytes), range.end - range.start);
        let taken = async move {
            asked.fetch_add(announced, Ordering::Relaxed);
            Ok(body)
        };
        let payload = GetResultPayload::Stream(stream::once(taken).boxed());
        let (attributes, extensions) = (attributes(lie), Default::default());
        Ok(GetResult { payload, meta: state.meta(&name, said), range, attributes, extensions })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // Whoever deletes waits for the answers; the paths of one request are there at once.
        let paths: Vec<_> = futures::executor::block_on(paths.collect());
        let mut state = self.0.lock();
        for path in paths.iter().flatten() {
            state.note(format!("DELETE {path}"));
            state.shoot(|| format!("DELETE {path}"));
            state.objects.remove(path.as_ref());
        }
        stream::iter(paths).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let mut state = self.0.lock();
        let prefix = prefix.map(Path::to_string).unwrap_or_default();
        state.note(format!("LIST {prefix}"));
        let mut listed = Vec::new();
        let is_below = |name: &str| {
            prefix.is_empty() || name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('/'))
        };
        let mut there = state.ghosts.clone();
        let here = state.objects.iter().filter(|(name, _)| !state.unlisted.contains(*name));
        there.extend(here.map(|(name, bytes)| (name.clone(), bytes.len() as u64)));
        for (name, len) in there.iter().filter(|(name, _)| is_below(name)) {
            let (times, len) = match state.lie_of(name) {
                Some(Lie::Hidden { list: true, .. }) => (0, *len),
                Some(Lie::Listed(times)) => (times, *len),
                Some(Lie::Length(by)) => (1, moved(*len, by)),
                Some(Lie::Endless) => (1, 1 << 50),
                _ => (1, *len),
            };
            listed.extend((0..times).map(|_| Ok(state.meta(name, len))));
        }
        let forever = state.without_end.clone().filter(|(directory, _)| is_below(&format!("{directory}/x")));
        let Some((directory, repeated)) = forever else { return stream::iter(listed).boxed() };
        let sample = state.meta("of no importance", 1000);
        let more = (0..).map(move |number| {
            if number > LISTED_MAX {
                eprintln!("a listing of {directory} is listened to without end");
                std::process::abort();
            }
            let name = repeated.clone().unwrap_or_else(|| format!("{directory}/and-{number}"));
            Ok(ObjectMeta { location: Path::from(name), ..sample.clone() })
        });
        stream::iter(listed).chain(stream::iter(more)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let objects: Vec<_> = self.list(prefix).try_collect().await?;
        Ok(ListResult { common_prefixes: Vec::new(), objects, extensions: Default::default() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotSupported { source: "copies".into() })
    }
}
