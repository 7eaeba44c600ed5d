//! Damage that is met at work: each object is told once in the log, and counted for whoever asks.

use serde::Serialize;

use crate::base::Ino;
use crate::data::DataError;
use crate::meta::MetaError;
use crate::meta::engine::EngineError;
use crate::vault::segment_name;

use super::{Vfs, VfsError};

/// Objects that are told by name. Of more it is only told that there are some.
const OBJECTS_MAX: usize = 256;
/// What is said of an object that is not there.
const MISSING: &str = "it is missing";

/// What this mount has met of damage in the bucket.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Damage {
    /// Objects, or records, that are damaged or missing; not more than are told by name.
    pub count: u64,
    /// How often others were met after that: they are not kept apart.
    pub more: u64,
    /// Each as it was met first.
    pub objects: Vec<Damaged>,
}

/// One object that is not what was written, or not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// Its name in the bucket; of a record, what it is about.
    pub object: String,
    /// What did not fit.
    pub what: String,
    /// The inode for which it was read, where that is known.
    pub file: Option<u64>,
}

impl Damage {
    /// Notes it, and says what there is to tell: nothing of an object that is known, or where there are too many.
    fn note(&mut self, met: Damaged) -> Option<Noted> {
        if let Some(known) = self.objects.iter_mut().find(|known| known.object == met.object) {
            known.file = known.file.or(met.file);
            return None;
        }
        if self.objects.len() >= OBJECTS_MAX {
            self.more = self.more.saturating_add(1);
            return (self.more == 1).then_some(Noted::TooMany);
        }
        self.objects.push(met.clone());
        self.count = self.objects.len() as u64;
        Some(Noted::New(met))
    }
}

/// What is worth a line.
#[derive(Debug, PartialEq, Eq)]
enum Noted {
    New(Damaged),
    TooMany,
}

impl Vfs {
    /// Notes damage that an operation on `file` has met. Any other error is passed over. What it says stays on this
    /// machine: the store learns nothing from it.
    pub(super) fn note_damage(&self, file: Option<Ino>, error: &VfsError) {
        let Some((object, what)) = described(error) else { return };
        let noted = self.damage.lock().note(Damaged { object, what, file: file.map(|ino| ino.0) });
        match noted {
            Some(Noted::New(Damaged { object, what, file: Some(file) })) => {
                tracing::warn!(object, file, "damaged in the bucket: {what}; reading it fails");
            }
            Some(Noted::New(Damaged { object, what, file: None })) => {
                tracing::warn!(object, "damaged in the bucket: {what}; what needs it fails");
            }
            Some(Noted::TooMany) => {
                tracing::warn!(
                    "more than {OBJECTS_MAX} objects are damaged; the others are not told one by one"
                );
            }
            None => {}
        }
    }
}

/// Which object it is, and what does not fit; `None` if the error is no damage.
pub(super) fn described(error: &VfsError) -> Option<(String, String)> {
    if !error.is_damage() {
        return None;
    }
    Some(match error {
        VfsError::Data(DataError::Damaged { segment, pos, why }) => {
            (segment_name(*segment), format!("{why}, at byte {pos}"))
        }
        VfsError::Data(DataError::Missing { segment }) => (segment_name(*segment), MISSING.to_owned()),
        VfsError::Meta(MetaError::Engine(EngineError::Damaged(text))) => {
            // As the vault words it: `the object NAME is ...`.
            let named = text.strip_prefix("the object ").and_then(|rest| rest.split_once(" is "));
            match named {
                Some((object, "missing")) => (object.to_owned(), MISSING.to_owned()),
                Some((object, what)) => {
                    (object.to_owned(), what.strip_prefix("damaged: ").unwrap_or(what).to_owned())
                }
                None => ("the volume's records".to_owned(), text.clone()),
            }
        }
        VfsError::Meta(
            MetaError::Record { key, .. } | MetaError::Missing(key) | MetaError::Inconsistent { key, .. },
        ) => (format!("record {key:?}"), error.to_string()),
        other => ("a record of extents".to_owned(), other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Key;
    use crate::vault::{Damage as ObjectDamage, VaultError};

    fn met(object: &str) -> Damaged {
        Damaged { object: object.into(), what: MISSING.into(), file: None }
    }

    #[test]
    fn an_object_is_told_once_and_of_too_many_there_is_a_number() {
        let mut damage = Damage::default();
        assert_eq!(damage.note(met("d/a")), Some(Noted::New(met("d/a"))));
        assert_eq!(damage.note(Damaged { file: Some(7), ..met("d/a") }), None);
        assert_eq!(damage.objects[0].file, Some(7), "for which file it is may show later");
        for number in 1..OBJECTS_MAX {
            assert!(damage.note(met(&format!("d/{number}"))).is_some());
        }
        assert_eq!((damage.count, damage.more), (OBJECTS_MAX as u64, 0));
        assert_eq!(damage.note(met("d/b")), Some(Noted::TooMany));
        assert_eq!(damage.note(met("d/c")), None);
        assert_eq!((damage.count, damage.more, damage.objects.len()), (OBJECTS_MAX as u64, 2, OBJECTS_MAX));
    }

    #[test]
    fn damage_is_described_by_the_objects_name_and_what_passes_is_none() {
        let engine = |error: VaultError| {
            described(&MetaError::from(EngineError::Damaged(error.to_string())).into()).unwrap()
        };
        let damage = ObjectDamage { object: "m/x/y".into(), what: "a piece does not open".into() };
        let want = ("m/x/y".to_owned(), "a piece does not open".to_owned());
        assert_eq!(engine(VaultError::Damaged(damage)), want);
        assert_eq!(engine(VaultError::Missing("m/z".into())), ("m/z".to_owned(), MISSING.to_owned()));
        let record = described(&MetaError::Missing(Key::Inode(Ino(7))).into()).unwrap();
        assert!(record.0.contains('7'), "{record:?}");
        assert_eq!(described(&VfsError::NoEntry), None);
        assert_eq!(described(&MetaError::from(EngineError::Unavailable("late".into())).into()), None);
    }
}
