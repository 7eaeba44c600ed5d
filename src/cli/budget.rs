//! What the user says about memory, as limits of a mount.

use super::error::{CommandError, CommandResult};
use super::units::show_size;
use crate::volume::{Budget, OpenOptions};

/// A segment of unsent blocks needs as much.
const DIRTY_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// Sets the limits in `options`: to what is asked for by name, and to a share each of the rest of `memory`. If that is
/// not given, what is asked for by name is in place of the default's part.
///
/// # Errors
/// When what is asked for is too little, or does not fit into `memory`.
pub fn apply(
    options: &mut OpenOptions,
    memory: Option<u64>,
    cache: Option<u64>,
    dirty: Option<u64>,
) -> CommandResult {
    if let Some(dirty) = dirty.filter(|dirty| *dirty < DIRTY_BYTES_MIN) {
        return Err(too_little("--dirty-limit", dirty, DIRTY_BYTES_MIN));
    }
    if let Some(memory) = memory.filter(|memory| *memory < Budget::BYTES_MIN) {
        return Err(too_little("--memory", memory, Budget::BYTES_MIN));
    }
    let budget = match memory {
        Some(memory) => Budget::of(memory, cache, dirty),
        None => Budget::of(Budget::BYTES_DEFAULT, None, None).map(|shares| Budget {
            blocks: cache.unwrap_or(shares.blocks),
            dirty: dirty.unwrap_or(shares.dirty),
            ..shares
        }),
    };
    let Some(budget) = budget else {
        return Err(CommandError::usage(format!(
            "--cache-size and --dirty-limit together leave nothing of --memory {}",
            show_size(memory.unwrap_or(Budget::BYTES_DEFAULT))
        )));
    };
    budget.apply(options);
    Ok(())
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

    #[test]
    fn what_is_asked_for_by_name_is_given() {
        for memory in [None, Some(256 * MIB)] {
            let mut options = OpenOptions::default();
            apply(&mut options, memory, Some(50 * MIB), Some(60 * MIB)).unwrap();
            assert_eq!((options.cache_bytes, options.vfs.dirty_bytes_max as u64), (50 * MIB, 60 * MIB));
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
        assert!(!refused(None, Some(4096 * MIB), None));
    }
}
