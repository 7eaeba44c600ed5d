//! What is said over the control socket, and the entries of running mounts.
#![no_main]

use coffer::control::{MountEntry, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        let line = serde_json::to_vec(&request).unwrap();
        assert_eq!(serde_json::from_slice::<Request>(&line).unwrap(), request);
    }
    if let Ok(entry) = serde_json::from_slice::<MountEntry>(data) {
        let line = serde_json::to_vec(&entry).unwrap();
        assert_eq!(serde_json::from_slice::<MountEntry>(&line).unwrap(), entry);
    }
    coffer::fuzzing::control_reply(data);
    coffer::fuzzing::status(data);
});
