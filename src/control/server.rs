//! The mount's end of the socket: answers its owner and root, one request per connection.

use std::fs::{Permissions, set_permissions};
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

use super::protocol::{Failure, FailureKind, Progress, REQUEST_BYTES_MAX, Reply, Request, Step};
use super::registry::Published;
use super::{ControlError, MountEntry, Registry, process};
use crate::store::{Limits, OutageKind, Timetable};

/// Conversations at a time; further ones wait at the door.
const CONVERSATIONS_MAX: usize = 64;
/// Those of them that may wait for the bucket, to unmount or for another reason; so others always find room, with which the waiting can be ended.
const UNMOUNTING_MAX: usize = 8;
const WAITING_MAX: usize = 40;
/// How long a client may take to say what it wants, or to take a line.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a long request tells how far it is; also how soon it notices that nobody listens any more.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// How long conversations may go on after [`Server::stop`]. The kernel tells that a mount has ended before umount(2)
/// returns, and takes seconds to forget a million inodes; whoever asked for the unmount waits for that.
const FAREWELL: Duration = Duration::from_secs(60);

/// Longest pause that ends by itself.
const PAUSE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What the socket speaks for. All of these may be called at once, and dropped at any point.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// The state of the mount and its volume.
    fn status(&self) -> Value;
    /// File contents that are not in the bucket yet.
    fn dirty_bytes(&self) -> u64;
    /// Bytes of segments that were read and written to clean, so far.
    fn cleaned_bytes(&self) -> u64;
    /// Why the bucket takes nothing at present.
    fn outage(&self) -> Option<OutageKind>;
    /// The limits of the bucket.
    fn limits(&self) -> &Limits;
    /// Returns when everything written so far is in the bucket.
    async fn sync(&self) -> Result<(), Failure>;
    /// Cleans segments, or only tells what that would do.
    async fn clean(&self, dry_run: bool) -> Result<Value, Failure>;
    /// Sets what the volume may hold, and tells what it holds and may hold then.
    async fn set_quota(&self, bytes: u64) -> Result<Value, Failure>;
    /// Takes the mount off the tree.
    async fn unmount(&self, detach: bool) -> Result<(), Failure>;
    /// After the mount's end: the last commit. The first call does it, all get its result.
    async fn finish(&self) -> Result<(), Failure>;
}

/// A listening socket, known to the registry.
#[derive(Debug)]
pub struct Server {
    registry: Registry,
    entry: MountEntry,
    published: Published,
    listener: JoinHandle<()>,
    places: Arc<Semaphore>,
}

impl Server {
    /// Begins to listen, on the current runtime, for the mount that `entry` describes; its `socket` is filled in here, and when its process
    /// was started.
    ///
    /// # Errors
    /// [`ControlError::PathTooLong`], or the system's.
    pub fn start(
        registry: &Registry,
        mut entry: MountEntry,
        subject: Arc<dyn Subject>,
    ) -> Result<Self, ControlError> {
        entry.socket = registry.new_socket(entry.pid)?;
        entry.started = process::started(entry.pid);
        let listener =
            UnixListener::bind(&entry.socket).map_err(ControlError::io("listening", &entry.socket))?;
        set_permissions(&entry.socket, Permissions::from_mode(0o600))
            .map_err(ControlError::io("closing the socket to others", &entry.socket))?;
        let published = registry.publish(&entry)?;
        let places = Arc::new(Semaphore::new(CONVERSATIONS_MAX));
        let listener = tokio::spawn(listen(listener, Arc::clone(&places), subject));
        Ok(Self { registry: registry.clone(), entry, published, listener, places })
    }

    /// The mount has ended: its place and its number may be another's. It goes on to answer until it has saved everything.
    pub fn ended(&self) {
        if let Err(error) = self.registry.write(&MountEntry { ended: true, ..self.entry.clone() }) {
            tracing::warn!(%error, "it goes on to be known as a mount that lasts");
        }
    }

    /// Stops listening, lets conversations end, and takes the mount out of the registry.
    pub async fn stop(self) {
        self.listener.abort();
        let all = u32::try_from(CONVERSATIONS_MAX).unwrap_or(u32::MAX);
        // Whoever does not take its last line in time does without.
        let _ = timeout(FAREWELL, self.places.acquire_many(all)).await;
        drop(self.published);
    }
}

async fn listen(listener: UnixListener, places: Arc<Semaphore>, subject: Arc<dyn Subject>) {
    let rooms =
        Arc::new(Rooms { waiting: Semaphore::new(WAITING_MAX), unmounting: Semaphore::new(UNMOUNTING_MAX) });
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (subject, rooms) = (Arc::clone(&subject), Arc::clone(&rooms));
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &*subject, &rooms).await {
                        tracing::debug!(%error, "a conversation on the control socket broke off");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: it passes, and trying at once would not help.
                tracing::warn!(%error, "the control socket cannot accept");
                tokio::time::sleep(PROGRESS_EVERY).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, subject: &dyn Subject, rooms: &Rooms) -> std::io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        tracing::warn!(uid = peer, "another user at the control socket was sent away");
        return Ok(());
    }
    let (reader, writer) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(REQUEST_BYTES_MAX));
    timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    let mut talk = Talk { writer, subject, rooms };
    let result = match serde_json::from_slice(&line) {
        Ok(request) => talk.answer(request).await,
        Err(error) => {
            Ok(Err(Failure { kind: FailureKind::BadRequest, message: format!("bad request: {error}") }))
        }
    };
    let last = match result? {
        Ok(value) => Reply::Done(value),
        Err(failure) => Reply::Failed(failure),
    };
    talk.say(&last).await
}

