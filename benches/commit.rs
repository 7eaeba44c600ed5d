//! What the core costs without a mount: overlay operations, and the commit of 10,000 records.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use coffer::base::{Ino, OsEntropy, SystemClock};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewVolume};
use coffer::store::Bucket;
use coffer::vfs::{Caller, Vfs};
use coffer::volume::{self, NewVolumeSpec, OpenOptions};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };

fn mounted(runtime: &Runtime) -> Arc<Vfs> {
    runtime.block_on(async {
        let bucket = Bucket::memory();
        let factors = [Factor::KeyFile(Secret::new(b"the key file of the benchmark".to_vec()))];
        let header = NewVolume { compression: Compression::None, kdf_cost: KdfCost::Fixed { log_n: 15 } };
        let spec = NewVolumeSpec { header, quota_bytes: 0, owner: (0, 0) };
        let clock = Arc::new(SystemClock::default());
        volume::create(&bucket, &spec, &factors, Arc::new(OsEntropy), clock).await.expect("a new volume");
        let opened = volume::open(bucket, &factors, OpenOptions::default()).await.expect("a mount");
        opened.vfs
    })
}

fn operations(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let vfs = mounted(&runtime);
    let mut number = 0u64;
    criterion.bench_function("create, write 4 KiB, forget", |bench| {
        bench.iter(|| {
            number += 1;
            runtime.block_on(async {
                let name = format!("file{number}");
                let file =
                    vfs.create(&CALLER, Ino::ROOT, name.as_bytes(), 0o644, true).await.expect("created");
                vfs.write(file.ino, 0, &[7; 4096], true).await.expect("written");
                vfs.forget(file.ino, 1);
            });
        });
    });
    let file = runtime.block_on(vfs.create(&CALLER, Ino::ROOT, b"warm", 0o644, true)).expect("created");
    criterion.bench_function("getattr, warm", |bench| {
        bench.iter(|| runtime.block_on(vfs.getattr(file.ino)).expect("there"));
    });
    criterion.bench_function("lookup, warm", |bench| {
        bench.iter(|| {
            let found = runtime.block_on(vfs.lookup(Ino::ROOT, b"warm")).expect("there");
            vfs.forget(found.ino, 1);
        });
    });
}

fn commit(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let vfs = mounted(&runtime);
    let mut number = 0u64;
    let mut group = criterion.benchmark_group("commit");
    group.sample_size(10);
    group.bench_function("of 10,000 records", |bench| {
        bench.iter_batched(
            || {
                runtime.block_on(async {
                    for _ in 0..5_000 {
                        number += 1;
                        let name = format!("file{number}");
                        let made = vfs.create(&CALLER, Ino::ROOT, name.as_bytes(), 0o644, true).await;
                        vfs.forget(made.expect("created").ino, 1);
                    }
                });
            },
            |()| runtime.block_on(vfs.sync_all()).expect("committed"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, operations, commit);
criterion_main!(benches);
