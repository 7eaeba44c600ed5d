//! One mount of the volume under test, on a runtime of its own that can be dropped at any point.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coffer::base::{Entropy, FileKind, Ino, ManualClock, SeededEntropy};
use coffer::crypto::KdfCost;
use coffer::crypto::Secret;
use coffer::keys::{Factor, NewVolume};
use coffer::store::Bucket;
use coffer::vfs::{Attr, Vfs, VfsError, VfsOptions};
use coffer::volume::{self, NewVolumeSpec, OpenOptions, Opened};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::runtime::Runtime;

use crate::reference::{Image, Shape};

/// The bucket, and all that survives a crash.
pub struct World {
    store: Arc<dyn ObjectStore>,
    entropy: Arc<dyn Entropy>,
    clock: Arc<ManualClock>,
    key: Vec<u8>,
    pub options: VfsOptions,
    pub cache_bytes: u64,
}

/// A mount.
pub struct Mounted {
    pub runtime: Runtime,
    opened: Option<Opened>,
    clock: Arc<ManualClock>,
}

impl World {
    pub fn new(seed: u64, options: VfsOptions, cache_bytes: u64) -> Self {
        let world = Self {
            store: Arc::new(InMemory::new()),
            entropy: Arc::new(SeededEntropy::new(seed)),
            clock: Arc::new(ManualClock::new(1_700_000_000_000_000_000)),
            key: b"the key file of the model test".to_vec(),
            options,
            cache_bytes,
        };
        let spec = NewVolumeSpec {
            header: NewVolume {
                compression: coffer::keys::Compression::None,
                kdf_cost: KdfCost::Fixed { log_n: 15 },
            },
            quota_bytes: 0,
            owner: (0, 0),
        };
        let bucket = Bucket::from_store(Arc::clone(&world.store));
        let (entropy, clock) = (Arc::clone(&world.entropy), Arc::clone(&world.clock));
        runtime().block_on(volume::create(&bucket, &spec, &world.factors(), entropy, clock)).unwrap();
        world
    }

    fn factors(&self) -> Vec<Factor> {
        vec![Factor::KeyFile(Secret::new(self.key.clone()))]
    }

    /// Mounts the volume, taking over from whoever holds it.
    pub fn mount(&self) -> Mounted {
        let options = OpenOptions {
            takeover: true,
            cache_bytes: self.cache_bytes,
            vfs: self.options.clone(),
            clock: Arc::clone(&self.clock) as _,
            entropy: Arc::clone(&self.entropy),
            ..OpenOptions::default()
        };
        let runtime = runtime();
        let bucket = Bucket::from_store(Arc::clone(&self.store));
        let opened = runtime.block_on(volume::open(bucket, &self.factors(), options)).unwrap();
        Mounted { runtime, opened: Some(opened), clock: Arc::clone(&self.clock) }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

impl Mounted {
    pub fn vfs(&self) -> Arc<Vfs> {
        Arc::clone(&self.opened.as_ref().unwrap().vfs)
    }

    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Ends the mount in order.
    pub fn unmount(mut self) {
        let opened = self.opened.take().unwrap();
        self.runtime.block_on(opened.close()).unwrap();
        self.runtime.shutdown_background();
    }

    /// Ends the mount wherever its tasks stand.
    pub fn crash(self) {
        self.runtime.shutdown_background();
    }

    /// Lets so much time pass that dead segments may go, and leftovers now and then.
    pub fn wait_for_grace(&self) {
        self.clock.advance(Duration::from_secs(9 * 3600));
    }

    /// What `stat` tells of every file, times and blocks included, while no commit is under way: what a
    /// commit takes up again counts twice until it is done.
    pub fn details(&self) -> Vec<Attr> {
        self.run(async {
            let vfs = self.vfs();
            let resting = || Some(vfs.status()).filter(|now| !now.is_committing).map(|now| now.commit);
            loop {
                let (before, details) = (resting(), details(&vfs).await);
                if before.is_some() && resting() == before {
                    return details;
                }
                tokio::task::yield_now().await;
            }
        })
    }

    /// The whole tree, read through the filesystem.
    pub fn image(&self) -> Image {
        self.run(image(&self.vfs())).unwrap()
    }
}

async fn image(vfs: &Vfs) -> Result<Image, VfsError> {
    let mut image = Image::new();
    let mut queue = vec![(Vec::new(), Ino::ROOT)];
    while let Some((path, ino)) = queue.pop() {
        let attr = vfs.getattr(ino).await?;
        let mut data = Vec::new();
        match attr.kind {
            FileKind::Directory => {
                let mut cookie = 0;
                loop {
                    let entries = vfs.readdir(ino, cookie, 3).await?;
                    let Some(last) = entries.last() else { break };
                    cookie = last.next;
                    for entry in entries.iter().filter(|entry| !matches!(&entry.name[..], b"." | b"..")) {
                        queue.push(([&path[..], b"/", &entry.name[..]].concat(), entry.ino));
                    }
                }
            }
            FileKind::Symlink => data = vfs.readlink(ino).await?,
            FileKind::Regular => {
                let handle = vfs.open(ino, false, false).await?;
                data = vfs.read(handle, ino, 0, attr.size as usize + 1).await?;
                vfs.release(handle);
                assert_eq!(data.len() as u64, attr.size, "size and contents of {ino} differ");
            }
            _ => {}
        }
        let mut xattrs = BTreeMap::new();
        let names = vfs.list_xattr(ino).await?;
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            xattrs.insert(name.to_vec(), vfs.get_xattr(ino, name).await?);
        }
        let (kind, perm, uid, nlink) = (attr.kind, attr.perm, attr.uid, attr.nlink);
        image.insert(path, Shape { kind, perm, uid, nlink, data, xattrs });
    }
    Ok(image)
}

async fn details(vfs: &Vfs) -> Vec<Attr> {
    let (mut all, mut queue) = (Vec::new(), vec![Ino::ROOT]);
    while let Some(ino) = queue.pop() {
        let attr = vfs.getattr(ino).await.unwrap();
        all.push(attr);
        if attr.kind == FileKind::Directory {
            let entries = vfs.readdir(ino, 0, 10_000).await.unwrap();
            let entries = entries.into_iter().filter(|entry| !matches!(&entry.name[..], b"." | b".."));
            queue.extend(entries.map(|entry| entry.ino));
        }
    }
    all
}