/// What the limits of a bucket are, for the status. (`docs/OPERATING.md`, "Figures")
#[must_use]
pub fn limits_status(limits: &Limits) -> Value {
    let set = limits.snapshot();
    let text = |table: &Timetable| (!table.is_off()).then(|| table.text.clone());
    json!({
        "upload": text(&set.upload),
        "upload_rate": set.upload_rate,
        "download": text(&set.download),
        "download_rate": set.download_rate,
        "is_paused": set.paused.is_some(),
        "paused_left": set.paused.flatten().map(|left| left.as_secs_f64()),
    })
}

/// One request's answer in the making. An `io::Error` means that nobody listens any more.
struct Talk<'a> {
    writer: OwnedWriteHalf,
    subject: &'a dyn Subject,
    rooms: &'a Rooms,
}

/// For those who wait for the bucket.
struct Rooms {
    waiting: Semaphore,
    unmounting: Semaphore,
}

type Outcome = std::io::Result<Result<Value, Failure>>;

fn crowded() -> Failure {
    Failure {
        kind: FailureKind::Other,
        message: "so many others wait for the bucket that no more can".into(),
    }
}

impl Talk<'_> {
    async fn answer(&mut self, request: Request) -> Outcome {
        let subject = self.subject;
        match request {
            Request::Status => Ok(Ok(subject.status())),
            Request::Sync => {
                let Ok(_room) = self.rooms.waiting.try_acquire() else { return Ok(Err(crowded())) };
                let result = self.step(Step::Syncing, subject.sync()).await?;
                Ok(result.map(|()| json!({})))
            }
            Request::Limit { upload, download } => {
                upload.into_iter().for_each(|table| subject.limits().set_upload(table));
                download.into_iter().for_each(|table| subject.limits().set_download(table));
                Ok(Ok(limits_status(subject.limits())))
            }
            Request::Pause { secs } => {
                let time = secs
                    .map(|secs| Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX).min(PAUSE_MAX));
                subject.limits().pause(time);
                Ok(Ok(limits_status(subject.limits())))
            }
            Request::Resume => {
                subject.limits().resume();
                Ok(Ok(limits_status(subject.limits())))
            }
            Request::Clean { dry_run } => {
                let Ok(_room) = self.rooms.waiting.try_acquire() else { return Ok(Err(crowded())) };
                self.step(Step::Cleaning, subject.clean(dry_run)).await
            }
            Request::Quota { bytes } => {
                let Ok(_room) = self.rooms.waiting.try_acquire() else { return Ok(Err(crowded())) };
                self.step(Step::Syncing, subject.set_quota(bytes)).await
            }
            Request::Unmount { detach } => {
                // Whoever unmounts wants everything saved. Where that is refused or given up, the pause goes on.
                let paused = subject.limits().snapshot().paused;
                subject.limits().resume();
                let pause_again = || paused.into_iter().for_each(|time| subject.limits().pause(time));
                let Ok(_room) = self.rooms.unmounting.try_acquire() else { return Ok(Err(crowded())) };
                // What was taken over or lost cannot be synced any more, and has to be unmounted all the same.
                let synced = self.step(Step::Syncing, subject.sync()).await;
                let lost = match synced.inspect_err(|_| pause_again())? {
                    Err(failure) if failure.kind == FailureKind::Lost => Err(failure),
                    Err(failure) if failure.kind != FailureKind::TakenOver => {
                        pause_again();
                        return Ok(Err(failure));
                    }
                    _ => Ok(()),
                };
                if let Err(failure) = self.step(Step::Unmounting, subject.unmount(detach)).await? {
                    pause_again();
                    return Ok(Err(failure));
                }
                if detach {
                    return Ok(Ok(json!({ "detached": true })));
                }
                let result = self.step(Step::Closing, subject.finish()).await?;
                Ok(result.and(lost).map(|()| json!({ "detached": false })))
            }
        }
    }

    /// Does one step and tells meanwhile how it goes. If nobody listens any more, the step is dropped.
    async fn step<T>(
        &mut self,
        step: Step,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> std::io::Result<Result<T, Failure>> {
        let mut work = std::pin::pin!(work);
        let mut ticks = interval(PROGRESS_EVERY);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return Ok(result),
                _ = ticks.tick() => {
                    let dirty_bytes = self.subject.dirty_bytes();
                    let cleaned_bytes = self.subject.cleaned_bytes();
                    let is_paused = self.subject.limits().snapshot().paused.is_some();
                    let outage = self.subject.outage();
                    let made = Progress { step, dirty_bytes, is_paused, cleaned_bytes, outage };
                    self.say(&Reply::Progress(made)).await?;
                }
            }
        }
    }

    async fn say(&mut self, reply: &Reply) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        timeout(PATIENCE, self.writer.write_all(&line)).await?
    }
}
