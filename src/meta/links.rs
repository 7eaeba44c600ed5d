//! Walks along the newest commits: whether each is bound to the one before it, up to the superblock.
//!
//! Objects of the engine are bound to their names, and a name that two writers have used in two histories, because a
//! store has kept them apart, has two objects that open. The chain tells whether a state was made of one history.

use std::ops::Range;
use std::sync::Arc;

use crate::crypto::KeyRing;

use super::chain::{GENESIS, HISTORY_COMMITS, first_of, hash_in, link};
use super::engine::Engine;
use super::{History, Key, MetaError, Record, Superblock, decode};

/// Records that are read at once.
const PAGE: usize = 1024;

/// Checks the commits after `since`, a commit whose hash is known, or all that are not folded; up to what
/// `superblock` says is the last. Commits after `since` that are folded are passed over.
///
/// # Errors
/// [`MetaError::Inconsistent`] names the first commit that does not follow from the one before it; or records cannot
/// be read.
pub async fn walk(
    engine: &Engine,
    ring: &KeyRing,
    superblock: &Superblock,
    since: Option<(u64, [u8; 32])>,
) -> Result<(), MetaError> {
    let (mut last, mut hash) = match since {
        Some(since) => since,
        None => before_oldest(engine, ring).await?,
    };
    loop {
        let rows = page(engine, last.saturating_add(1)..superblock.commit.saturating_add(1), PAGE).await?;
        let count = rows.len();
        for (number, record) in rows {
            let Record::Commit(commit) = record else { return Err(broken(number)) };
            if number != last.saturating_add(1) {
                let passed = match since {
                    Some(_) => over_folded(engine, ring, (last, hash), number).await?,
                    None => None,
                };
                hash = passed.ok_or(broken(number))?;
            }
            if link(ring, &hash, number, &commit) != commit.hash {
                return Err(broken(number));
            }
            (last, hash) = (number, commit.hash);
        }
        if count < PAGE {
            break;
        }
    }
    match (last, hash) == (superblock.commit, superblock.head) {
        true => Ok(()),
        false => Err(broken(superblock.commit)),
    }
}

/// Whether the history that ends with `superblock`, and was walked along, has a commit of this number and hash.
///
/// # Errors
/// Records cannot be read.
pub async fn passes(
    engine: &Engine,
    ring: &KeyRing,
    superblock: &Superblock,
    (number, hash): (u64, [u8; 32]),
) -> Result<bool, MetaError> {
    if number == superblock.commit {
        return Ok(superblock.head == hash);
    }
    if number == 0 {
        return Ok(hash == GENESIS);
    }
    if let Some((_, Record::Commit(commit))) = page(engine, number..number.saturating_add(1), 1).await?.pop()
    {
        return Ok(commit.hash == hash);
    }
    let first = first_of(number);
    let history = history(engine, first).await?;
    Ok(history.and_then(|history| hash_in(ring, &history, first, number)) == Some(hash))
}

/// The hash before commit `number`, where all from `last` to there are folded: the folded ones lead on from `last`, and
/// to `number`.
async fn over_folded(
    engine: &Engine,
    ring: &KeyRing,
    (last, hash): (u64, [u8; 32]),
    number: u64,
) -> Result<Option<[u8; 32]>, MetaError> {
    if first_of(number) != number {
        return Ok(None);
    }
    let first = first_of(last.saturating_add(1));
    let Some(history) = history(engine, first).await? else { return Ok(None) };
    let leads_on = match last < first {
        true => history.before == hash,
        false => hash_in(ring, &history, first, last) == Some(hash),
    };
    if !leads_on {
        return Ok(None);
    }
    let first = number.saturating_sub(HISTORY_COMMITS);
    let history = self::history(engine, first).await?;
    Ok(history.and_then(|history| hash_in(ring, &history, first, number - 1)))
}

async fn history(engine: &Engine, first: u64) -> Result<Option<Arc<History>>, MetaError> {
    let key = Key::History(first);
    let Some(bytes) = engine.get(&key.encode()).await? else { return Ok(None) };
    match decode(&key, &bytes)? {
        Record::History(history) => Ok(Some(history)),
        _ => Ok(None),
    }
}

fn broken(number: u64) -> MetaError {
    let why = "it does not follow from the commit before it, as if two histories had been mixed";
    MetaError::Inconsistent { key: Key::Commit(number), why }
}

/// Number and hash of the commit before the oldest one that has a record of its own.
async fn before_oldest(engine: &Engine, ring: &KeyRing) -> Result<(u64, [u8; 32]), MetaError> {
    let oldest = page(engine, 0..u64::MAX, 1).await?.first().map_or(1, |(number, _)| *number);
    if oldest <= 1 {
        return Ok((0, GENESIS));
    }
    let first = first_of(oldest).saturating_sub(HISTORY_COMMITS);
    let history = history(engine, first).await?.ok_or(broken(oldest))?;
    let hash = hash_in(ring, &history, first, oldest - 1).ok_or(broken(oldest))?;
    Ok((oldest - 1, hash))
}

/// Commits of these numbers. A reader may be at a newer state already than the superblock that was read.
async fn page(engine: &Engine, numbers: Range<u64>, limit: usize) -> Result<Vec<(u64, Record)>, MetaError> {
    let (from, to) = (Key::Commit(numbers.start).encode(), Key::Commit(numbers.end).encode());
    let mut found = Vec::new();
    for (key, value) in engine.scan(from, to, limit).await? {
        if let Some(key @ Key::Commit(number)) = Key::decode(&key) {
            found.push((number, decode(&key, &value)?));
        }
    }
    Ok(found)
}
