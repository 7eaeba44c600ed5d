//! Walks over records in order, a page at a time, and keeps going where one cannot be decoded.

use std::collections::VecDeque;

use bytes::Bytes;

use super::MaintError;
use crate::base::Ino;
use crate::meta::engine::Engine;
use crate::meta::{Key, MetaError, Record, decode};

/// The letters of this format's keys, in order.
const LETTERS: &[u8] = b"ABCDEGHILMORSVWX";

/// A record as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) raw: Bytes,
    /// Its key; `None` for bytes that are none.
    pub(super) key: Option<Key>,
    /// Its value, or why that cannot be decoded.
    pub(super) record: Result<Record, String>,
}

/// An ordered walk over some of the records.
pub(super) struct Rows<'a> {
    engine: &'a Engine,
    from: Vec<u8>,
    to: Vec<u8>,
    page_count: usize,
    page: VecDeque<Row>,
    has_ended: bool,
}

impl<'a> Rows<'a> {
    /// All records whose keys begin with `letter`.
    pub(super) fn of(engine: &'a Engine, letter: u8) -> Self {
        Self::between(engine, vec![letter], vec![letter.saturating_add(1)])
    }

    /// All records with keys from `from` to before `to`.
    pub(super) fn between(engine: &'a Engine, from: Vec<u8>, to: Vec<u8>) -> Self {
        // Few of the large ones at a time, so that a page stays below some 16 MiB.
        let page_count = match from.first() {
            Some(b'B') => 128,
            Some(b'E' | b'X') => 256,
            _ => 4096,
        };
        Self { engine, from, to, page_count, page: VecDeque::new(), has_ended: false }
    }

    /// Ranges of keys that no record of this format has.
    pub(super) fn strays(engine: &'a Engine) -> Vec<Self> {
        let mut ranges = Vec::new();
        let mut from = vec![0];
        for letter in LETTERS {
            ranges.push(Self::between(engine, from, vec![*letter]));
            from = vec![letter.saturating_add(1)];
        }
        ranges.push(Self::between(engine, from, vec![0xFF; 64]));
        ranges
    }

    pub(super) async fn peek(&mut self) -> Result<Option<&Row>, MaintError> {
        if self.page.is_empty() && !self.has_ended {
            self.fill().await?;
        }
        Ok(self.page.front())
    }

    pub(super) async fn next(&mut self) -> Result<Option<Row>, MaintError> {
        self.peek().await?;
        Ok(self.page.pop_front())
    }

    /// The next row if it belongs to `ino`.
    pub(super) async fn next_of(&mut self, ino: Ino) -> Result<Option<Row>, MaintError> {
        match self.peek().await?.and_then(|row| row.ino()) {
            Some(found) if found == ino => self.next().await,
            _ => Ok(None),
        }
    }

    async fn fill(&mut self) -> Result<(), MaintError> {
        let (from, to) = (std::mem::take(&mut self.from), self.to.clone());
        let rows = self.engine.scan(from, to, self.page_count).await?;
        self.has_ended = rows.len() < self.page_count;
        if let Some((key, _)) = rows.last() {
            self.from = [key, &[0][..]].concat();
        }
        self.page.extend(rows.into_iter().map(|(raw, value)| Row::new(raw, &value)));
        Ok(())
    }
}

impl Row {
    fn new(raw: Bytes, value: &Bytes) -> Self {
        // The engine's bytes are slices of whole blocks, which they would keep in memory.
        let value = Bytes::copy_from_slice(value);
        let raw = Bytes::copy_from_slice(&raw);
        let key = Key::decode(&raw);
        let record = match &key {
            None => Err("its key is none of this format".to_owned()),
            Some(key) => decode(key, &value).map_err(|error| match error {
                MetaError::Record { why, .. } => why,
                other => other.to_string(),
            }),
        };
        Self { raw, key, record }
    }

    /// The inode that it belongs to.
    pub(super) const fn ino(&self) -> Option<Ino> {
        match self.key {
            Some(
                Key::Inline(ino, _)
                | Key::Entry(ino, _)
                | Key::Extents(ino, _)
                | Key::Inode(ino)
                | Key::Orphan(ino)
                | Key::Xattr(ino, _),
            ) => Some(ino),
            _ => None,
        }
    }
}
