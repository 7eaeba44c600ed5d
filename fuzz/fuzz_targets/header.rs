//! Volume headers: any bytes as a header, and any bytes as the body of a header that is rightly signed.
#![no_main]

use coffer::crypto::AdminKey;
use coffer::keys::{Factor, Secret, describe, unlock};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// A header around `body`, signed by a key that the body is made to name.
fn signed(body: &[u8]) -> Option<Vec<u8>> {
    let admin = AdminKey::from_seed(coffer::crypto::Key::from_bytes([7; 32]));
    let mut json: Value = serde_json::from_slice(body).ok()?;
    let digits: String = admin.public().iter().map(|byte| format!("{byte:02x}")).collect();
    *json.get_mut("admin_public_key")? = Value::String(digits);
    let body = serde_json::to_vec(&json).ok()?;
    let length = u32::try_from(body.len()).ok()?.to_be_bytes();
    let mut bytes = [b"COFFERH1".as_slice(), &length, &body, &[0; 32]].concat();
    let signature = admin.sign_header(&bytes);
    bytes.extend_from_slice(&signature);
    Some(bytes)
}

fuzz_target!(|data: &[u8]| {
    // A key file, because a passphrase would be stretched.
    let factors = [Factor::KeyFile(Secret::copy_of(b"a key file"))];
    let _ = unlock(data, &factors);
    let body = data.strip_prefix(b"COFFERH1").and_then(|rest| rest.get(4..)).unwrap_or(data);
    if let Some(bytes) = signed(body) {
        let described = describe(&bytes);
        assert!(unlock(&bytes, &factors).is_err(), "nobody has made this header");
        if let Ok(header) = described {
            assert!(header.slots.len() <= 32 && !header.slots.is_empty());
        }
    }
});
