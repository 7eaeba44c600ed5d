//! What a mount says of itself beside its filesystem: the bucket, its price, memory, how long saving will take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::sys;
use crate::control::{Live, Subject};
use crate::fuse::Operations;
use crate::store::{Bucket, Meter, MeterSnapshot, PRICES_AS_OF, Prices};
use crate::vfs::{MemoryUsed, Vfs};
use crate::volume::Budget;
use crate::web::{Sample, Source, metrics};

/// Where the figures come from.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The bucket's counters.
    pub meter: Meter,
    /// What requests cost there, if that is known.
    pub prices: Option<Prices>,
    /// The limits of memory.
    pub budget: Budget,
    /// Where they are shown as a page.
    pub shown_at: Option<SocketAddr>,
}

impl Figures {
    /// Those of a mount of `bucket`.
    #[must_use]
    pub fn of(bucket: &Bucket, budget: Budget, shown_at: Option<SocketAddr>) -> Self {
        Self { meter: bucket.meter().clone(), prices: bucket.prices().copied(), budget, shown_at }
    }

    /// All of them, to be added to the status of `vfs`.
    #[must_use]
    pub fn all(&self, vfs: &Vfs) -> Map<String, Value> {
        let counted = self.meter.snapshot();
        let mut all = Map::new();
        all.insert("store".to_owned(), self.store(&counted));
        all.insert("cost".to_owned(), self.cost(&counted));
        all.insert("memory".to_owned(), memory(&vfs.memory(), &self.budget));
        let left = time_left(vfs.dirty_bytes(), &counted);
        all.insert("http".to_owned(), json!(self.shown_at));
        all.insert("time_left".to_owned(), json!(left.map(|left| left.as_secs_f64())));
        all
    }

    fn store(&self, counted: &MeterSnapshot) -> Value {
        json!({
            "requests": counted.requests(),
            "puts": counted.puts,
            "gets": counted.gets,
            "heads": counted.heads,
            "lists": counted.lists,
            "deletes": counted.deletes,
            "put_bytes": counted.put_bytes,
            "get_bytes": counted.get_bytes,
            "sending_bytes": counted.sending_bytes,
            "send_rate": counted.send_rate,
            "receive_rate": counted.receive_rate,
            "errors": counted.errors,
            "in_flight": counted.in_flight,
            "outage": counted.outage,
            "outage_age": counted.outage_since.map(|since| since.as_secs_f64()),
            "last_error": counted.last_error,
        })
    }

    fn cost(&self, counted: &MeterSnapshot) -> Value {
        let Some(prices) = &self.prices else { return Value::Null };
        let cost = prices.cost(counted);
        json!({
            "requests_usd": cost.requests,
            "egress_usd": cost.egress,
            "prices": prices.provider,
            "prices_of": PRICES_AS_OF,
            "source": prices.source,
        })
    }
}

/// The figures of a mount as they are shown over HTTP.
pub struct Page {
    /// The mount.
    pub live: Arc<Live>,
    /// Its filesystem.
    pub vfs: Arc<Vfs>,
    /// The figures beside it.
    pub figures: Arc<Figures>,
    /// What the kernel has asked.
    pub operations: Operations,
}

impl Source for Page {
    fn status(&self) -> Value {
        self.live.status()
    }

    fn metrics(&self) -> String {
        let Figures { meter, budget, .. } = &*self.figures;
        let (commits, fsyncs) = self.vfs.times();
        let parts = parts(&self.vfs.memory(), budget);
        metrics(&Sample {
            status: self.vfs.status(),
            commits,
            fsyncs,
            meter: meter.snapshot(),
            verbs: meter.verbs(),
            memory: parts.to_vec(),
            resident: sys::resident_bytes(),
            operations: self.operations.counts(),
        })
    }
}

/// How long it takes to send what is left, at the rate of the last half minute; unknown while nothing goes.
#[must_use]
pub fn time_left(left_bytes: u64, counted: &MeterSnapshot) -> Option<Duration> {
    if counted.outage.is_some() || counted.send_rate == 0 || left_bytes == 0 {
        return None;
    }
    Some(Duration::from_secs_f64(left_bytes as f64 / counted.send_rate as f64))
}

/// The parts of the budget: their names, what they hold if that is known, what they may hold.
fn parts(used: &MemoryUsed, budget: &Budget) -> [(&'static str, Option<u64>, u64); 8] {
    [
        ("blocks", Some(used.blocks), budget.blocks),
        ("dirty", Some(used.dirty), budget.dirty),
        ("uploads", Some(used.uploads), budget.uploads),
        ("reads", Some(used.reads), budget.reads),
        ("records", Some(used.records), budget.records),
        ("changes", Some(used.changes), budget.changes),
        ("tables", Some(used.tables), budget.tables),
        // The engine does not tell.
        ("table_writes", None, budget.table_writes),
    ]
}

fn memory(used: &MemoryUsed, budget: &Budget) -> Value {
    let parts = parts(used, budget);
    let all: u64 = parts.iter().filter_map(|(_, used, _)| *used).sum();
    let by_name: Map<String, Value> = parts
        .iter()
        .map(|(name, used, allowed)| ((*name).to_owned(), json!({ "used": used, "allowed": allowed })))
        .collect();
    json!({ "used": all, "allowed": budget.total(), "resident": sys::resident_bytes(), "parts": by_name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OutageKind;

    #[test]
    fn a_price_is_told_with_its_source_under_documented_names() {
        let budget = Budget::of(Budget::BYTES_DEFAULT, None, None).unwrap();
        let prices = Prices::of("gs://bucket/home", None);
        let figures = Figures { meter: Meter::default(), prices, budget, shown_at: None };
        let cost = figures.cost(&MeterSnapshot { puts: 2_000, ..MeterSnapshot::default() });
        assert_eq!(
            (&cost["requests_usd"], &cost["prices"]),
            (&json!(0.01), &json!("GCS Standard, one region"))
        );
        let page = include_str!("../../docs/OPERATING.md");
        let (_, rest) = page.split_once("| `mounts[].cost.").unwrap();
        let names = rest.split(" | ").next().unwrap();
        for name in cost.as_object().unwrap().keys() {
            assert!(names.contains(&format!("{name}`")), "{name} is not in docs/OPERATING.md");
        }
        let source = cost["source"].as_str().unwrap();
        assert!(page.contains(&format!("`{source}`")), "{source} is not in docs/OPERATING.md");
        assert_eq!(Figures::of(&Bucket::memory(), budget, None).cost(&MeterSnapshot::default()), Value::Null);
    }

    #[test]
    fn the_time_left_is_told_only_while_bytes_go() {
        let going = MeterSnapshot { send_rate: 1 << 20, ..MeterSnapshot::default() };
        assert_eq!(time_left(10 << 20, &going), Some(Duration::from_secs(10)));
        assert_eq!(time_left(0, &going), None);
        assert_eq!(time_left(1, &MeterSnapshot::default()), None);
        let away = MeterSnapshot { outage: Some(OutageKind::Unavailable), ..going };
        assert_eq!(time_left(10 << 20, &away), None);
    }
}
