//! Opens the records as their only writer: what the writer before began adds nothing any more.

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::meta::Superblock;
use crate::meta::engine::{Engine, EngineError};

use super::trust::Memory;
use super::{VolumeError, holder};

/// How often the records are opened anew because the writer before has just ended a merge.
const OPENINGS_MAX: usize = 3;

/// Opens the records by `open`, for writing. If somebody else holds the volume by what was `seen`, a merge of theirs may end
/// yet: it is waited for until none can.
pub(super) async fn opened_alone<'a>(
    seen: &Superblock,
    memory: &Memory,
    open: impl Fn() -> BoxFuture<'a, Result<Engine, EngineError>>,
) -> Result<Engine, VolumeError> {
    let sessions = memory.local().map_or(Ok(Vec::new()), |local| local.sessions())?;
    let is_held = seen.holder.as_ref().is_some_and(|held| !holder::is_gone(held, memory.device, &sessions));
    let mut openings = 1;
    loop {
        let opened = async {
            let engine = open().await?;
            if is_held {
                engine.refuse_other_merges().boxed().await?;
            }
            Ok(engine)
        };
        match opened.await {
            Ok(engine) => return Ok(engine),
            // What it has added is judged with the rest when the records are opened again.
            Err(EngineError::Damaged(why)) if is_held && openings < OPENINGS_MAX => {
                tracing::warn!(why, "the writer before has changed the records since; opening them again");
                openings += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
