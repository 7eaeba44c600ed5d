//! The life of a mount in its process: open, mount, serve, and end only when everything is in the bucket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::error::{CommandError, CommandResult, sentence};
use super::exit::Exit;
use super::mount::{Front, MountArgs};
use super::open::greeting;
use super::progress::spinner;
use super::signals::{Ask, Signals};
use super::units::{show_count, show_duration, show_size};
use super::{explain, supervisor};
use crate::base::{Clock, SystemClock};
use crate::control::{Live, MountEntry, Registry, Server, Subject};
use crate::crypto::unlocked_because;
use crate::fuse::{self, Mounted, Unmount};
use crate::keys::Factor;
use crate::store::{Meter, OutageKind};
use crate::vfs::Vfs;
use crate::volume::unsent::Shelf;
use crate::volume::{self, OpenOptions, Opened};

/// How often the log tells how far saving is.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// How often the live line does.
const SHOW_INTERVAL: Duration = Duration::from_millis(200);

/// What is to be mounted, where and how.
pub struct Plan {
    /// The command's arguments.
    pub args: MountArgs,
    /// The kernel's options.
    pub kernel: fuse::MountOptions,
    /// The mount point, absolute.
    pub point: PathBuf,
    /// How the volume is opened.
    pub options: OpenOptions,
    /// What unlocks the volume.
    pub factors: Vec<Factor>,
}

/// Mounts, tells `front`, and returns when the mount has ended and everything is in the bucket.
///
/// # Errors
/// When the volume cannot be opened or mounted, or something could not be saved.
pub async fn run(plan: Plan, mut front: Front) -> CommandResult {
    match start_and_serve(plan, &mut front).await {
        Ok(()) => Ok(()),
        Err(error) => Err(front.failed(error)),
    }
}

async fn start_and_serve(plan: Plan, front: &mut Front) -> CommandResult {
    let Plan { args, mut kernel, point, options, factors } = plan;
    let bucket = args.bucket.open()?;
    let url = bucket.display_url().to_owned();
    if kernel.source_name == fuse::MountOptions::default().source_name {
        kernel.source_name.clone_from(&url);
    }
    let meter = bucket.meter().clone();
    let state_dir = options.state_dir.clone();
    let trust = options.trust.clone();
    let opened = volume::open(bucket, &factors, options).await.map_err(|e| explain::volume(&e, &factors))?;
    drop(factors);
    if let Some(why) = unlocked_because().filter(|_| args.require_locked_keys) {
        close_quietly(opened).await;
        return Err(not_locked(why));
    }
    let greeting = greeting(&opened, &trust);
    let signals = Signals::listen()?;
    let vfs = Arc::clone(&opened.vfs);
    let mounted = match fuse::mount(Arc::clone(&vfs), &point, &kernel, &Handle::current()) {
        Ok(mounted) => mounted,
        Err(error) => {
            close_quietly(opened).await;
            return Err(explain::mount(&error));
        }
    };
    let entry = MountEntry {
        mountpoint: mounted.point().to_owned(),
        url: url.clone(),
        volume: opened.volume.to_string(),
        fingerprint: opened.identity.fingerprint().to_string(),
        pid: std::process::id(),
        since: SystemClock::default().now().secs,
        socket: PathBuf::new(),
    };
    let shelf = state_dir.map(|state| Shelf::of(&state, opened.volume));
    let kept = move || shelf.as_ref().map_or(0, Shelf::count);
    let ready = format!("Mounted {url} at {}\n{}", point.display(), to_recover(kept()));
    let more = move || json!({ "store": store_status(&meter), "to_recover": kept(), "keys_unlocked": unlocked_because() });
    let live = Live::new(Arc::clone(&vfs), mounted.clone(), entry.clone(), more);
    let live = Arc::new(live);
    let listening = Registry::of_user().and_then(|registry| Server::start(&registry, entry, live.clone()));
    let ready = format!("{greeting}{ready}");
    let told =
        listening.map_err(|e| explain::control(&e)).and_then(|server| front.ready(&ready).map(|()| server));
    let server = match told {
        Ok(server) => server,
        Err(error) => {
            if let Err(error) = mounted.unmount(Unmount::Detach).await {
                tracing::warn!(%error, "unmounting after a failed start");
            }
            close_quietly(opened).await;
            return Err(error);
        }
    };
    tracing::info!(%url, point = %point.display(), "mounted");
    let mut keeper = Keeper { vfs, signals, interrupts: 0 };
    let ended = keeper.wait_for_end(&mounted).await;
    let saved = keeper.save(&live, opened).await;
    server.stop().await;
    saved?;
    tracing::info!(point = %point.display(), "unmounted; everything is in the bucket");
    ended
}

fn not_locked(why: &str) -> CommandError {
    CommandError::new(Exit::Failure, format!("keys cannot be locked in memory: {why}"))
        .hint("raise the limit (`ulimit -l`, LimitMEMLOCK=), or mount without --require-locked-keys")
}

