//! What a repair does about the superblock and the chain of commits.

use std::sync::Arc;

use super::MaintError;
use super::finding::{Finding, Problem, Subject};
use super::mender::Mender;
use crate::meta::chain::{GENESIS, link};
use crate::meta::{Commit, Key, Record};

/// Numbers of inodes that are passed over where nobody knows which were given.
const INOS_SKIPPED: u64 = 1 << 20;

impl Mender<'_> {
    pub(super) async fn mend_history(&mut self) -> Result<(), MaintError> {
        let survey = self.survey;
        for finding in &survey.findings.kept {
            match (&finding.subject, &finding.problem) {
                (Subject::Volume, Problem::SuperMissing) => self.rebuild_super(finding).await?,
                (Subject::Volume, Problem::NextInoLow { highest, .. }) => {
                    self.desk.change_super(|superblock| superblock.next_ino = highest.saturating_add(1));
                    self.tell(finding, format!("goes on after inode {highest}"));
                }
                (Subject::Commit(number), Problem::CommitAhead) => {
                    if let Some(commit) = self.commit(*number).await?
                        && *number > self.desk.superblock.commit
                    {
                        self.go_to(*number, commit.hash);
                        self.tell(finding, "goes on after this commit");
                    }
                }
                _ => {}
            }
        }
        for finding in &survey.findings.kept {
            match (&finding.subject, &finding.problem) {
                (Subject::Commit(number), Problem::CommitMissing { .. }) => {
                    self.go_back(finding, *number).await?;
                }
                (Subject::Commit(number), Problem::CommitBroken { .. }) => {
                    self.mend_commit(finding, *number).await?;
                }
                (Subject::Commit(number), Problem::HeadWrong) => self.mend_head(finding, *number).await?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Superblock and record of a commit differ in its hash: the one that the chain confirms is right.
    async fn mend_head(&mut self, finding: &Finding, number: u64) -> Result<(), MaintError> {
        let Some(commit) = self.commit(number).await? else { return Ok(()) };
        let head = self.desk.superblock.head;
        if self.desk.superblock.commit != number || head == commit.hash {
            return Ok(());
        }
        let is_broken = |other: &Finding| {
            other.subject == Subject::Commit(number) && matches!(other.problem, Problem::CommitBroken { .. })
        };
        if self.survey.findings.kept.iter().any(is_broken) {
            let commit = Commit { hash: head, ..(*commit).clone() };
            self.desk.put(Key::Commit(number), Some(Record::Commit(Arc::new(commit))));
            self.tell(finding, "gives the commit the hash that the superblock has");
        } else {
            self.go_to(number, commit.hash);
            self.tell(finding, "goes on after its record");
        }
        Ok(())
    }

    fn go_to(&mut self, commit: u64, head: [u8; 32]) {
        self.desk.change_super(|superblock| (superblock.commit, superblock.head) = (commit, head));
    }

    async fn commit(&self, number: u64) -> Result<Option<Arc<Commit>>, MaintError> {
        match self.desk.get(Key::Commit(number)).await? {
            Some(Record::Commit(commit)) => Ok(Some(commit)),
            _ => Ok(None),
        }
    }

    /// The superblock names a commit that was never made: its head tells which one it means.
    async fn go_back(&mut self, finding: &Finding, number: u64) -> Result<(), MaintError> {
        let newest = self.survey.newest_commit;
        if number != newest.saturating_add(1) || newest >= self.desk.superblock.commit {
            return Ok(());
        }
        let hash = self.commit(newest).await?.map_or(GENESIS, |commit| commit.hash);
        if hash == self.desk.superblock.head {
            self.go_to(newest, hash);
            self.tell(finding, format!("goes on after commit {newest}, which is the last one"));
        }
        Ok(())
    }

    /// A commit record whose hash was altered gets it back, where those around it agree on which.
    async fn mend_commit(&mut self, finding: &Finding, number: u64) -> Result<(), MaintError> {
        let ring = Arc::clone(self.desk.vault.ring());
        let Some(commit) = self.commit(number).await? else { return Ok(()) };
        // Commits begin with 1; a hostile record may have any number.
        let (Some(before), Some(after)) = (number.checked_sub(1), number.checked_add(1)) else {
            return Ok(());
        };
        let previous = match before {
            0 => Some(GENESIS),
            _ => self.commit(before).await?.map(|before| before.hash),
        };
        let Some(previous) = previous else { return Ok(()) };
        let hash = link(&ring, &previous, number, &commit);
        let is_meant = match self.commit(after).await? {
            Some(next) => link(&ring, &hash, after, &next) == next.hash,
            None => self.desk.superblock.commit == number && self.desk.superblock.head == hash,
        };
        if is_meant && hash != commit.hash {
            let commit = Commit { hash, ..(*commit).clone() };
            self.desk.put(Key::Commit(number), Some(Record::Commit(Arc::new(commit))));
            self.tell(finding, "gives the commit its hash back");
        }
        Ok(())
    }

    async fn rebuild_super(&mut self, finding: &Finding) -> Result<(), MaintError> {
        let newest = self.survey.newest_commit;
        let head = self.commit(newest).await?.map_or(GENESIS, |commit| commit.hash);
        let (files, bytes) = (self.survey.totals.files, self.survey.totals.stored_bytes);
        let next_ino = self.survey.highest_ino.0.saturating_add(INOS_SKIPPED);
        self.desk.change_super(|superblock| {
            (superblock.files, superblock.bytes, superblock.next_ino) = (files, bytes, next_ino);
            (superblock.commit, superblock.head) = (newest, head);
        });
        self.tell(finding, format!("makes a new superblock upon commit {newest}, without a quota"));
        Ok(())
    }
}
