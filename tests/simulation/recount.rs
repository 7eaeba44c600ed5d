//! The records of a volume counted anew, for tests that have done random work to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coffer::base::{Clock, Entropy, FileKind, Ino, Run, SegmentId};
use coffer::data::segment::read_footer;
use coffer::keys::Factor;
use coffer::meta::engine::{Engine, EngineMode, EngineOptions};
use coffer::meta::{Body, Inode, Key, Record, decode};
use coffer::store::Bucket;
use coffer::vault::Vault;
use coffer::volume;
use object_store::path::Path;

const BLOCK: u64 = 65_536;
/// Blocks of a page of extents.
const PAGE: u64 = 1024;

/// All records as the last commit left them.
pub async fn records(
    bucket: &Bucket,
    factors: &[Factor],
    entropy: &Arc<dyn Entropy>,
    clock: &Arc<dyn Clock>,
) -> BTreeMap<Key, Record> {
    let unlocked = volume::unlock(bucket, factors).await.unwrap();
    let vault = Vault::new(bucket.clone(), Arc::new(unlocked.ring), Arc::clone(entropy));
    let (store, clock) = (vault.meta_store(1 << 20), Arc::clone(clock));
    let engine = Engine::open(store, EngineMode::Reader, EngineOptions::default(), clock).await.unwrap();
    let rows = engine.scan(vec![b'A'], vec![b'Z'], usize::MAX).await.unwrap();
    engine.close().await.unwrap();
    let decoded = rows.into_iter().map(|(key, value)| {
        let key = Key::decode(&key).unwrap();
        (key, decode(&key, &value).unwrap())
    });
    let records = decoded.collect();
    check_owners(&vault, &records).await;
    records
}

/// Cleaning moves a segment only if it finds all who refer to it: by the segment's footer, or by records of who came to share.
async fn check_owners(vault: &Vault, records: &BTreeMap<Key, Record>) {
    let mut referring: BTreeMap<SegmentId, Vec<(Ino, u64)>> = BTreeMap::new();
    let mut note = |ino: Ino, page: u64, run: &Run| {
        let indexes = run.places().map(|(index, _)| (ino, page * PAGE + u64::from(index)));
        referring.entry(run.segment).or_default().extend(indexes);
    };
    for (key, record) in records {
        match (key, record) {
            (Key::Inode(ino), Record::Inode(inode)) => {
                if let Body::Run(run) = &inode.body {
                    note(*ino, 0, run);
                }
            }
            (Key::Extents(ino, page), Record::Extents(extents)) => {
                extents.runs.runs().iter().for_each(|run| note(*ino, *page, run));
            }
            _ => {}
        }
    }
    for (id, blocks) in referring {
        let Some(Record::Segment(segment)) = records.get(&Key::Segment(id)) else { continue };
        // What is damaged is told elsewhere.
        let Ok(footer) = read_footer(vault, id, &segment.seal, segment.len.into()).await else { continue };
        let named: BTreeSet<(Ino, u64)> = footer.iter().map(|block| (block.ino, block.index.0)).collect();
        for (ino, index) in blocks {
            let is_known =
                named.contains(&(ino, index)) || records.contains_key(&Key::Reference(id, ino, index / PAGE));
            assert!(is_known, "nobody would find block {index} of {ino} in {id}");
        }
    }
}

/// The segments among objects of these names.
pub fn segments<'a>(names: impl Iterator<Item = &'a Path>) -> BTreeSet<SegmentId> {
    let segments = names.filter(|name| name.as_ref().starts_with("d/"));
    segments.map(|name| SegmentId::parse(name.filename().unwrap()).unwrap()).collect()
}

/// What the records say of a file's blocks, counted anew.
#[derive(Default)]
struct Counted {
    live: BTreeMap<SegmentId, u64>,
    inline: BTreeSet<(Ino, u64)>,
    pages: BTreeSet<(Ino, u64)>,
}

impl Counted {
    /// The plaintext bytes that the file stores.
    fn file(&mut self, records: &BTreeMap<Key, Record>, ino: Ino, inode: &Inode) -> u64 {
        let inline = |block| match &records[&Key::Inline(ino, block)] {
            Record::Inline(bytes) => bytes.len() as u64,
            _ => unreachable!(),
        };
        let mut plain = 0;
        let mut runs = Vec::new();
        match &inode.body {
            Body::Empty | Body::Link(_) => {}
            Body::Inline => {
                self.inline.insert((ino, 0));
                plain += inline(0);
            }
            Body::Run(run) => runs.push((0, run.clone())),
            Body::Pages => {
                for (key, record) in records.range(Key::Extents(ino, 0)..=Key::Extents(ino, u64::MAX)) {
                    let (Key::Extents(_, page), Record::Extents(extents)) = (key, record) else {
                        unreachable!()
                    };
                    self.pages.insert((ino, *page));
                    runs.extend(extents.runs.runs().iter().map(|run| (*page, run.clone())));
                    for block in &extents.inline {
                        let index = page * PAGE + u64::from(*block);
                        assert!(index * BLOCK < inode.size, "{ino}: a record lies beyond the end");
                        self.inline.insert((ino, index));
                        plain += inline(index);
                    }
                }
            }
        }
        for (page, run) in runs {
            *self.live.entry(run.segment).or_default() += run.sealed_bytes();
            for (index, place) in run.places() {
                assert!(
                    (page * PAGE + u64::from(index)) * BLOCK < inode.size,
                    "{ino}: a block lies beyond the end"
                );
                plain += u64::from(place.piece.plain);
            }
        }
        plain
    }
}

