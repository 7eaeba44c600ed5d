//! The one writer: its batches, its clock, its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use object_store::ObjectStore;
use slatedb::config::{CloseOptions, FlushOptions, FlushType, WriteOptions};
use slatedb::db_cache::DbCache;
use slatedb::{CloseReason, Db, WriteBatch};

use super::clock::EngineClock;
use super::paced::Pace;
use super::seeds::Seeds;
use super::store_day::StoreDay;
use super::upkeep::Upkeep;
use super::{DATABASE, PULSE, settings};
use crate::base::Clock;

/// A writer that wrote nothing for this long by the time of day, asleep perhaps, first looks whether it
/// has been taken over.
const LOOK_FIRST_AFTER_MS: i64 = 60 * 60 * 1000;

/// Why nothing is written any more, rather than waited for.
const SPOILED: &str =
    "there is no room for more tables, and one that cannot be read keeps them from being merged";

/// A database opened for writing.
pub(super) struct Writer {
    pub(super) db: Arc<Db>,
    upkeep: Upkeep,
    clock: Arc<dyn Clock>,
    /// Time of day of the last durable write.
    last_write_ms: AtomicI64,
    /// The number of the last durable write.
    sequence: AtomicU64,
    /// Batches are written one at a time, so that each flush carries one batch.
    turn: tokio::sync::Mutex<()>,
}

impl Writer {
    pub(super) async fn open(
        store: Arc<dyn ObjectStore>,
        cache: Arc<dyn DbCache>,
        clock: Arc<dyn Clock>,
        seeds: Seeds,
        (table_bytes, pace): (usize, Pace),
        day: Arc<StoreDay>,
    ) -> Result<Self, slatedb::Error> {
        let engine_clock = Arc::new(EngineClock::new(clock.clone()));
        let db = Db::builder(DATABASE, store.clone())
            .with_settings(settings::writer(table_bytes))
            .with_db_cache(cache, 0)
            .with_system_clock(engine_clock.clone())
            .with_seed(seeds.next())
            .build()
            .await?;
        let db = Arc::new(db);
        engine_clock.raise(latest_tick(&db).await?);
        let plain_clock = Arc::new(EngineClock::new(clock.clone()));
        let last_write_ms = AtomicI64::new(day_ms(&*clock));
        let clocks = (engine_clock, plain_clock);
        let upkeep = Upkeep::start(db.clone(), store, seeds, clocks, day, table_bytes, pace);
        let sequence = AtomicU64::new(db.status().durable_seq);
        Ok(Self { db, upkeep, clock, last_write_ms, sequence, turn: tokio::sync::Mutex::new(()) })
    }

    /// The number of the last durable write of this writer.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Relaxed)
    }

    pub(super) async fn write(&self, batch: WriteBatch) -> Result<(), slatedb::Error> {
        let _turn = self.turn.lock().await;
        if !self.upkeep.takes_tables() {
            return Err(slatedb::Error::data(SPOILED.to_owned()));
        }
        let now_ms = day_ms(&*self.clock);
        if now_ms.saturating_sub(self.last_write_ms.load(Ordering::Relaxed)) > LOOK_FIRST_AFTER_MS {
            self.db.refresh_manifest().await?;
        }
        self.db.write_with_options(batch, &WriteOptions::default()).await?;
        self.db.flush_with_options(FlushOptions { flush_type: FlushType::Wal }).await?;
        self.last_write_ms.store(now_ms, Ordering::Relaxed);
        self.sequence.store(self.db.status().durable_seq, Ordering::Relaxed);
        self.upkeep.committed();
        Ok(())
    }

    /// Writes the whole database anew.
    pub(super) async fn renew(&self) -> Result<(), slatedb::Error> {
        // So that there is something to flush, and with it the logs before are behind.
        let mut pulse = WriteBatch::new();
        pulse.put(PULSE, b"");
        self.write(pulse).await?;
        self.upkeep.renew().await
    }

    pub(super) async fn refuse_other_merges(&self) -> Result<(), slatedb::Error> {
        self.upkeep.refuse_other_merges().await
    }

    pub(super) async fn tidy(&self) {
        self.upkeep.tidy().await;
    }

    pub(super) async fn close(&self) -> Result<(), slatedb::Error> {
        let _turn = self.turn.lock().await;
        self.upkeep.stop().await;
        let is_open = self.db.status().close_reason.is_none();
        if is_open {
            self.upkeep.before_close().await;
        }
        // Without room for a table the logs stay.
        let flush_type = Some(if self.upkeep.takes_tables() { FlushType::MemTable } else { FlushType::Wal });
        let closed = self.db.close_with_options(CloseOptions::default().with_flush_type(flush_type)).await;
        // SlateDB closes a fenced database without complaint.
        if self.db.status().close_reason == Some(CloseReason::Fenced) {
            return Err(slatedb::Error::closed("fenced".to_owned(), CloseReason::Fenced));
        }
        closed
    }
}

/// The latest timestamp in the database: of its records, and of the names of its tables, which may be much
/// younger than what is in them. SlateDB closes itself when asked to write an earlier one.
async fn latest_tick(db: &Db) -> Result<i64, slatedb::Error> {
    let manifest = db.manifest();
    let tables = manifest.all_sst_views().map(|view| view.sst.id.value().timestamp_ms());
    let merged = manifest.last_compacted_l0_sst_id().map(|id| id.timestamp_ms());
    let named = tables.chain(merged).max().and_then(|ms| i64::try_from(ms).ok()).unwrap_or(i64::MIN);
    let in_tables = manifest.last_l0_clock_tick().max(named);
    if db.status().durable_seq <= manifest.last_l0_seq() {
        return Ok(in_tables);
    }
    let pulse = db.get_key_value(PULSE).await?;
    Ok(pulse.map_or(in_tables, |pulse| pulse.create_ts.max(in_tables)))
}

fn day_ms(clock: &dyn Clock) -> i64 {
    let now = clock.now();
    now.secs.saturating_mul(1000).saturating_add(i64::from(now.nanos / 1_000_000))
}
