//! How a writer ends whose last table cannot be written: nothing depends on that table.

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};

use super::*;

type StoreResult<T> = object_store::Result<T>;

/// A store that takes everything but tables.
#[derive(Debug)]
struct Tableless(InMemory);

impl fmt::Display for Tableless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tableless")
    }
}

#[async_trait]
impl ObjectStore for Tableless {
    async fn put_opts(&self, path: &Path, body: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        match path.as_ref().contains("/compacted/") {
            true => Err(object_store::Error::NotSupported { source: "no tables".into() }),
            false => self.0.put_opts(path, body, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        Err(object_store::Error::NotSupported { source: "no tables".into() })
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.0.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_last_table_that_cannot_be_written_takes_no_commit_with_it() {
    let store: Arc<dyn ObjectStore> = Arc::new(Tableless(InMemory::new()));
    let open = async |create| {
        let options = EngineOptions { create, ..EngineOptions::default() };
        Engine::open(Arc::clone(&store), EngineMode::Writer, options, TokioClock::started()).await.unwrap()
    };
    let mut expected = Vec::new();
    for session in 0..3_u8 {
        let engine = open(session == 0).await;
        assert_eq!(all(&engine).await.unwrap(), expected);
        for n in 0..5_u8 {
            let (key, value) = (vec![b'k', session, n], vec![n; 50]);
            engine.write_durable(put(&key, &value)).await.unwrap();
            expected.push((key, value));
        }
        engine.close().await.unwrap();
    }
    assert_eq!(all(&open(false).await).await.unwrap(), expected);
}
