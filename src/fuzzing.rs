//! What the targets in `fuzz/` need of the rooms beside their public parts. There only with `--cfg fuzzing` and where the
//! crate is built for development, so that the tests can build the targets.

pub use crate::cli::status::fuzz_status as status;
pub use crate::control::fuzz_reply as control_reply;
pub use crate::data::segment::fuzzing as segment;
pub use crate::store::fuzz_url as url;
pub use crate::volume::fuzzing as volume;
