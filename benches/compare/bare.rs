//! The store alone: the same bytes in objects of 8 MiB through `object_store`, at the parallelism that is fastest.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStoreExt, PutPayload};

use super::ground::{Ground, seconds};

/// What Coffer makes of a stream, too.
pub(crate) const OBJECT_BYTES: usize = 8 << 20;
const PARALLEL: [usize; 4] = [4, 8, 16, 32];

/// A client of the store, at the parallelism that suits it.
pub(crate) struct Bare {
    store: Arc<AmazonS3>,
    runtime: tokio::runtime::Runtime,
    parallel: usize,
    objects: usize,
    body: Bytes,
}

impl Bare {
    /// For `bytes` at a time. Tries each parallelism once and keeps the fastest at writing.
    pub(crate) fn new(ground: &Ground, bytes: usize) -> Self {
        let mut builder = AmazonS3Builder::new().with_bucket_name("coffer").with_endpoint(ground.endpoint());
        for (name, value) in &ground.server.env {
            match *name {
                "AWS_ACCESS_KEY_ID" => builder = builder.with_access_key_id(value),
                "AWS_SECRET_ACCESS_KEY" => builder = builder.with_secret_access_key(value),
                "AWS_REGION" => builder = builder.with_region(value),
                _ => {}
            }
        }
        let options = ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_secs(300));
        let store = Arc::new(builder.with_client_options(options).build().expect("a client"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let mut noise = vec![0; OBJECT_BYTES];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for word in noise.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let objects = bytes.div_ceil(OBJECT_BYTES).max(1);
        let mut bare = Self { store, runtime, parallel: PARALLEL[0], objects, body: noise.into() };
        let tried = PARALLEL.map(|parallel| {
            bare.parallel = parallel;
            (bare.put(), parallel)
        });
        let fastest = tried.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
        bare.parallel = fastest.map_or(PARALLEL[0], |(_, parallel)| parallel);
        bare
    }

    /// Seconds for writing all objects.
    pub(crate) fn put(&self) -> f64 {
        let put = |number: usize| {
            let (store, body) = (Arc::clone(&self.store), self.body.clone());
            async move {
                store.put(&name(number), PutPayload::from_bytes(body)).await.expect("a PUT");
            }
        };
        seconds(|| self.each(put))
    }

    /// Seconds for reading all objects.
    pub(crate) fn get(&self) -> f64 {
        let get = |number: usize| {
            let store = Arc::clone(&self.store);
            async move {
                let got = store.get(&name(number)).await.expect("a GET");
                let mut body = got.into_stream();
                while let Some(bytes) = body.next().await {
                    std::hint::black_box(bytes.expect("a body"));
                }
            }
        };
        seconds(|| self.each(get))
    }

    /// Seconds for reading `count` ranges of `bytes` from all over the objects, `parallel` at a time.
    pub(crate) fn get_ranges(&self, count: usize, bytes: usize, parallel: usize) -> f64 {
        let places = OBJECT_BYTES / bytes;
        let get = |number: usize| {
            // A step that is odd reaches every place of every object.
            let place = number * 4097 % (self.objects * places);
            let start = (place % places * bytes) as u64;
            let store = Arc::clone(&self.store);
            async move {
                let range = start..start + bytes as u64;
                std::hint::black_box(store.get_range(&name(place / places), range).await.expect("a GET"));
            }
        };
        let all = futures::stream::iter((0..count).map(get)).buffer_unordered(parallel);
        seconds(|| self.runtime.block_on(all.collect::<()>()))
    }

    /// Seconds for one PUT of `bytes`.
    pub(crate) fn one_put(&self, bytes: usize) -> f64 {
        let payload = PutPayload::from_bytes(self.body.slice(..bytes));
        let put = async { self.store.put(&Path::from("bare/one"), payload).await.expect("a PUT") };
        seconds(|| {
            self.runtime.block_on(put);
        })
    }

    fn each<F: Future<Output = ()> + Send>(&self, work: impl Fn(usize) -> F) {
        self.runtime.block_on(
            futures::stream::iter((0..self.objects).map(work))
                .buffer_unordered(self.parallel)
                .collect::<()>(),
        );
    }
}

fn name(number: usize) -> Path {
    Path::from(format!("bare/{number}"))
}
