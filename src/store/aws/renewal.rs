//! Renews credentials beside the requests that use them: at one place at a time, and whoever asks goes when it wants to.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use object_store::aws::AwsCredential;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::{Answer, Failure};

/// Credentials that end sooner are asked for anew.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);
/// How long nothing is looked at, nor anybody asked, after that was done; twice as long after each failure in a row, up to
/// one of these: as long as credentials live, and when there are none.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(64);
const PAUSE_MAX_WITHOUT: Duration = Duration::from_secs(4);
/// So long requests whose credentials live wait to hear whether files have changed: they are told within a moment, unless
/// where they lie does not answer.
const GRACE: Duration = Duration::from_millis(200);

/// Where credentials are from.
#[async_trait]
pub(super) trait Origin: Send + Sync + 'static {
    /// What is another one once credentials may be others.
    type Stamp: PartialEq + Send;

    /// As it is now.
    async fn stamp(&self) -> Result<Self::Stamp, Failure>;

    /// New ones.
    async fn obtain(&self) -> Result<Answer, Failure>;
}

/// Credentials that are renewed.
pub(super) struct Renewed<O: Origin>(Arc<Inner<O>>);

struct Inner<O: Origin> {
    origin: O,
    state: Mutex<State<O::Stamp>>,
}

struct State<S> {
    held: Option<Held<S>>,
    renewal: Option<Renewal>,
    /// The failures since credentials were had, and the last one.
    failed: Option<(u32, Failure)>,
    rests_until: Option<Instant>,
}

struct Held<S> {
    credential: Arc<AwsCredential>,
    expires: Option<SystemTime>,
    stamp: S,
}

/// One under way, or the last one. It is a task of its own: what it has begun, such as to trade in a token that is good for
/// one time only, is not broken off because a request has no more time.
struct Renewal {
    begun: Instant,
    task: AbortHandle,
    outcome: Shared<BoxFuture<'static, Result<Arc<AwsCredential>, Failure>>>,
}

impl<S> Held<S> {
    fn lives_for(&self) -> Duration {
        let left = self.expires.map(|ends| ends.duration_since(SystemTime::now()).unwrap_or_default());
        left.unwrap_or(Duration::MAX)
    }
}

impl<S> State<S> {
    fn is_at_rest(&self) -> bool {
        self.rests_until.is_some_and(|end| Instant::now() < end)
    }

    fn rest(&mut self) {
        let failures = self.failed.as_ref().map_or(0, |(count, _)| *count);
        let is_alive = self.held.as_ref().is_some_and(|held| !held.lives_for().is_zero());
        let max = if is_alive { PAUSE_MAX } else { PAUSE_MAX_WITHOUT };
        let pause = PAUSE.saturating_mul(1 << failures.min(10)).min(max);
        self.rests_until = Some(Instant::now() + pause);
    }
}

impl<O: Origin> Renewed<O> {
    pub(super) fn new(origin: O) -> Self {
        let state = State { held: None, renewal: None, failed: None, rests_until: None };
        Self(Arc::new(Inner { origin, state: Mutex::new(state) }))
    }

    /// The credentials to be used now. Those that live are given at once, while others are sought; only where there are none
    /// is that waited for.
    ///
    /// # Errors
    /// There are none to be had.
    pub(super) async fn current(&self) -> Result<Arc<AwsCredential>, Failure> {
        let (alive, begun, outcome) = {
            let mut state = self.0.state.lock();
            let held = state.held.as_ref().map(|held| (Arc::clone(&held.credential), held.lives_for()));
            let is_under_way = state.renewal.as_ref().is_some_and(|renewal| !renewal.task.is_finished());
            if !is_under_way && state.is_at_rest() {
                return match (held, &state.failed) {
                    // Whether they have ended by the clock of the store, it will say.
                    (Some((credential, left)), failed) if !left.is_zero() || failed.is_none() => {
                        Ok(credential)
                    }
                    (_, Some((_, failure))) => Err(failure.clone()),
                    (_, None) => Err(Failure::Unreachable("nobody was asked for them".to_owned())),
                };
            }
            if !is_under_way {
                state.renewal = None;
            }
            let renewal = state.renewal.get_or_insert_with(|| self.begin());
            (held.filter(|(_, left)| !left.is_zero()), renewal.begun, renewal.outcome.clone())
        };
        match alive {
            Some((credential, left)) if left <= RENEW_BEFORE => Ok(credential),
            Some((credential, _)) => match timeout_at(begun + GRACE, outcome).await {
                Ok(Ok(newest)) => Ok(newest),
                Ok(Err(_)) | Err(_) => Ok(credential),
            },
            None => outcome.await,
        }
    }