/// Every number in the records must be what it counts, and every record somebody's. Unless it `may_litter`, the
/// bucket holds no segment that no record knows of.
pub fn check(records: &BTreeMap<Key, Record>, objects: &BTreeSet<SegmentId>, may_litter: bool) {
    let Record::Super(superblock) = &records[&Key::Super] else { unreachable!() };
    let mut counted = Counted::default();
    let (mut files, mut bytes) = (0, 0);
    let (mut names, mut entries) = (BTreeMap::<Ino, u32>::new(), BTreeMap::<Ino, u64>::new());
    let (mut subdirs, mut xattrs) = (BTreeMap::<Ino, u32>::new(), BTreeMap::<Ino, u32>::new());
    for (key, record) in records {
        match (key, record) {
            (Key::Entry(dir, _), Record::Entry(entry)) => {
                assert!(records.contains_key(&Key::Inode(entry.ino)), "an entry of {dir} leads nowhere");
                *names.entry(entry.ino).or_default() += 1;
                *entries.entry(*dir).or_default() += 1;
                *subdirs.entry(*dir).or_default() += u32::from(entry.kind == FileKind::Directory);
            }
            (Key::Xattr(ino, _), _) => *xattrs.entry(*ino).or_default() += 1,
            _ => {}
        }
    }
    for (key, record) in records {
        let (Key::Inode(ino), Record::Inode(inode)) = (key, record) else { continue };
        files += 1;
        let plain = counted.file(records, *ino, inode);
        assert_eq!(inode.allocated, plain, "{ino}: bytes stored");
        bytes += plain;
        assert_eq!(inode.xattrs, xattrs.remove(ino).unwrap_or_default(), "{ino}: attributes");
        let is_orphan = records.contains_key(&Key::Orphan(*ino));
        let held = names.remove(ino).unwrap_or_default();
        assert_eq!(is_orphan, held == 0 && *ino != Ino::ROOT, "{ino}: an orphan or not");
        if inode.kind == FileKind::Directory {
            assert_eq!(inode.entries, entries.remove(ino).unwrap_or_default(), "{ino}: entries");
            let expected = if is_orphan { 0 } else { 2 + subdirs.remove(ino).unwrap_or_default() };
            assert_eq!(inode.nlink, expected, "{ino}: links of a directory");
        } else {
            assert_eq!(inode.nlink, held, "{ino}: links");
        }
    }
    assert!(entries.is_empty() && xattrs.is_empty(), "entries or attributes of nobody");
    assert_eq!((superblock.files, superblock.bytes), (files, bytes), "the volume's totals");
    for (key, record) in records {
        match (key, record) {
            (Key::Segment(id), Record::Segment(segment)) => {
                assert_eq!(segment.live, counted.live.remove(id).unwrap_or_default(), "live bytes of {id}");
                assert!(objects.contains(id), "{id} is not in the bucket");
            }
            (Key::Inline(ino, block), _) => {
                assert!(counted.inline.contains(&(*ino, *block)), "{key:?} is nobody's")
            }
            (Key::Extents(ino, page), _) => {
                assert!(counted.pages.contains(&(*ino, *page)), "{key:?} is nobody's")
            }
            (Key::Orphan(_), _) => panic!("{key:?} was freed by no mount"),
            (Key::Garbage(id) | Key::Leftover(id), _) => {
                assert!(!records.contains_key(&Key::Segment(*id)), "{id} is dead and alive")
            }
            (Key::Reference(id, ..), _) => {
                let keys = [Key::Segment(*id), Key::Garbage(*id)];
                assert!(keys.iter().any(|key| records.contains_key(key)), "{key:?} outlived its segment")
            }
            _ => {}
        }
    }
    assert!(counted.live.is_empty(), "blocks lie in segments that have no record");
    for id in objects {
        let keys = [Key::Segment(*id), Key::Garbage(*id), Key::Leftover(*id)];
        let known = keys.iter().any(|key| records.contains_key(key));
        assert!(known || may_litter, "{id} is in the bucket and in no record");
    }
}
