//! A command's end of the socket.

use std::io::ErrorKind;
use std::path::PathBuf;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::process::is_running;
use super::protocol::{REPLY_BYTES_MAX, Reply};
use super::{ControlError, MountEntry, Progress, Request};

/// A connection to a running mount, good for one request.
#[derive(Debug)]
pub struct Client {
    point: PathBuf,
    stream: UnixStream,
}

impl Client {
    /// Connects to the mount of `entry`.
    ///
    /// # Errors
    /// [`ControlError::Gone`] if its process does not answer, [`ControlError::Died`] if it never will, [`ControlError::Stranger`] if another user's does.
    pub async fn connect(entry: &MountEntry) -> Result<Self, ControlError> {
        let point = entry.mountpoint.clone();
        let stream = match UnixStream::connect(&entry.socket).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
                return Err(ControlError::Gone(point));
            }
            Err(error) => return Err(ControlError::io("connecting", &entry.socket)(error)),
        };
        let peer = stream.peer_cred().map_err(ControlError::io("asking who answers", &entry.socket))?;
        if peer.uid() != 0 && peer.uid() != rustix::process::geteuid().as_raw() {
            return Err(ControlError::Stranger { point, uid: peer.uid() });
        }
        // Where the kernel holds one of its threads, a process that was killed keeps the socket open, and nobody reads.
        if peer
            .pid()
            .and_then(|pid| u32::try_from(pid).ok())
            .is_some_and(|pid| pid > 0 && !is_running(pid, 0))
        {
            return Err(ControlError::died(entry.clone()));
        }
        Ok(Self { point, stream })
    }

    /// Asks, passes progress on, and returns what came of it.
    ///
    /// # Errors
    /// [`ControlError::Failed`] with the mount's reason; [`ControlError::Broken`] if it fell silent.
    pub async fn request(
        self,
        request: &Request,
        mut progress: impl FnMut(Progress),
    ) -> Result<Value, ControlError> {
        let broken = |why: String| ControlError::Broken { point: self.point.clone(), why };
        let (reader, mut writer) = self.stream.into_split();
        let mut line = serde_json::to_vec(request).map_err(|error| broken(error.to_string()))?;
        line.push(b'\n');
        writer.write_all(&line).await.map_err(|error| broken(error.to_string()))?;
        let mut reader = BufReader::new(reader).take(REPLY_BYTES_MAX);
        loop {
            line.clear();
            reader.set_limit(REPLY_BYTES_MAX);
            let bytes =
                reader.read_until(b'\n', &mut line).await.map_err(|error| broken(error.to_string()))?;
            if bytes == 0 {
                return Err(broken("it hung up".into()));
            }
            match serde_json::from_slice(&line).map_err(|error| broken(error.to_string()))? {
                Reply::Progress(made) => progress(made),
                Reply::Done(value) => return Ok(value),
                Reply::Failed(failure) => return Err(ControlError::Failed(failure)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use serde_json::json;
    use tokio::sync::Notify;

    use crate::store::{Limits, OutageKind, Timetable};

    use super::super::{Failure, FailureKind, Registry, Server, Step, Subject};
    use super::*;

    /// A mount that counts what is asked of it.
    #[derive(Default)]
    struct Fake {
        asked: parking_lot::Mutex<Vec<&'static str>>,
        busy: bool,
        stuck: bool,
        dropped: Notify,
        dirty: AtomicU64,
        limits: Limits,
    }

    struct OnDrop<'a>(&'a Notify);
    impl Drop for OnDrop<'_> {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    #[async_trait]
    impl Subject for Fake {
        fn status(&self) -> Value {
            json!({ "is_safe": true })
        }
        fn dirty_bytes(&self) -> u64 {
            self.dirty.load(Ordering::Relaxed)
        }
        fn outage(&self) -> Option<OutageKind> {
            Some(OutageKind::Full)
        }
        fn limits(&self) -> &Limits {
            &self.limits
        }
        fn cleaned_bytes(&self) -> u64 {
            0
        }
        async fn sync(&self) -> Result<(), Failure> {
            self.asked.lock().push("sync");
            if self.stuck {
                let _on_drop = OnDrop(&self.dropped);
                std::future::pending::<()>().await;
            }
            Ok(())
        }
        async fn clean(&self, dry_run: bool) -> Result<Value, Failure> {
            self.asked.lock().push(if dry_run { "plan" } else { "clean" });
            Ok(json!({ "dry_run": dry_run }))
        }
        async fn set_quota(&self, bytes: u64) -> Result<Value, Failure> {
            Ok(json!({ "quota_bytes": bytes }))
        }
        async fn unmount(&self, detach: bool) -> Result<(), Failure> {
            self.asked.lock().push(if detach { "detach" } else { "unmount" });
            match self.busy {
                true => Err(Failure { kind: FailureKind::Busy, message: "in use".into() }),
                false => Ok(()),
            }
        }
        async fn finish(&self) -> Result<(), Failure> {
            self.asked.lock().push("finish");
            Ok(())
        }
    }

    struct Bench {
        _dir: tempfile::TempDir,
        registry: Registry,
        server: Server,
        fake: Arc<Fake>,
    }

    fn bench(fake: Fake) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path().join("run")).unwrap();
        let entry = MountEntry {
            mountpoint: "/mnt/x".into(),
            device: String::new(),
            url: "memory:".into(),
            volume: "v".into(),
            fingerprint: String::new(),
            pid: std::process::id(),
            started: 0,
            ended: false,
            since: 1,
            socket: PathBuf::new(),
        };
        let fake = Arc::new(fake);
        let subject: Arc<dyn Subject> = Arc::clone(&fake) as _;
        let server = Server::start(&registry, entry, subject).unwrap();
        Bench { _dir: dir, registry, server, fake }
    }

    impl Bench {
        fn entry(&self) -> MountEntry {
            self.registry.find(Path::new("/mnt/x")).unwrap()
        }

        async fn ask(&self, request: Request) -> Result<Value, ControlError> {
            Client::connect(&self.entry()).await?.request(&request, |_| ()).await
        }
    }

    #[tokio::test]
    async fn status_comes_from_the_running_mount() {
        let bench = bench(Fake::default());
        assert_eq!(bench.ask(Request::Status).await.unwrap(), json!({ "is_safe": true }));
    }

    #[tokio::test]
    async fn unmount_saves_everything_first_and_ends_the_volume_last() {
        let bench = bench(Fake::default());
        let value = bench.ask(Request::Unmount { detach: false }).await.unwrap();
        assert_eq!(value, json!({ "detached": false }));
        assert_eq!(*bench.fake.asked.lock(), ["sync", "unmount", "finish"]);
        bench.server.stop().await;
        assert_eq!(bench.registry.entries(), []);
    }

    #[tokio::test]
    async fn cleaning_is_asked_for_or_for_its_plan() {
        let bench = bench(Fake::default());
        for dry_run in [true, false] {
            let answer = bench.ask(Request::Clean { dry_run }).await.unwrap();
            assert_eq!(answer, json!({ "dry_run": dry_run }));
        }
        assert_eq!(*bench.fake.asked.lock(), ["plan", "clean"]);
    }

    #[tokio::test]
    async fn a_pause_ends_with_an_unmount_and_is_told_until_then() {
        let bench = bench(Fake::default());
        let paused = bench.ask(Request::Pause { secs: None }).await.unwrap();
        assert_eq!((&paused["is_paused"], &paused["paused_left"]), (&json!(true), &Value::Null));
        let half = Timetable { text: "512K".into(), otherwise: Some(512 << 10), ..Timetable::default() };
        let limited = bench.ask(Request::Limit { upload: Some(half), download: None }).await.unwrap();
        assert_eq!((&limited["upload"], &limited["upload_rate"]), (&json!("512K"), &json!(512 << 10)));
        assert_eq!((&limited["download"], &limited["is_paused"]), (&Value::Null, &json!(true)));
        bench.ask(Request::Unmount { detach: false }).await.unwrap();
        assert_eq!(bench.fake.limits.snapshot().paused, None);
    }

    #[tokio::test]
    async fn a_busy_mount_is_not_ended() {
        let bench = bench(Fake { busy: true, ..Fake::default() });
        let Err(ControlError::Failed(failure)) = bench.ask(Request::Unmount { detach: false }).await else {
            panic!("a busy mount was unmounted");
        };
        assert_eq!(failure.kind, FailureKind::Busy);
        assert_eq!(*bench.fake.asked.lock(), ["sync", "unmount"]);
    }

    #[tokio::test]
    async fn a_long_request_tells_how_far_it_is_and_stops_when_nobody_listens() {
        let bench = bench(Fake { stuck: true, dirty: AtomicU64::new(42), ..Fake::default() });
        let client = Client::connect(&bench.entry()).await.unwrap();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let asking =
            tokio::spawn(
                async move { client.request(&Request::Sync, |made| tell.send(made).unwrap()).await },
            );
        let progress = told.recv().await.unwrap();
        assert_eq!(
            progress,
            Progress {
                step: Step::Syncing,
                dirty_bytes: 42,
                is_paused: false,
                cleaned_bytes: 0,
                outage: Some(OutageKind::Full),
            }
        );
        asking.abort();
        bench.fake.dropped.notified().await;
    }

    #[tokio::test]
    async fn a_pause_goes_on_when_an_unmount_is_given_up() {
        let bench = bench(Fake { stuck: true, ..Fake::default() });
        bench.ask(Request::Pause { secs: None }).await.unwrap();
        let client = Client::connect(&bench.entry()).await.unwrap();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let asking = tokio::spawn(async move {
            client.request(&Request::Unmount { detach: false }, |made| tell.send(made).unwrap()).await
        });
        assert!(!told.recv().await.unwrap().is_paused);
        asking.abort();
        bench.fake.dropped.notified().await;
        // It has let go of its work, and is about to see to the rest.
        let told = json!({ "upload": null, "download": null, "upload_rate": null, "download_rate": null,
            "is_paused": true, "paused_left": null });
        while bench.ask(Request::Limit { upload: None, download: None }).await.unwrap() != told {}
        assert_eq!(*bench.fake.asked.lock(), ["sync"]);
    }

    #[tokio::test]
    async fn however_many_wait_for_the_bucket_others_are_answered() {
        let bench = bench(Fake { stuck: true, ..Fake::default() });
        let mut waiting = Vec::new();
        for count in 1..=48 {
            let request = if count <= 40 { Request::Sync } else { Request::Unmount { detach: false } };
            let client = Client::connect(&bench.entry()).await.unwrap();
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            waiting.push(tokio::spawn(
                async move { client.request(&request, |made| _ = tell.send(made)).await },
            ));
            told.recv().await.unwrap_or_else(|| panic!("number {count} was sent away"));
        }
        for request in [Request::Sync, Request::Clean { dry_run: false }, Request::Unmount { detach: false }]
        {
            let Err(ControlError::Failed(failure)) = bench.ask(request).await else {
                panic!("one more waits");
            };
            assert_eq!(failure.kind, FailureKind::Other);
        }
        bench.ask(Request::Status).await.unwrap();
        bench.ask(Request::Resume).await.unwrap();
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_mount_that_has_ended_is_answered_for_until_everything_is_saved() {
        let bench = bench(Fake::default());
        assert!(!bench.entry().ended && bench.entry().started > 0);
        bench.server.ended();
        assert!(bench.entry().ended);
        bench.ask(Request::Status).await.unwrap();
        bench.server.stop().await;
        assert_eq!(bench.registry.entries(), []);
    }

    #[tokio::test]
    async fn garbage_is_answered_and_does_no_harm() {
        let bench = bench(Fake::default());
        for garbage in [&b"\n"[..], b"{\"op\":\"explode\"}\n", b"\xff\xfe\n", &[b'['; 70_000]] {
            let mut stream = UnixStream::connect(bench.entry().socket).await.unwrap();
            // The mount may hang up before it has taken all of an overlong line.
            let _ = stream.write_all(garbage).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            if garbage.len() < 70_000 {
                assert!(String::from_utf8(answer).unwrap().contains("bad_request"));
            }
        }
        assert!(bench.ask(Request::Status).await.is_ok());
        assert!(bench.fake.asked.lock().is_empty());
    }

    #[tokio::test]
    async fn a_socket_nobody_listens_at_is_told_as_gone() {
        let bench = bench(Fake::default());
        let entry = bench.entry();
        bench.server.stop().await;
        assert!(matches!(Client::connect(&entry).await, Err(ControlError::Gone(_))));
    }
}
