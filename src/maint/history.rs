//! The superblock, the chain of commits, and what this machine has seen of it.

use super::MaintError;
use super::check::Survey;
use super::finding::{Problem, Subject};
use super::rows::{Row, Rows};
use crate::meta::chain::{GENESIS, HISTORY_COMMITS, hash_in, link};
use crate::meta::{Commit, History, Key, MetaError, Record, Superblock, lost_logs};

/// Where the walk along the chain stands.
struct Chain {
    next: u64,
    /// Hashes that the last commit may have: what its record says and, where that does not follow from the
    /// one before, what would. Empty after a gap.
    previous: Vec<[u8; 32]>,
}

impl Survey<'_> {
    /// Reads the superblock and walks along the chain of commits.
    pub(super) async fn look_at_history(&mut self) -> Result<(), MaintError> {
        let engine = self.source.engine.clone();
        if let Some(name) = engine.missing_log().await? {
            self.findings.add(Subject::Volume, Problem::LogMissing { name });
        }
        match lost_logs::stay_away(&engine).await {
            Err(MetaError::Inconsistent { key: Key::LostLog(number), .. }) => {
                self.findings.add(Subject::Volume, Problem::LogIsBack { number });
            }
            looked => looked?,
        }
        let mut rows = Rows::of(&engine, b'V');
        while let Some(row) = rows.next().await? {
            match (row.key, row.record) {
                (Some(Key::Super), Ok(Record::Super(superblock))) => {
                    self.superblock = Some((*superblock).clone());
                }
                (Some(_), Err(why)) => {
                    self.findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordBroken { why });
                }
                _ => self.findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordStray),
            }
        }
        if self.superblock.is_none() {
            self.findings.add(Subject::Volume, Problem::SuperMissing);
        }
        self.look_at_declarations().await?;
        let mut chain = Chain { next: 1, previous: vec![GENESIS] };
        let mut commits = Rows::of(&engine, b'C');
        let mut rows = Rows::of(&engine, b'H');
        while let Some(row) = rows.next().await? {
            if let Some(Key::History(first)) = row.key {
                // Before it may lie some that could not be folded.
                self.look_at_commits(&mut chain, &mut commits, first).await?;
            }
            match (row.key, row.record) {
                (Some(Key::History(first)), Ok(Record::History(history))) => {
                    self.look_at_history_of(&mut chain, first, &history);
                }
                (Some(Key::History(first)), Err(why)) => {
                    self.findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordBroken { why });
                    (chain.next, chain.previous) = (first.saturating_add(HISTORY_COMMITS), Vec::new());
                }
                _ => self.findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordStray),
            }
        }
        self.look_at_commits(&mut chain, &mut commits, u64::MAX).await?;
        self.newest_commit = chain.next.saturating_sub(1);
        if let Some(superblock) = self.superblock.clone() {
            self.judge_head(&chain, &superblock);
            self.judge_pin(&superblock);
        }
        Ok(())
    }

    /// Goes on along the chain, up to commit `end`.
    async fn look_at_commits(
        &mut self,
        chain: &mut Chain,
        rows: &mut Rows<'_>,
        end: u64,
    ) -> Result<(), MaintError> {
        let is_before = |row: &Row| !matches!(row.key, Some(Key::Commit(number)) if number >= end);
        while rows.peek().await?.is_some_and(is_before) {
            let Some(row) = rows.next().await? else { break };
            match (row.key, row.record) {
                (Some(Key::Commit(number)), Ok(Record::Commit(commit))) => {
                    self.look_at_commit(chain, number, &commit);
                }
                (Some(Key::Commit(_)), Err(why)) => {
                    self.findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordBroken { why });
                }
                _ => self.findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordStray),
            }
        }
        Ok(())
    }

    /// Records about commits that nothing else depends on.
    async fn look_at_declarations(&mut self) -> Result<(), MaintError> {
        for letter in *b"AMW" {
            let mut rows = Rows::of(&self.source.engine, letter);
            while let Some(row) = rows.next().await? {
                match (row.key, row.record) {
                    (Some(_), Ok(_)) => {}
                    (Some(_), Err(why)) => {
                        self.findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordBroken { why });
                    }
                    (None, _) => self.findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordStray),
                }
            }
        }
        Ok(())
    }

    /// Folded commits: the chain goes through them if it leads to the first, and what they give for the
    /// last follows from that.
    fn look_at_history_of(&mut self, chain: &mut Chain, first: u64, history: &History) {
        if first > chain.next {
            self.miss(chain.next);
        } else if !chain.previous.is_empty() && !chain.previous.contains(&history.before) {
            self.break_off(first);
        }
        let last = first.saturating_add(HISTORY_COMMITS - 1);
        chain.next = last.saturating_add(1);
        match hash_in(self.source.ring(), history, first, last) {
            Some(hash) => chain.previous = vec![hash],
            None => {
                self.miss(last);
                chain.previous.clear();
            }
        }
        if let Some((pinned, hash)) = self.source.pin
            && (first..=last).contains(&pinned)
            && hash_in(self.source.ring(), history, first, pinned) != Some(hash)
        {
            self.findings.add(Subject::Commit(pinned), Problem::Forked);
        }
    }

    fn miss(&mut self, number: u64) {
        let is_accepted = self.is_accepted(number);
        self.findings.add(Subject::Commit(number), Problem::CommitMissing { is_accepted });
    }

    fn break_off(&mut self, number: u64) {
        let is_accepted = self.is_accepted(number);
        self.findings.add(Subject::Commit(number), Problem::CommitBroken { is_accepted });
    }

    /// Whether mounts go on from a later commit, whatever this one is.
    fn is_accepted(&self, number: u64) -> bool {
        self.source.accepted.is_some_and(|accepted| number <= accepted)
    }

    fn look_at_commit(&mut self, chain: &mut Chain, number: u64, commit: &Commit) {
        if self.superblock.as_ref().is_some_and(|superblock| number > superblock.commit) {
            self.findings.add(Subject::Commit(number), Problem::CommitAhead);
            return;
        }
        if number > chain.next {
            self.miss(chain.next);
            chain.previous.clear();
        }
        let ring = self.source.ring();
        let made = |previous| link(ring, previous, number, commit);
        let follows: Vec<[u8; 32]> = chain.previous.iter().map(made).collect();
        let is_whole = follows.is_empty() || follows.contains(&commit.hash);
        if is_whole {
            chain.previous = vec![commit.hash];
        } else {
            self.break_off(number);
            chain.previous = follows;
            chain.previous.push(commit.hash);
        }
        chain.next = number.saturating_add(1);
        if let Some((pinned, hash)) = self.source.pin
            && pinned == number
            && hash != commit.hash
        {
            self.findings.add(Subject::Commit(number), Problem::Forked);
        }
    }

    fn judge_head(&mut self, chain: &Chain, superblock: &Superblock) {
        if chain.next <= superblock.commit {
            self.miss(chain.next);
        } else if !chain.previous.contains(&superblock.head) {
            self.findings.add(Subject::Commit(superblock.commit), Problem::HeadWrong);
        }
    }

    fn judge_pin(&mut self, superblock: &Superblock) {
        let Some((seen, hash)) = self.source.pin else { return };
        let offered = superblock.commit;
        if offered < seen {
            self.findings.add(Subject::Volume, Problem::RolledBack { seen, offered });
        } else if offered == seen && superblock.head != hash {
            self.findings.add(Subject::Commit(seen), Problem::Forked);
        }
    }

    /// Compares the superblock's totals with what was counted.
    pub(super) fn judge_totals(&mut self) {
        let Some(superblock) = &self.superblock else { return };
        let recorded = (superblock.files, superblock.bytes);
        let counted = (self.totals.files, self.totals.stored_bytes);
        let (next, highest) = (superblock.next_ino, self.highest_ino.0);
        if recorded != counted {
            self.findings.add(Subject::Volume, Problem::Totals { recorded, counted });
        }
        if next <= highest {
            self.findings.add(Subject::Volume, Problem::NextInoLow { next, highest });
        }
    }
}