    fn begin(&self) -> Renewal {
        let inner = Arc::clone(&self.0);
        let task = tokio::spawn(async move { inner.renew().await });
        let abort = task.abort_handle();
        let cut_off = || Failure::Unreachable("asking for them was cut off".to_owned());
        let outcome = task.map(move |ended| ended.unwrap_or_else(|_| Err(cut_off()))).boxed().shared();
        Renewal { begun: Instant::now(), task: abort, outcome }
    }
}

impl<O: Origin> Inner<O> {
    /// Looks whether there may be others, and obtains them.
    async fn renew(&self) -> Result<Arc<AwsCredential>, Failure> {
        let obtained = match self.origin.stamp().await {
            Err(failure) => Err(failure),
            Ok(stamp) => {
                if let Some(credential) = self.still_good(&stamp) {
                    return Ok(credential);
                }
                self.origin.obtain().await.map(|answer| (answer, stamp))
            }
        };
        let mut state = self.state.lock();
        let outcome = match obtained {
            Ok((answer, stamp)) => {
                tracing::debug!(expires = ?answer.expires, "credentials were obtained");
                let credential = Arc::new(answer.credential);
                state.held =
                    Some(Held { credential: Arc::clone(&credential), expires: answer.expires, stamp });
                state.failed = None;
                Ok(credential)
            }
            Err(failure) => {
                let count = state.failed.as_ref().map_or(0, |(count, _)| *count);
                state.failed = Some((count.saturating_add(1), failure.clone()));
                match state.held.as_ref().filter(|held| !held.lives_for().is_zero()) {
                    Some(held) => {
                        let why = failure.words();
                        tracing::warn!(why, "no new credentials; those that are held still serve");
                        Ok(Arc::clone(&held.credential))
                    }
                    None => Err(failure),
                }
            }
        };
        state.rest();
        outcome
    }