/// What there is to say of changes that earlier mounts could not send; nothing if there are none.
fn to_recover(count: u64) -> String {
    match count {
        0 => String::new(),
        count => format!(
            "Changes that {} could not send are kept on this machine: {}\n",
            show_count(count, "earlier mount", "earlier mounts"),
            explain::TAKEN_OVER
        ),
    }
}

/// What the status says of the bucket.
fn store_status(meter: &Meter) -> Value {
    let counted = meter.snapshot();
    json!({
        "requests": counted.requests(),
        "puts": counted.puts,
        "gets": counted.gets,
        "put_bytes": counted.put_bytes,
        "get_bytes": counted.get_bytes,
        "errors": counted.errors,
        "in_flight": counted.in_flight,
        "outage": counted.outage.map(|kind| match kind {
            OutageKind::Denied => "denied",
            _ => "unreachable",
        }),
        "outage_age": counted.outage_since.map(|since| since.as_secs_f64()),
        "last_error": counted.last_error,
    })
}

async fn close_quietly(opened: Opened) {
    if let Err(error) = opened.close().await {
        tracing::warn!(%error, "closing the volume after a failed start");
    }
}

/// Sees a mount to its end, without losing anything unless the user insists.
struct Keeper {
    vfs: Arc<Vfs>,
    signals: Signals,
    interrupts: u32,
}

impl Keeper {
    /// Waits until somebody unmounts, or unmounts when a signal asks for it.
    async fn wait_for_end(&mut self, mounted: &Mounted) -> CommandResult {
        tokio::select! {
            ended = mounted.ended() => return ended.map_err(|e| explain::mount(&e)),
            asked = self.signals.next() => tracing::info!(?asked, "unmounting"),
        }
        self.patiently(unmount(mounted)).await?
    }

    /// Brings everything into the bucket and closes the volume. Patient without bound: an outage may last.
    async fn save(&mut self, live: &Live, opened: Opened) -> CommandResult {
        // Through `live`, so that a `coffer umount` that waits hears of it too.
        let finished = self.patiently(live.finish()).await?;
        let closed = self.patiently(opened.close()).await?;
        if let Err(error) = &closed {
            let error = explain::volume(error, &[]);
            if error.exit() == Exit::TakenOver {
                let what = self.vfs.status().rescue.map_or_else(String::new, |rescue| rescue.clause());
                return Err(
                    CommandError::new(Exit::TakenOver, format!("{error}; {what}")).hint(explain::TAKEN_OVER)
                );
            }
        }
        finished.map_err(|failure| failure.message).and(closed.map_err(|e| sentence(&e))).map_err(|why| {
            let left = show_size(self.vfs.dirty_bytes());
            CommandError::new(
                Exit::NotUnmounted,
                format!("not everything could be saved ({left} left): {why}"),
            )
        })
    }

    /// Waits for `work`, shows how much is left, and gives up at the second Ctrl-C of those that come meanwhile.
    async fn patiently<T>(&mut self, work: impl Future<Output = T>) -> CommandResult<T> {
        let line = spinner();
        tokio::pin!(work);
        let mut show = tokio::time::interval(SHOW_INTERVAL);
        let started = Instant::now();
        let mut reported = started;
        supervisor::ending(&format!("saving: {} not in the bucket yet", show_size(self.vfs.dirty_bytes())));
        let result = loop {
            tokio::select! {
                result = &mut work => break Ok(result),
                _ = show.tick() => {
                    let left = show_size(self.vfs.dirty_bytes());
                    line.set_message(format!("saving: {left} not in the bucket yet"));
                    if line.is_hidden() && reported.elapsed() >= REPORT_INTERVAL {
                        reported = Instant::now();
                        supervisor::ending(&format!("saving: {left} not in the bucket yet"));
                        tracing::warn!("still saving after {}: {left} left", show_duration(started.elapsed()));
                    }
                }
                asked = self.signals.next() => if asked == Ask::Interrupt {
                    self.interrupts += 1;
                    let left = show_size(self.vfs.dirty_bytes());
                    if self.interrupts > 1 {
                        let message = format!("gave up with {left} not in the bucket");
                        break Err(CommandError::new(Exit::NotUnmounted, message));
                    }
                    line.suspend(|| eprintln!("{left} are not in the bucket yet; press Ctrl-C again to lose them"));
                },
            }
        };
        line.finish_and_clear();
        result
    }
}

async fn unmount(mounted: &Mounted) -> CommandResult {
    if let Err(error) = mounted.flush_pages().await {
        tracing::warn!(%error, "what programs wrote through memory maps may not be saved");
    }
    match mounted.unmount(Unmount::WhenIdle).await {
        Ok(()) => Ok(()),
        Err(error) => {
            // Whoever sent the signal wants an end: files still open there fail from now on.
            tracing::warn!("{}; taking it away nevertheless", sentence(&error));
            mounted.unmount(Unmount::Detach).await.map_err(|e| explain::mount(&e))
        }
    }
}
