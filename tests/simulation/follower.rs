//! A reader beside the writer: whatever it shows, as a whole, is what one commit left, and never older than before.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coffer::vfs::{Vfs, VfsError};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::history::History;
use crate::tree::Tree;

pub struct Follower {
    pub vfs: Arc<Vfs>,
    pub history: Rc<RefCell<History>>,
    pub rng: SmallRng,
    /// Whole trees that were seen and found right.
    pub looks: Rc<Cell<u64>>,
}

impl Follower {
    /// Looks again and again, until it is dropped.
    pub async fn watch(mut self) {
        let mut earliest = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..7_000))).await;
            let Some(found) = self.look().await else { continue };
            let history = self.history.borrow();
            earliest = history.find_after_crash(&found, &history.shown(), earliest);
            self.looks.set(self.looks.get() + 1);
        }
    }

    /// The tree, if it could be read before the reader went to another commit.
    async fn look(&self) -> Option<Tree> {
        let seen = self.vfs.head();
        let read = Tree::look(&self.vfs).await;
        let is_one_commit = seen == self.vfs.head();
        match read {
            Ok(_) if !is_one_commit => None,
            Ok((tree, odd)) => {
                assert!(odd.is_empty(), "size and contents of {odd:?} differ");
                Some(tree)
            }
            Err(error) if error.is_passing() || !is_one_commit => None,
            // The writer has deleted what it had let go of, and the commit that says so is not seen yet.
            Err(VfsError::Data(_)) => None,
            Err(error) => panic!("a reader cannot read what commit {} left: {error:?}", seen.0),
        }
    }
}
