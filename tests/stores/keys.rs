//! The names that objects have in the bucket, taken from a volume that was used.

use std::sync::Arc;

use coffer::base::OsEntropy;
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewVolume};
use coffer::store::Bucket;
use coffer::vault::Vault;
use coffer::volume::{self, NewVolumeSpec};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

/// Longest name below the prefix that Coffer counts on; the prefix may have the rest of 1,024 bytes.
/// (docs/OPERATING.md, "Clouds")
const KEY_BYTES_MAX: usize = 256;

/// What the engine calls its objects, with the longest numbers.
const OF_THE_ENGINE: [&str; 6] = [
    "db/wal/18446744073709551615.sst",
    "db/compacted/7ZZZZZZZZZZZZZZZZZZZZZZZZZ.sst",
    "db/manifest/18446744073709551615.manifest",
    "db/compactions/18446744073709551615.compactions",
    "db/gc/manifest.boundary",
    "db/gc/compactions.boundary",
];

/// One name of every shape there is.
pub(crate) async fn of_every_shape() -> Vec<String> {
    let bucket = Bucket::memory();
    let header = NewVolume { compression: Compression::None, kdf_cost: KdfCost::Fixed { log_n: 15 } };
    let spec = NewVolumeSpec { header, quota_bytes: 0, owner: (0, 0) };
    let factors = [Factor::KeyFile(Secret::new(b"the key file of the tests of stores".to_vec()))];
    let clock = Arc::new(coffer::base::SystemClock::default());
    volume::create(&bucket, &spec, &factors, Arc::new(OsEntropy), clock).await.unwrap();
    let unlocked = volume::unlock(&bucket, &factors).await.unwrap();
    let vault = Vault::new(bucket.clone(), Arc::new(unlocked.ring), Arc::new(OsEntropy));
    let store = vault.meta_store(1 << 20);
    for name in OF_THE_ENGINE {
        store.put(&Path::from(name), "x".into()).await.unwrap();
    }
    let segment = coffer::base::SegmentId([0xA5; 16]);
    vault.put_segment(segment, "a segment".into()).await.unwrap();
    let listing = bucket.objects.list(None).map_ok(|entry| entry.location.to_string());
    let names: Vec<String> = listing.try_collect().await.unwrap();
    for start in ["header/", "m/", "d/", "probe/"] {
        assert!(names.iter().any(|name| name.starts_with(start)), "no {start} in {names:?}");
    }
    names
}

/// A name as long as Coffer counts on, in parts no longer than a file's name.
pub(crate) fn longest() -> String {
    format!("m/{}/{}", "0".repeat(100), "1".repeat(KEY_BYTES_MAX - 103))
}

#[test]
fn no_name_is_longer_than_what_every_store_takes_below_the_longest_prefix() {
    crate::backends::run(async {
        let names = of_every_shape().await;
        let most = names.iter().map(String::len).max().unwrap();
        assert!(most <= KEY_BYTES_MAX, "{most} bytes in {names:#?}");
        assert!(most > 100, "the longest names are not among them: {names:#?}");
        for name in &names {
            // Azure and Google forbid some; file systems end a name at 255 bytes, Azure a path at 254 parts.
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'/'),
                "{name}"
            );
            assert!(name.split('/').all(|part| !part.is_empty() && part.len() <= 255), "{name}");
        }
    });
}

#[test]
fn a_prefix_that_would_make_names_too_long_is_refused() {
    let options = coffer::store::StoreOptions::default();
    for scheme in ["s3", "az", "gs"] {
        let long = format!("{scheme}://bucket/{}", "p".repeat(1024 - KEY_BYTES_MAX));
        let error = coffer::store::open(&long, &options).unwrap_err().to_string();
        assert!(error.contains("longer than 767 bytes"), "{error}");
    }
}