    fn still_good(&self, stamp: &O::Stamp) -> Option<Arc<AwsCredential>> {
        let mut state = self.state.lock();
        let held = state.held.as_ref()?;
        if held.stamp != *stamp || held.lives_for() <= RENEW_BEFORE {
            return None;
        }
        let credential = Arc::clone(&held.credential);
        state.failed = None;
        state.rest();
        Some(credential)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::time::{sleep, timeout};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// What asking once comes to.
    #[derive(Clone)]
    enum Step {
        /// After this time, credentials of this name that live so long.
        Gives(Duration, &'static str, Duration),
        Fails,
        Hangs,
    }
    use Step::{Fails, Gives, Hangs};

    #[derive(Default)]
    struct Told {
        steps: VecDeque<Step>,
        asked: Vec<Instant>,
        stamp: u32,
    }

    #[derive(Clone, Default)]
    struct Script(Arc<Mutex<Told>>);

    #[async_trait]
    impl Origin for Script {
        type Stamp = u32;

        async fn stamp(&self) -> Result<u32, Failure> {
            Ok(self.0.lock().stamp)
        }

        async fn obtain(&self) -> Result<Answer, Failure> {
            let step = {
                let mut told = self.0.lock();
                told.asked.push(Instant::now());
                told.steps.pop_front().unwrap_or(Fails)
            };
            match step {
                Gives(after, name, lives) => {
                    sleep(after).await;
                    let (key_id, secret_key) = (name.to_owned(), "secret".to_owned());
                    let credential = AwsCredential { key_id, secret_key, token: None };
                    Ok(Answer { credential, expires: Some(SystemTime::now() + lives) })
                }
                Fails => Err(Failure::Unreachable("out of order".to_owned())),
                Hangs => std::future::pending().await,
            }
        }
    }

    impl Script {
        fn of(steps: impl IntoIterator<Item = Step>) -> (Self, Renewed<Self>) {
            let script = Self::default();
            script.0.lock().steps.extend(steps);
            (script.clone(), Renewed::new(script))
        }

        fn asked(&self) -> usize {
            self.0.lock().asked.len()
        }
    }

    async fn name(renewed: &Renewed<Script>) -> String {
        renewed.current().await.map_or_else(|failure| failure.words().to_owned(), |it| it.key_id.clone())
    }

    /// The name, and how long it took to be told.
    async fn timed(renewed: &Renewed<Script>) -> (String, Duration) {
        let begun = Instant::now();
        (name(renewed).await, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_hangs_delays_nobody_whose_credentials_live() {
        let old = Gives(Duration::ZERO, "old", Duration::from_secs(60));
        let (script, renewed) = Script::of([old, Hangs]);
        assert_eq!(name(&renewed).await, "old");
        for _ in 0..100 {
            sleep(PAUSE).await;
            assert_eq!(timed(&renewed).await, ("old".to_owned(), Duration::ZERO));
        }
        assert_eq!(script.asked(), 2, "one renewal is under way, and no other is begun");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_program_is_run_once_however_short_the_time_of_those_who_wait_for_it() {
        let (script, renewed) = Script::of([Gives(Duration::from_secs(45), "slow", HOUR)]);
        let deadline = Duration::from_secs(15);
        for _ in 0..2 {
            assert!(timeout(deadline, renewed.current()).await.is_err(), "it is not there yet");
        }
        let waiting: Vec<_> = (0..8).map(|_| name(&renewed)).collect();
        let told = timeout(deadline * 2, futures::future::join_all(waiting)).await.unwrap();
        assert_eq!(told, ["slow"; 8]);
        assert_eq!(script.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn after_failures_pauses_grow_while_the_old_ones_serve() {
        let old = Gives(Duration::ZERO, "old", Duration::from_secs(250));
        let (script, renewed) = Script::of([old]);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(200) {
            assert_eq!(timed(&renewed).await, ("old".to_owned(), Duration::ZERO));
            sleep(Duration::from_millis(100)).await;
        }
        let asked = script.0.lock().asked.clone();
        let pauses: Vec<u64> = asked.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_credentials_a_failure_is_told_and_others_are_sought_soon_again() {
        let (script, renewed) = Script::of([Fails, Gives(Duration::ZERO, "new", HOUR)]);
        assert_eq!(name(&renewed).await, "out of order");
        assert_eq!(timed(&renewed).await, ("out of order".to_owned(), Duration::ZERO));
        assert_eq!(script.asked(), 1, "not twice at once");
        sleep(PAUSE_MAX_WITHOUT).await;
        assert_eq!(name(&renewed).await, "new");
    }

    #[tokio::test(start_paused = true)]
    async fn changed_files_are_heeded_by_the_next_request_and_waited_for_a_moment_only() {
        let first = Gives(Duration::ZERO, "first", HOUR);
        let (script, renewed) =
            Script::of([first, Gives(Duration::ZERO, "second", HOUR), Gives(HOUR, "third", HOUR)]);
        assert_eq!(name(&renewed).await, "first");
        sleep(PAUSE).await;
        assert_eq!(name(&renewed).await, "first");
        assert_eq!(script.asked(), 1, "nothing has changed");
        sleep(PAUSE).await;
        script.0.lock().stamp += 1;
        assert_eq!(name(&renewed).await, "second");
        sleep(PAUSE).await;
        script.0.lock().stamp += 1;
        assert_eq!(timed(&renewed).await, ("second".to_owned(), GRACE));
        assert_eq!(timed(&renewed).await, ("second".to_owned(), Duration::ZERO), "and only once");
        sleep(HOUR).await;
        assert_eq!(name(&renewed).await, "third");
    }
}
