//! Divides the memory that a mount may use among its caches and queues.

use super::error::{CommandError, CommandResult};
use super::units::show_size;
use crate::volume::OpenOptions;

/// Less than this cannot keep a mount going.
const MEMORY_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// A read-ahead window is worth nothing below this, and a segment needs as much.
const PART_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// Sets the limits in `options`: to a share each of `memory`, if given, then to what is asked for by name.
///
/// # Errors
/// When what is asked for is too little, or does not fit into `memory`.
pub fn apply(
    options: &mut OpenOptions,
    memory: Option<u64>,
    cache: Option<u64>,
    dirty: Option<u64>,
) -> CommandResult {
    if let Some(dirty) = dirty.filter(|dirty| *dirty < PART_BYTES_MIN) {
        return Err(too_little("--dirty-limit", dirty, PART_BYTES_MIN));
    }
    if let Some(memory) = memory {
        if memory < MEMORY_BYTES_MIN {
            return Err(too_little("--memory", memory, MEMORY_BYTES_MIN));
        }
        // Uploads under way hold about an eighth on top of what is counted here.
        let total = memory - memory / 8;
        let named = cache.unwrap_or(0).saturating_add(dirty.unwrap_or(0));
        if named.saturating_add(total / 8) > total {
            return Err(CommandError::usage(format!(
                "--cache-size and --dirty-limit together leave nothing of --memory {}",
                show_size(memory)
            )));
        }
        let shares = Shares::of(total - named, cache.is_none(), dirty.is_none());
        options.cache_bytes = shares.part(4).max(1);
        options.vfs.dirty_bytes_max = to_usize(shares.part(4).max(PART_BYTES_MIN));
        options.read_buffer_bytes = shares.part(2).max(PART_BYTES_MIN);
        options.table_cache_bytes = shares.part(1);
        options.vfs.record_cache_bytes = to_usize(shares.part(1));
    }
    options.cache_bytes = cache.unwrap_or(options.cache_bytes);
    options.vfs.dirty_bytes_max = dirty.map_or(options.vfs.dirty_bytes_max, to_usize);
    Ok(())
}

struct Shares {
    bytes: u64,
    whole: u64,
}

impl Shares {
    fn of(bytes: u64, has_cache: bool, has_dirty: bool) -> Self {
        Self { bytes, whole: 4 + 4 * u64::from(has_cache) + 4 * u64::from(has_dirty) }
    }

    const fn part(&self, share: u64) -> u64 {
        self.bytes / self.whole * share
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn too_little(flag: &str, given: u64, least: u64) -> CommandError {
    CommandError::usage(format!(
        "{flag} {} is too little; the least is {}",
        show_size(given),
        show_size(least)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn total(options: &OpenOptions) -> u64 {
        options.cache_bytes
            + options.read_buffer_bytes
            + options.table_cache_bytes
            + (options.vfs.dirty_bytes_max + options.vfs.record_cache_bytes) as u64
    }

    #[test]
    fn all_parts_together_stay_within_the_memory_given() {
        for memory in [64, 100, 256, 1024, 65_536] {
            for (cache, dirty) in [(None, None), (Some(8 * MIB), None), (None, Some(16 * MIB))] {
                let mut options = OpenOptions::default();
                apply(&mut options, Some(memory * MIB), cache, dirty).unwrap();
                assert!(total(&options) <= memory * MIB, "{memory} MiB: {}", total(&options));
                assert!(cache.is_none_or(|cache| cache == options.cache_bytes));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused =
            |memory, cache, dirty| apply(&mut OpenOptions::default(), memory, cache, dirty).is_err();
        assert!(refused(Some(MIB), None, None));
        assert!(refused(Some(100 * MIB), Some(90 * MIB), None));
        assert!(refused(None, None, Some(MIB)));
        assert!(!refused(None, Some(0), None));
    }
}
