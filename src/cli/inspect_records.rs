//! `coffer inspect --records`: every live record as it is stored, for readers other than Coffer.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use data_encoding::HEXLOWER;

use super::error::{CommandError, CommandResult, stdout_error};
use super::exit::Exit;
use super::explain;
use crate::base::SystemClock;
use crate::keys::Factor;
use crate::meta::Key;
use crate::meta::engine::{Engine, EngineError, EngineMode, EngineOptions};
use crate::vault::Vault;
use crate::volume::VolumeError;

/// Memory for blocks of tables.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Records fetched at once; a record is at most 128 KiB.
const PAGE_COUNT: usize = 128;

/// Prints the key and the value of each record in hexadecimal, a line each, in the order of the keys. Neither is decoded.
///
/// # Errors
/// The records cannot be read, a commit came in between, or standard output is closed.
pub async fn print(vault: &Vault, factors: &[Factor]) -> CommandResult {
    let told = |error: EngineError| explain::volume(&VolumeError::from(error), factors);
    let options = EngineOptions {
        cache_bytes: CACHE_BYTES / 2,
        read_timeout: vault.bucket().read_timeout(),
        meter: Some(vault.bucket().meter().clone()),
        ..EngineOptions::default()
    };
    let store = vault.meta_store(CACHE_BYTES / 2);
    let engine = Engine::open(store, EngineMode::Reader, options, Arc::new(SystemClock::default()));
    let engine = engine.await.map_err(told)?;
    let result = print_all(&engine, told).await;
    if let Err(error) = engine.close().await {
        tracing::debug!(%error, "closing after reading the records");
    }
    result
}

async fn print_all(engine: &Engine, told: impl Fn(EngineError) -> CommandError) -> CommandResult {
    let superblock = Key::Super.encode();
    let before = engine.get(&superblock).await.map_err(&told)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut from = vec![0];
    loop {
        let page = engine.scan(from, vec![0xFF; 64], PAGE_COUNT).await.map_err(&told)?;
        for (key, value) in &page {
            let line = writeln!(out, "{} {}", HEXLOWER.encode(key), HEXLOWER.encode(value));
            line.map_err(|e| stdout_error(&e))?;
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE_COUNT => from = [key, &[0][..]].concat(),
            _ => break,
        }
    }
    out.flush().map_err(|e| stdout_error(&e))?;
    // Every commit changes it, and a reader only ever goes forward: so the pages are of one commit.
    match engine.get(&superblock).await.map_err(&told)? == before {
        true => Ok(()),
        false => Err(CommandError::new(Exit::Failure, "a commit came in between").hint("run it again")),
    }
}
