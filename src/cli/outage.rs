//! Tells the log of outages: since when a bucket has not answered and how much waits for it, and when it is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::report::span;
use super::stderr;
use super::units::show_size;
use crate::store::{Bucket, Meter, OutageKind};
use crate::vfs::Vfs;

/// What ends before is no outage, but a request that failed once.
const TOLD_AFTER: Duration = Duration::from_secs(5);
/// Of one that lasts the log is told again so often.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Watches until it is dropped.
pub async fn keep_log(meter: Meter, vfs: Arc<Vfs>) {
    watch(&meter, || vfs.dirty_bytes(), |line| tracing::warn!("{line}")).await;
}

/// Does `work`, for which a person waits, and says on the terminal what it waits for once that lasts.
pub async fn told<T>(bucket: &Bucket, work: impl Future<Output = T>) -> T {
    let tell = |line: &str| stderr::line(line);
    tokio::pin!(work);
    tokio::select! {
        biased;
        result = &mut work => return result,
        () = tell_waiting(bucket.meter(), bucket.display_url(), tell) => {}
    }
    work.await
}

/// Tells of each outage that lasts. Ends when it is dropped.
async fn tell_waiting(meter: &Meter, url: &str, tell: impl Fn(&str)) {
    loop {
        meter.until_outage(true).await;
        if timeout(TOLD_AFTER, meter.until_outage(false)).await.is_err() {
            let words = meter.snapshot().last_error.unwrap_or_else(|| "no answer".to_owned());
            tell(&format!("waiting for {url}: {words}"));
            meter.until_outage(false).await;
        }
    }
}

async fn watch(meter: &Meter, waiting: impl Fn() -> u64, mut tell: impl FnMut(String)) {
    loop {
        meter.until_outage(true).await;
        let (begun, mut patience, mut errors) = (Instant::now(), TOLD_AFTER, 0);
        while timeout(patience, meter.until_outage(false)).await.is_err() {
            let now = meter.snapshot();
            // Of a bucket that nobody asks there is no news.
            if now.errors > errors {
                tell(lasts(now.outage, begun.elapsed(), waiting(), now.last_error.as_deref()));
            }
            (patience, errors) = (AGAIN_AFTER, now.errors);
        }
        if errors > 0 {
            let (time, left) = (span(begun.elapsed().as_secs_f64()), show_size(waiting()));
            tell(format!("the bucket answers again after {time}; {left} are being sent"));
        }
    }
}

fn lasts(kind: Option<OutageKind>, time: Duration, waiting: u64, words: Option<&str>) -> String {
    let what = match kind {
        Some(OutageKind::Denied) => "has refused requests",
        Some(OutageKind::Full) => "has been full",
        _ => "has not answered",
    };
    let (time, waiting) = (span(time.as_secs_f64()), show_size(waiting));
    format!("the bucket {what} for {time}; {waiting} wait for it: {}", words.unwrap_or("no details"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_person_is_told_once_what_is_waited_for_and_of_nothing_that_passes() {
        let meter = Meter::default();
        let (tell, told) = channel();
        let watched = meter.clone();
        let task = tokio::spawn(async move {
            tell_waiting(&watched, "s3://b", |line| tell.send(line.to_owned()).unwrap()).await;
        });
        let pass = |secs| tokio::time::sleep(Duration::from_secs(secs));
        pass(1).await;
        meter.failed(OutageKind::Unavailable, "once".into());
        pass(2).await;
        meter.answered();
        pass(60).await;
        assert_eq!(told.try_iter().count(), 0);
        meter.failed(OutageKind::Unavailable, "connection refused".into());
        pass(600).await;
        let lines: Vec<_> = told.try_iter().collect();
        assert_eq!(lines, ["waiting for s3://b: connection refused"]);
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_is_told_of_what_lasts_and_of_its_end() {
        let meter = Meter::default();
        let (tell, told) = channel();
        let watched = meter.clone();
        let task =
            tokio::spawn(async move { watch(&watched, || 2048, |line| tell.send(line).unwrap()).await });
        let pass = |secs| tokio::time::sleep(Duration::from_secs(secs));

        pass(1).await;
        meter.failed(OutageKind::Unavailable, "once".into());
        pass(2).await;
        meter.answered();
        pass(60).await;
        assert_eq!(told.try_iter().count(), 0, "a request that fails once is no outage");

        meter.failed(OutageKind::Denied, "Forbidden".into());
        pass(6).await;
        let lines: Vec<_> = told.try_iter().collect();
        assert_eq!(lines, ["the bucket has refused requests for 5.0 s; 2.0 KiB wait for it: Forbidden"]);
        pass(1200).await;
        assert_eq!(told.try_iter().count(), 0, "nobody asks, and nothing is new");
        meter.failed(OutageKind::Unavailable, "no route".into());
        pass(600).await;
        let lines: Vec<_> = told.try_iter().collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].contains("has not answered for 30 min") && lines[0].contains("no route"),
            "{lines:?}"
        );
        meter.answered();
        pass(1).await;
        let lines: Vec<_> = told.try_iter().collect();
        assert!(lines.len() == 1 && lines[0].contains("answers again"), "{lines:?}");
        task.abort();
    }
}
