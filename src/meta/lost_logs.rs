//! Logs that an admin has given up stay away: a store that had but withheld one could put it back, beneath what was
//! committed since, with a manifest from before.

use super::engine::Engine;
use super::{Key, MetaError};

/// Records that are read at once.
const PAGE: usize = 1024;

/// Makes sure that what `engine` has read came from no log that was given up.
///
/// # Errors
/// [`MetaError::Inconsistent`] names the first log that did; or records cannot be read.
pub async fn stay_away(engine: &Engine) -> Result<(), MetaError> {
    let (mut from, to) = (Key::LostLog(0).encode(), Key::LostLog(u64::MAX).encode());
    loop {
        let rows = engine.scan(from.clone(), to.clone(), PAGE).await?;
        let count = rows.len();
        for (key, _) in rows {
            if let Some(key @ Key::LostLog(number)) = Key::decode(&key)
                && engine.has_read_log(number)
            {
                let why = "an admin has given this log up, and the bucket shows it again";
                return Err(MetaError::Inconsistent { key, why });
            }
            from = [&key[..], &[0]].concat();
        }
        if count < PAGE {
            return Ok(());
        }
    }
}
