//! The life of a mount in its process: open, mount, serve, and end only when everything is in the bucket.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::error::{CommandError, CommandResult, sentence};
use super::exit::Exit;
use super::figures::{Figures, Page};
use super::logging::tell;
use super::mount::{Front, MountArgs};
use super::open::greeting;
use super::progress::Progress;
use super::report::{Report, log_line};
use super::signals::{Ask, Signals};
use super::units::{show_count, show_size};
use super::{explain, outage, supervisor};
use crate::base::{Clock, SystemClock};
use crate::control::{ControlError, FailureKind, Live, MountEntry, Registry, Server, Subject};
use crate::crypto::unlocked_because;
use crate::fuse::{self, Mounted, Unmount};
use crate::keys::Factor;
use crate::store::Limits;
use crate::vfs::Vfs;
use crate::volume::unsent::Shelf;
use crate::volume::{self, Budget, OpenOptions, Opened};
use crate::web::{self, Door, Place, PlaceError};

/// How often the service manager is told how far saving is.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// How often it is looked how much is left to save.
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
    // Before anything is opened: a port that somebody else has is no reason to open a volume and close it again.
    let door = args.http.as_deref().map(|place| hold_door(place, args.http_anywhere)).transpose()?;
    let bucket = args.bucket.open()?;
    if let Some(directory) = bucket.directory() {
        refuse_to_hide(directory, &point)?;
    }
    let url = bucket.display_url().to_owned();
    if kernel.source_name == fuse::MountOptions::default().source_name {
        kernel.source_name.clone_from(&url);
    }
    let limits = bucket.limits().clone();
    limits.set_upload(args.upload_limit.clone().unwrap_or_default());
    limits.set_download(args.download_limit.clone().unwrap_or_default());
    let shown_at = door.as_ref().and_then(|door| door.address().ok());
    let meter = bucket.meter().clone();
    let figures = Arc::new(Figures::of(&bucket, Budget::of_options(&options), shown_at));
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
        device: mounted.device().to_string(),
        url: url.clone(),
        volume: opened.volume.to_string(),
        fingerprint: opened.identity.fingerprint().to_string(),
        pid: std::process::id(),
        started: 0,
        ended: false,
        since: SystemClock::default().now().secs,
        socket: PathBuf::new(),
    };
    let shelf = state_dir.map(|state| Shelf::of(&state, opened.volume));
    let log = front.log().place();
    let kept = move || shelf.as_ref().map_or(0, Shelf::count);
    let ready = format!("Mounted {url} at {}\n{}", point.display(), to_recover(kept()));
    let more = {
        let (vfs, figures) = (Arc::clone(&vfs), Arc::clone(&figures));
        move || {
            let mut more = figures.all(&vfs);
            more.insert("to_recover".to_owned(), kept().into());
            more.insert("log".to_owned(), log.as_str().into());
            more.insert("keys_unlocked".to_owned(), unlocked_because().into());
            more
        }
    };
    let live = Live::new(Arc::clone(&vfs), mounted.clone(), entry.clone(), limits.clone(), more);
    let live = Arc::new(live);
    let listening = Registry::of_user().and_then(|registry| Server::start(&registry, entry, live.clone()));
    let page = Page {
        live: Arc::clone(&live),
        vfs: Arc::clone(&vfs),
        figures,
        operations: mounted.operations().clone(),
    };
    let shown = show_page(door, page);
    let at = shown_at.map_or_else(String::new, |address| format!("Figures at http://{address}/\n"));
    let ready = format!("{greeting}{ready}{at}");
    let told = shown.and_then(|shown| {
        let server = listening.map_err(|e| explain::control(&e))?;
        front.ready(&ready).map(|()| (server, shown))
    });
    let (server, _shown) = match told {
        Ok(both) => both,
        Err(error) => {
            if let Err(error) = mounted.unmount(Unmount::Detach).await {
                tracing::warn!(%error, "unmounting after a failed start");
            }
            close_quietly(opened).await;
            return Err(error);
        }
    };
    tracing::info!(%url, point = %point.display(), "mounted");
    let watch = tokio::spawn(outage::keep_log(meter, Arc::clone(&vfs)));
    let mut keeper = Keeper { vfs, signals, limits, interrupts: 0 };
    let ended = match unless_panic(keeper.wait_for_end(&mounted, &live)).await {
        Some(ended) => ended,
        None => unless_panic(keeper.end_broken(&mounted)).await.unwrap_or_else(|| Err(broken())),
    };
    let saved = {
        let mut saving = std::pin::pin!(keeper.save(&live, opened));
        tokio::select! {
            biased;
            // Under another mount it may go on to be mounted while it is saved.
            _ = mounted.ended() => {
                server.ended();
                saving.await
            }
            saved = &mut saving => saved,
        }
    };
    watch.abort();
    server.stop().await;
    saved?;
    tracing::info!(point = %point.display(), "unmounted; everything is in the bucket");
    ended
}

/// A mount over its own bucket would hide it from itself; one within it would list itself.
fn refuse_to_hide(bucket: &Path, point: &Path) -> CommandResult {
    let found = point.canonicalize();
    let point = found.as_deref().unwrap_or(point);
    let why = if bucket == point {
        "it is the bucket's own directory"
    } else if bucket.starts_with(point) {
        "the bucket's directory lies below it and would be hidden"
    } else if point.starts_with(bucket) {
        "it lies in the bucket's directory"
    } else {
        return Ok(());
    };
    let message = format!("cannot mount {} at {}: {why}", bucket.display(), point.display());
    Err(CommandError::new(Exit::BadMountPoint, message).hint("choose a directory apart from the bucket"))
}

