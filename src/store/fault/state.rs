//! What a store with faults remembers: its chance, writes that are late, what has changed of late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectMeta, PutOptions, PutPayload};
use parking_lot::Mutex;

use super::list;
use super::plan::{Fault, FaultPlan, KeyClass, Verb};
use crate::base::{Clock, Entropy, SeededEntropy};

/// A write that takes effect later.
#[derive(Clone, Debug)]
pub(super) enum Write {
    Put(Path, PutPayload, PutOptions),
    Delete(Path),
}

/// What chance has decided for one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    pub(super) fault: Option<Fault>,
    /// Of the rule that struck.
    pub(super) delay: Duration,
    /// The way there and the way back.
    pub(super) before: Duration,
    pub(super) after: Duration,
    /// Sending the body.
    pub(super) transfer: Duration,
    pub(super) coin: bool,
}

pub(super) struct Shared {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    start: Duration,
}

struct State {
    plan: FaultPlan,
    random: SeededEntropy,
    /// Writes under way: when they take effect, in the order in which they were sent.
    waiting: Vec<(Duration, Write)>,
    /// Objects that came or went, when, and what a stale listing shows instead.
    changes: BTreeMap<Path, (Duration, Option<ObjectMeta>)>,
    /// When the link will have sent what it was given.
    link_free_at: Duration,
}

impl State {
    /// From 0 to 1, 1 left out.
    fn share(&mut self) -> f64 {
        let mut bytes = [0; 4];
        self.random.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    }

    fn transfer(&mut self, now: Duration, bytes: u64) -> Duration {
        let Some(bandwidth) = self.plan.bandwidth else { return Duration::ZERO };
        let time = Duration::from_secs_f64(bytes as f64 / bandwidth.max(1) as f64);
        self.link_free_at = self.link_free_at.max(now) + time;
        self.link_free_at - now
    }
}

impl Shared {
    pub(super) fn new(plan: FaultPlan, clock: Arc<dyn Clock>) -> Self {
        let random = SeededEntropy::new(plan.seed);
        let state = State {
            plan,
            random,
            waiting: Vec::new(),
            changes: BTreeMap::new(),
            link_free_at: Duration::ZERO,
        };
        Self { start: clock.elapsed(), clock, state: Mutex::new(state) }
    }

    fn now(&self) -> Duration {
        self.clock.elapsed().saturating_sub(self.start)
    }

    pub(super) fn set_plan(&self, plan: FaultPlan) {
        let mut state = self.state.lock();
        state.random = SeededEntropy::new(plan.seed);
        state.plan = plan;
    }

    /// Decides the fate of a request.
    pub(super) fn draw(&self, verb: Verb, path: &Path, bytes: u64) -> Draw {
        let (now, class) = (self.now(), KeyClass::of(path));
        let mut state = self.state.lock();
        let (ahead, back, coin) = (state.share() / 2.0, state.share() / 2.0, state.share() < 0.5);
        let (latency, jitter) = (state.plan.latency / 2, state.plan.jitter);
        let mut draw = Draw {
            fault: None,
            delay: Duration::ZERO,
            before: latency + jitter.mul_f64(ahead),
            after: latency + jitter.mul_f64(back),
            transfer: state.transfer(now, bytes),
            coin,
        };
        if state.plan.is_out(now) {
            draw.fault = Some(if coin { Fault::Reset } else { Fault::Hang });
            return draw;
        }
        for rule in state.plan.rules.clone() {
            if rule.covers(verb, class) && state.share() < rule.chance {
                draw.fault = Some(rule.fault);
                draw.delay = rule.delay;
                return draw;
            }
        }
        draw
    }

    /// How long `bytes` more take on the link.
    pub(super) fn transfer(&self, bytes: u64) -> Duration {
        self.state.lock().transfer(self.now(), bytes)
    }

    /// Lets a write take effect after `delay`.
    pub(super) fn put_off(&self, write: Write, delay: Duration) {
        let due = self.now() + delay;
        self.state.lock().waiting.push((due, write));
    }

    /// The late writes whose time has come.
    pub(super) fn due(&self) -> Vec<Write> {
        let now = self.now();
        let mut state = self.state.lock();
        if state.waiting.is_empty() {
            return Vec::new();
        }
        let (mut due, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.waiting).into_iter().partition(|(due, _)| *due <= now);
        state.waiting = waiting;
        due.sort_by_key(|(due, _)| *due);
        due.into_iter().map(|(_, write)| write).collect()
    }

    pub(super) fn has_stale_lists(&self) -> bool {
        self.state.lock().plan.rules.iter().any(|rule| rule.fault == Fault::StaleList)
    }

    pub(super) fn note_put(&self, path: &Path) {
        self.note(path, None);
    }

    pub(super) fn note_delete(&self, path: &Path, meta: Option<ObjectMeta>) {
        self.note(path, meta);
    }

    fn note(&self, path: &Path, before: Option<ObjectMeta>) {
        if self.has_stale_lists() {
            self.state.lock().changes.insert(path.clone(), (self.now(), before));
        }
    }

    /// A listing as its draw has it.
    pub(super) fn bend_list(
        &self,
        draw: &Draw,
        prefix: Option<&Path>,
        mut found: Vec<ObjectMeta>,
    ) -> Vec<ObjectMeta> {
        match draw.fault {
            Some(Fault::StaleList) => {
                let since = self.now().saturating_sub(draw.delay);
                let state = self.state.lock();
                let recent = state.changes.iter().filter(|(_, (at, _))| *at >= since);
                for (path, (_, before)) in recent {
                    found.retain(|meta| meta.location != *path);
                    found.extend(before.clone().filter(|_| list::is_within(prefix, path)));
                }
                found.sort_by(|a, b| a.location.cmp(&b.location));
                found
            }
            Some(Fault::RepeatList) => {
                let twice = found.iter().enumerate();
                twice
                    .flat_map(|(n, meta)| std::iter::repeat_n(meta.clone(), 1 + usize::from(n % 2 == 0)))
                    .collect()
            }
            _ => found,
        }
    }
}
