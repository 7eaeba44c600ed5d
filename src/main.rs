//! The `coffer` command.

mod allocator;

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator::new();

/// How long the allocator keeps what was freed before the system gets it back. Its own default is a second: as much as
/// a stream turns over meanwhile would count as ours.
const PURGE_DELAY_MS: c_long = 10;
/// `mi_option_purge_delay` of mimalloc 3.
const OPTION_PURGE_DELAY: c_int = 15;

#[allow(unsafe_code)] // the signatures of mimalloc.h
unsafe extern "C" {
    fn mi_option_set_default(option: c_int, value: c_long);
}

#[allow(unsafe_code)] // it takes two numbers, and writes one into a table of its own unless the environment gave another
fn give_memory_back_soon() {
    unsafe { mi_option_set_default(OPTION_PURGE_DELAY, PURGE_DELAY_MS) }
}

fn main() -> std::process::ExitCode {
    give_memory_back_soon();
    coffer::cli::run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(unsafe_code)] // as above
    unsafe extern "C" {
        fn mi_option_get(option: c_int) -> c_long;
    }

    /// Options go by number: another version of the allocator may have others.
    #[test]
    #[allow(unsafe_code)] // it reads a number
    fn the_option_is_the_one_that_is_meant() {
        let delay = || unsafe { mi_option_get(OPTION_PURGE_DELAY) };
        assert_eq!(delay(), 1000, "mimalloc's own default");
        give_memory_back_soon();
        assert_eq!(delay(), PURGE_DELAY_MS);
    }
}