/// Holds the port that figures are to be shown at.
fn hold_door(place: &str, anywhere: bool) -> CommandResult<Door> {
    let address = Place::parse(place).and_then(|place| place.address(anywhere)).map_err(|error| {
        let hint = matches!(error, PlaceError::Reachable(_));
        let hint = hint.then_some("--http-anywhere shows them there all the same, to whoever asks");
        CommandError::usage(format!("--http: {error}")).maybe_hint(hint)
    })?;
    Door::hold(address).map_err(|error| {
        CommandError::new(Exit::Failure, format!("cannot show figures at {address}: {error}"))
    })
}

fn show_page(door: Option<Door>, page: Page) -> CommandResult<Option<web::Server>> {
    let opened = door.map(|door| door.open(Arc::new(page))).transpose();
    opened.map_err(|error| CommandError::new(Exit::Failure, format!("cannot show figures: {error}")))
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

async fn close_quietly(opened: Opened) {
    if let Err(error) = opened.close().await {
        tracing::warn!(%error, "closing the volume after a failed start");
    }
}

/// Sees a mount to its end, without losing anything unless the user insists.
struct Keeper {
    vfs: Arc<Vfs>,
    signals: Signals,
    limits: Limits,
    interrupts: u32,
}

impl Keeper {
    /// Waits until somebody unmounts, or unmounts when a signal asks for it.
    async fn wait_for_end(&mut self, mounted: &Mounted, live: &Live) -> CommandResult {
        loop {
            tokio::select! {
                ended = mounted.ended() => return ended.map_err(|e| explain::mount(&e)),
                asked = self.signals.next() => match asked {
                    Ask::Show => tell(&log_line(&[Report::of(&live.status())])),
                    asked => {
                        tracing::info!(?asked, "unmounting");
                        break;
                    }
                },
            }
        }
        self.go_on();
        self.patiently(unmount(mounted)).await?
    }

    /// Unmounts after an error that nobody foresaw, so that what is not in the bucket is brought there.
    async fn end_broken(&mut self, mounted: &Mounted) -> CommandResult {
        tracing::error!("unmounting after an error in Coffer itself");
        self.go_on();
        self.patiently(unmount(mounted)).await??;
        Err(broken())
    }

    /// Ends a pause: what ends is saved first.
    fn go_on(&self) {
        if self.limits.resume() {
            tracing::warn!("uploads were paused; they go on, because the mount is ending");
        }
    }

    /// Brings everything into the bucket and closes the volume. Patient without bound: an outage may last.
    async fn save(&mut self, live: &Live, opened: Opened) -> CommandResult {
        self.go_on();
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
        if let Err(failure) = &finished
            && matches!(failure.kind, FailureKind::TakenOver | FailureKind::Unnoted)
        {
            return Err(explain::control(&ControlError::Failed(failure.clone())));
        }
        finished.map_err(|failure| failure.message).and(closed.map_err(|e| sentence(&e))).map_err(|why| {
            let left = show_size(self.vfs.dirty_bytes());
            let message = format!("not everything could be saved ({left} left): {why}");
            CommandError::new(Exit::NotUnmounted, message)
        })
    }

    /// Waits for `work`, shows how much is left, and gives up at the second Ctrl-C of those that come meanwhile.
    async fn patiently<T>(&mut self, work: impl Future<Output = T>) -> CommandResult<T> {
        let progress = Progress::start("saving");
        tokio::pin!(work);
        let mut look = tokio::time::interval(SHOW_INTERVAL);
        let mut told: Option<Instant> = None;
        let result = loop {
            tokio::select! {
                result = &mut work => break Ok(result),
                _ = look.tick() => {
                    let left = self.vfs.dirty_bytes();
                    progress.set_left(left);
                    if told.is_none_or(|told| told.elapsed() >= REPORT_INTERVAL) {
                        told = Some(Instant::now());
                        supervisor::ending(&format!("saving: {} not in the bucket yet", show_size(left)));
                    }
                }
                asked = self.signals.next() => if asked == Ask::Interrupt {
                    self.interrupts += 1;
                    let left = show_size(self.vfs.dirty_bytes());
                    if self.interrupts > 1 {
                        let message = format!("gave up with {left} not in the bucket");
                        break Err(CommandError::new(Exit::NotUnmounted, message));
                    }
                    progress.say(&format!("{left} are not in the bucket yet; press Ctrl-C again to lose them"));
                },
            }
        };
        progress.set_left(self.vfs.dirty_bytes());
        progress.finish();
        result
    }
}

fn broken() -> CommandError {
    CommandError::new(Exit::Failure, "the mount has ended by an error in Coffer itself")
        .hint("everything is in the bucket; please report what was said before this")
}

/// What `work` comes to; `None` if it panics, which has been told by then.
async fn unless_panic<T>(work: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(work).catch_unwind().await.ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_error_that_nobody_foresaw_does_not_go_past_what_saves() {
        assert_eq!(unless_panic(async { 7 }).await, Some(7));
        assert_eq!(unless_panic(async { panic!("on purpose") }).await, None::<()>);
    }

    #[test]
    fn no_mount_hides_its_bucket_or_lies_in_it() {
        let bucket = Path::new("/none/srv/bucket");
        for point in ["/none/srv/bucket", "/none/srv", "/", "/none/srv/bucket/d/mnt"] {
            let error = refuse_to_hide(bucket, Path::new(point)).unwrap_err();
            assert_eq!(error.exit(), Exit::BadMountPoint, "{point}");
        }
        for point in ["/none/srv/bucket2", "/none/mnt", "/none/srv/mnt"] {
            assert!(refuse_to_hide(bucket, Path::new(point)).is_ok(), "{point}");
        }
    }
}
