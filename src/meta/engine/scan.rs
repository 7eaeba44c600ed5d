//! Records in order.

use bytes::Bytes;
use slatedb::config::ScanOptions;
use slatedb::{Db, DbIterator};

use super::PULSE;

/// Records of a scan are assumed to be about this long when deciding how much to read at once.
const SCAN_RECORD_BYTES: usize = 128;
/// Most that a scan reads ahead.
const SCAN_AHEAD_BYTES_MAX: usize = 256 * 1024;

/// What is scanned.
pub(super) enum Source<'a> {
    Writer(&'a Db),
    Reader(&'a slatedb::DbReader),
}

/// Up to `limit` records from `from` to `to`, without the one that is ours.
pub(super) async fn scan(
    source: Source<'_>,
    from: &[u8],
    to: &[u8],
    limit: usize,
) -> Result<Vec<(Bytes, Bytes)>, slatedb::Error> {
    let ahead = limit.saturating_mul(SCAN_RECORD_BYTES).min(SCAN_AHEAD_BYTES_MAX);
    let options = ScanOptions::new().with_read_ahead_bytes(ahead.max(1)).with_cache_blocks(true);
    let range = from.to_vec()..to.to_vec();
    let mut records: DbIterator = match source {
        Source::Writer(db) => db.scan_with_options(range, &options).await?,
        Source::Reader(db) => db.scan_with_options(range, &options).await?,
    };
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(record) = records.next().await?
    {
        if record.key != PULSE {
            found.push((record.key, record.value));
        }
    }
    Ok(found)
}
