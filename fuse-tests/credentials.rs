//! A mount goes on with other credentials when its own are replaced, and says none of them.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::command::wait_until;
use crate::support::relay::{Answer, Relay, forward};
use crate::support::servers::{self, S3_KEY, S3_NEXT_KEY, S3_NEXT_SECRET, S3_SECRET};
use crate::support::volume::Volume;

#[test]
fn a_mount_outlives_its_credentials() {
    let mut server = servers::seaweedfs();
    let (backend, is_changed) = (server.address(), Arc::new(AtomicBool::new(false)));
    let changed = Arc::clone(&is_changed);
    // The server knows both keys; whoever stands before it lets only one in.
    let relay = Relay::start(move |request| {
        let key = if changed.load(Ordering::SeqCst) { S3_NEXT_KEY } else { S3_KEY };
        let signed = request.header("authorization").unwrap_or_default();
        match signed.contains(&format!("Credential={key}/")) {
            true => forward(backend, &request).unwrap_or_else(|_| Answer::new(502, "")),
            false => Answer::new(403, "<Error><Code>InvalidAccessKeyId</Code></Error>"),
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let gives = |key: &str, secret: &str| {
        let soon = chrono::Utc::now() + Duration::from_secs(200);
        let ends = soon.to_rfc3339();
        let answer =
            json!({ "Version": 1, "AccessKeyId": key, "SecretAccessKey": secret, "Expiration": ends });
        fs::write(file("next"), answer.to_string()).unwrap();
        fs::rename(file("next"), file("answer")).unwrap();
    };
    gives(S3_KEY, S3_SECRET);
    let config = format!("[profile rotating]\ncredential_process = cat {}\n", file("answer").display());
    fs::write(file("config"), config).unwrap();
    server.env = vec![
        ("AWS_CONFIG_FILE", file("config").to_string_lossy().into_owned()),
        ("AWS_PROFILE", "rotating".to_owned()),
        ("AWS_ENDPOINT_URL", relay.url()),
    ];
    let volume = Volume::on(&server);
    let mount = volume.mount_spec().args(&["-vvv"]).mount();
    fs::write(mount.path("before"), "written with the first key").unwrap();
    mount.sync();

    is_changed.store(true, Ordering::SeqCst);
    fs::write(mount.path("during"), "written with no key that holds").unwrap();
    wait_until("the mount is refused", Duration::from_secs(60), || {
        mount.status()["mounts"][0]["store"]["outage"] == "denied"
    });
    gives(S3_NEXT_KEY, S3_NEXT_SECRET);
    mount.sync();
    fs::write(mount.path("after"), "written with the second key").unwrap();
    mount.sync();
    let log = fs::read_to_string(&mount.log).unwrap();
    assert!(log.contains("DEBUG"), "{log}");
    for secret in [S3_SECRET, S3_NEXT_SECRET] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    mount.unmount();
    let mount = volume.mount();
    for name in ["before", "during", "after"] {
        assert!(fs::read_to_string(mount.path(name)).unwrap().starts_with("written with"), "{name}");
    }
    mount.unmount();
}
