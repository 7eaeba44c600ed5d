//! Changes that a repair is going to make, over the records as they are, and the commits that make them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::MaintError;
use crate::base::{Ino, Time};
use crate::meta::engine::Engine;
use crate::meta::{Commit, Inode, Key, Machine, MetaError, Record, Superblock, chain, decode, encode};
use crate::vault::Vault;
use crate::volume::VolumeError;

/// Records of one commit, so that it stays far below what the engine holds in memory.
const RECORDS_MAX: usize = 10_000;

/// What is going to be changed.
pub(super) struct Desk {
    pub(super) engine: Engine,
    pub(super) vault: Vault,
    changes: BTreeMap<Key, Option<Record>>,
    /// Keys that are none of this format.
    strays: Vec<Vec<u8>>,
    /// The superblock as it is to become, but for the commit that makes it so.
    pub(super) superblock: Superblock,
    is_super_changed: bool,
    /// By which device and session commits are made.
    maker: Maker,
    /// How many commits the device has made with the last one of these.
    counter: u64,
}

/// Who makes commits, by the numbers of device and session.
pub(super) type Maker = ([u8; 16], [u8; 16]);

impl Desk {
    pub(super) fn new(engine: Engine, vault: Vault, superblock: Superblock, maker: Maker) -> Self {
        Self {
            engine,
            vault,
            changes: BTreeMap::new(),
            strays: Vec::new(),
            superblock,
            is_super_changed: false,
            maker,
            counter: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.strays.is_empty() && !self.is_super_changed
    }

    /// The record under `key` as it is going to be; `None` also for one that cannot be decoded.
    pub(super) async fn get(&self, key: Key) -> Result<Option<Record>, MaintError> {
        if let Some(changed) = self.changes.get(&key) {
            return Ok(changed.clone());
        }
        let found: Option<Bytes> = self.engine.get(&key.encode()).await?;
        Ok(found.and_then(|bytes| decode(&key, &bytes).ok()))
    }

    pub(super) fn put(&mut self, key: Key, record: Option<Record>) {
        self.changes.insert(key, record);
    }

    pub(super) fn drop_stray(&mut self, key: Vec<u8>) {
        self.strays.push(key);
    }

    pub(super) async fn inode(&self, ino: Ino) -> Result<Option<Inode>, MaintError> {
        match self.get(Key::Inode(ino)).await? {
            Some(Record::Inode(inode)) => Ok(Some((*inode).clone())),
            _ => Ok(None),
        }
    }

    pub(super) fn put_inode(&mut self, ino: Ino, inode: Inode) {
        self.put(Key::Inode(ino), Some(Record::Inode(Arc::new(inode))));
    }

    /// Changes an inode, if it is there.
    pub(super) async fn change(
        &mut self,
        ino: Ino,
        change: impl FnOnce(&mut Inode),
    ) -> Result<(), MaintError> {
        if let Some(mut inode) = self.inode(ino).await? {
            change(&mut inode);
            self.put_inode(ino, inode);
        }
        Ok(())
    }

    pub(super) fn change_super(&mut self, change: impl FnOnce(&mut Superblock)) {
        change(&mut self.superblock);
        self.is_super_changed = true;
    }

    /// An inode number that was never given.
    pub(super) fn new_ino(&mut self) -> Ino {
        let ino = Ino(self.superblock.next_ino);
        self.change_super(|superblock| superblock.next_ino = ino.0.saturating_add(1));
        ino
    }

    /// Makes all changes, what is added before what goes: where this ends half-way, something is there
    /// twice, and the next repair goes on from there. Each commit is given to `note`, with its number, its hash and how many
    /// the device has made with it.
    pub(super) async fn commit(
        &mut self,
        now: Time,
        mut note: impl FnMut(u64, [u8; 32], u64) -> Result<(), VolumeError>,
    ) -> Result<(), MaintError> {
        let changes = std::mem::take(&mut self.changes);
        let (added, gone): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, record)| record.is_some());
        let mut rows = Vec::with_capacity(added.len() + gone.len());
        for (key, record) in added.into_iter().chain(gone) {
            rows.push((key.encode(), record.as_ref().map(encode).transpose()?));
        }
        rows.extend(std::mem::take(&mut self.strays).into_iter().map(|key| (key, None)));
        let mut rows = rows.into_iter().peekable();
        loop {
            let part: Vec<_> = rows.by_ref().take(RECORDS_MAX).collect();
            self.write(part, now).await?;
            note(self.superblock.commit, self.superblock.head, self.counter)?;
            if rows.peek().is_none() {
                break;
            }
        }
        self.is_super_changed = false;
        Ok(())
    }

    /// The device's counter with its next commit; 0 for none.
    async fn next_counter(&self) -> Result<u64, MaintError> {
        let (device, _) = self.maker;
        if device == [0; 16] {
            return Ok(0);
        }
        match self.get(Key::Machine(device)).await? {
            Some(Record::Machine(machine)) => Ok(machine.counter.saturating_add(1)),
            _ => Ok(1),
        }
    }

    /// One commit.
    async fn write(
        &mut self,
        mut rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
        now: Time,
    ) -> Result<(), MaintError> {
        let mut next = self.superblock.clone();
        next.commit = next.commit.saturating_add(1);
        let (device, session) = self.maker;
        let counter = self.next_counter().await?;
        let mut commit = Commit { hash: next.head, device, session, counter, time: now };
        commit.hash = chain::link(self.vault.ring(), &next.head, next.commit, &commit);
        next.head = commit.hash;
        if counter > 0 {
            let machine = Record::Machine(Machine { counter, commit: next.commit });
            rows.push((Key::Machine(device).encode(), Some(encode(&machine)?)));
        }
        rows.push((Key::Commit(next.commit).encode(), Some(encode(&Record::Commit(Arc::new(commit)))?)));
        rows.push((Key::Super.encode(), Some(encode(&Record::Super(Arc::new(next.clone())))?)));
        self.engine.write_durable(rows).await.map_err(MetaError::from)?;
        (self.superblock, self.counter) = (next, counter);
        Ok(())
    }
}
