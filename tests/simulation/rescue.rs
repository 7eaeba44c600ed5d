//! What a mount that was taken over had not sent: all of it must be kept, as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer::base::FileKind;
use coffer::vfs::{OnFenced, Part, Rescue, Unsent, Vfs};
use futures::FutureExt;
use parking_lot::Mutex;

use crate::contents;
use crate::tree::Tree;

/// What was kept: the list, and the parts of each file.
#[derive(Default)]
pub struct Kept {
    unsent: Unsent,
    parts: BTreeMap<u64, Vec<Part>>,
}

/// Where it is kept.
pub type Shelf = Arc<Mutex<Option<Kept>>>;

/// Keeps what was not sent on `shelf`. `is_away` says that the bucket shall not be asked.
pub fn keep_on(shelf: &Shelf, is_away: bool) -> OnFenced {
    let shelf = Arc::clone(shelf);
    Arc::new(move |vfs| {
        let shelf = Arc::clone(&shelf);
        async move {
            let kept = keep(&vfs, is_away).await;
            let files = kept.unsent.files.len() as u64;
            *shelf.lock() = Some(kept);
            Rescue { is_saved: true, files, ..Rescue::default() }
        }
        .boxed()
    })
}

async fn keep(vfs: &Vfs, mut is_away: bool) -> Kept {
    let mut kept = Kept { unsent: vfs.unsent().await.unwrap(), ..Kept::default() };
    for file in &kept.unsent.files {
        let mut parts = Vec::new();
        let mut take = |part| {
            parts.push(part);
            Ok::<(), ()>(())
        };
        if file.attr.kind == FileKind::Regular {
            vfs.recall(file, &mut is_away, &mut take).await.unwrap();
        }
        kept.parts.insert(file.attr.ino.0, parts);
    }
    kept
}

impl Kept {
    /// Whether everything is there of `last`, which the mount showed at its end, that `found`, where its successor
    /// began, has not. Gives how many files there are, and how many parts of them had gone with the bucket.
    pub fn check(&self, last: &Tree, found: &Tree) -> (u64, u64) {
        let mut absent = 0;
        for (ino, node) in &last.0 {
            let before = found.0.get(ino);
            let is_changed = before.is_none_or(|before| before.data != node.data);
            if node.kind != FileKind::Regular || !is_changed {
                continue;
            }
            let file = self.unsent.files.iter().find(|file| file.attr.ino.0 == *ino);
            let Some(file) = file else { panic!("contents of {ino} were not sent and are not kept") };
            assert_eq!(file.attr.size, node.data.len() as u64, "the size that is kept of {ino}");
            // What was sent may have come into the bucket without the mount ever being told.
            assert!(file.is_new || before.is_some(), "{ino} was never sent");
            // Where the bucket does not tell all names, some are numbers.
            let paths = last.paths_of(*ino);
            let is_known = |path: &&Vec<u8>| !path.starts_with(b"inode-");
            for path in file.paths.iter().filter(is_known) {
                assert!(paths.contains(path), "{ino} is kept as {}", path.escape_ascii());
            }
            let mut expected = node.data.to_vec();
            let mut data = vec![0; expected.len()];
            for part in &self.parts[ino] {
                match part {
                    Part::Data(offset, bytes) => {
                        let at = *offset as usize;
                        data[at..at + bytes.len()].copy_from_slice(bytes);
                    }
                    Part::Absent(range, _) => {
                        absent += 1;
                        let range = range.start as usize..range.end as usize;
                        expected[range.clone()].fill(0);
                        data[range].fill(0);
                    }
                }
            }
            if let Some(at) = (0..data.len()).find(|at| data[*at] != expected[*at]) {
                let (kept, expected) = (contents::show(&data, at), contents::show(&expected, at));
                panic!("what is kept of {ino} differs at {at}\n  expected {expected}\n  kept     {kept}");
            }
        }
        (self.unsent.files.len() as u64, absent)
    }
}
