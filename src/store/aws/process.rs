//! Credentials from a program of the user's: `credential_process`.
//!
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::{Answer, Failure, from_json};

/// Longest that the program may take: some ask a person.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most that it may say.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;
const ORIGIN: &str = "credential_process";

/// Runs `command` in a shell, as AWS's own tools do. What it says beside its answer is not kept: it may be a secret.
pub(super) async fn run(command: &str) -> Result<Answer, Failure> {
    let failed = |why: String| Failure::Unreachable(format!("{ORIGIN} {why}"));
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = shell.spawn().map_err(|error| failed(format!("cannot be started: {error}")))?;
    let stdout = child.stdout.take();
    let child = Arc::new(Mutex::new(child));
    let killer = Killer(Arc::clone(&child));
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        let read = stdout.map(|stdout| stdout.take(OUTPUT_BYTES_MAX).read_to_end(&mut text));
        let status = child.lock().wait();
        (read.transpose().is_ok(), text, status)
    });
    let (is_read, text, status) = tokio::time::timeout(PATIENCE, reading)
        .await
        .map_err(|_| failed(format!("did not answer within {} s", PATIENCE.as_secs())))?
        .map_err(|_| failed("was cut off".to_owned()))?;
    drop(killer);
    match status {
        Ok(status) if status.success() && is_read => read(&text),
        Ok(status) => Err(failed(format!("ended with {status}"))),
        Err(error) => Err(failed(format!("cannot be waited for: {error}"))),
    }
}

fn read(text: &[u8]) -> Result<Answer, Failure> {
    // The reader's own words would quote what it found.
    let json: Value =
        serde_json::from_slice(text).map_err(|_| Failure::Refused(format!("{ORIGIN} did not write JSON")))?;
    match json.get("Version").and_then(Value::as_u64) {
        Some(1) => from_json(&json, "SessionToken", ORIGIN),
        _ => Err(Failure::Refused(format!("{ORIGIN} wrote another version than 1"))),
    }
}

/// Ends the program if nobody waits for it any more.
struct Killer(Arc<Mutex<Child>>);

impl Drop for Killer {
    fn drop(&mut self) {
        // Whoever reads holds the lock only once the output has ended.
        if let Some(mut child) = self.0.try_lock() {
            let _ = child.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_program_writes_is_read_and_never_repeated() {
        let whole = r#"echo '{"Version":1,"AccessKeyId":"A","SecretAccessKey":"hunter2","Expiration":"2030-01-01T00:00:00Z"}'"#;
        let answer = run(whole).await.map_err(|_| "failed").unwrap();
        assert_eq!((answer.credential.key_id.as_str(), answer.credential.token), ("A", None));
        assert!(answer.expires.is_some());
        for wrong in [
            "echo hunter2",
            "echo hunter2 >&2; exit 3",
            r#"echo '{"Version":2,"AccessKeyId":"hunter2"}'"#,
            r#"echo '{"Version":1,"AccessKeyId":"A","SecretAccessKey":"","SessionToken":"hunter2"}'"#,
            r#"printf '{"Version":1,"AccessKeyId":"A","SecretAccessKey":"s","SessionToken":"hunter2\\n"}'"#,
            r#"echo '{"Version":1,"AccessKeyId":"A","SecretAccessKey":"s","Expiration":"hunter2"}'"#,
        ] {
            let failure = run(wrong).await.err().unwrap();
            assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
        }
    }
}
