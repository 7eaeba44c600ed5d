//! The layers of records without an engine below them.

use std::sync::Arc;

use super::*;
use crate::base::FileKind;
use crate::meta::Entry;

fn entry(ino: u64) -> Record {
    Record::Entry(Arc::new(Entry::new(vec![], Ino(ino), FileKind::Regular)))
}

fn key(number: u8) -> Key {
    Key::Entry(Ino(1), Tag([number; 16]))
}

#[test]
fn newer_layers_hide_older_ones() {
    let mut overlay = Overlay::new(1 << 20);
    overlay.put(key(1), Some(entry(1)));
    overlay.seal();
    assert_eq!(overlay.get(&key(1)), Some(Some(entry(1))));
    overlay.put(key(1), None);
    assert_eq!(overlay.get(&key(1)), Some(None));
    overlay.settle(vec![(key(1), Some(entry(1)))]);
    assert_eq!(overlay.get(&key(1)), Some(None));
    assert_eq!(overlay.committed(&key(1)), Some(Some(entry(1))));
    assert_eq!(overlay.get(&key(2)), None);
}

#[test]
fn what_comes_and_goes_within_a_group_leaves_nothing() {
    let mut overlay = Overlay::new(1 << 20);
    overlay.put_new(key(1), entry(1));
    overlay.put(key(1), None);
    assert_eq!(overlay.open_count(), 0);
    let since = overlay.begin_load(key(2));
    overlay.end_load(key(2), since, Some(None));
    overlay.put(key(2), Some(entry(2)));
    overlay.put(key(2), None);
    assert_eq!(overlay.open_count(), 0);
    overlay.put(key(3), None);
    assert_eq!(overlay.open_count(), 1, "nobody knows what lies under it");
}

#[test]
fn a_load_overtaken_by_a_commit_is_not_believed() {
    let mut overlay = Overlay::new(1 << 20);
    let since = overlay.begin_load(key(1));
    overlay.put(key(1), Some(entry(2)));
    overlay.seal();
    overlay.settle(vec![(key(1), Some(entry(2)))]);
    assert_eq!(overlay.end_load(key(1), since, Some(Some(entry(1)))), Load::Stale);
    assert_eq!(overlay.get(&key(1)), Some(Some(entry(2))));
}

#[test]
fn two_that_load_the_same_key_do_not_keep_each_other_from_believing() {
    let mut overlay = Overlay::new(1 << 20);
    let (one, other) = (overlay.begin_load(key(1)), overlay.begin_load(key(1)));
    overlay.put(key(1), Some(entry(2)));
    overlay.seal();
    overlay.settle(vec![(key(1), Some(entry(2)))]);
    assert_eq!(overlay.end_load(key(1), one, Some(None)), Load::Stale);
    let again = overlay.begin_load(key(1));
    assert_eq!(overlay.end_load(key(1), other, Some(None)), Load::Stale);
    let other_again = overlay.begin_load(key(1));
    assert_eq!(overlay.end_load(key(1), again, Some(Some(entry(2)))), Load::Kept);
    assert_eq!(overlay.end_load(key(1), other_again, Some(Some(entry(2)))), Load::Kept);
}

#[test]
fn the_cache_keeps_to_its_bytes() {
    let mut overlay = Overlay::new(1000);
    for number in 0..=255u64 {
        let since = overlay.begin_load(Key::Inode(Ino(number)));
        overlay.end_load(Key::Inode(Ino(number)), since, Some(None));
    }
    for number in 0..100 {
        let since = overlay.begin_load(key(number));
        overlay.end_load(key(number), since, Some(Some(entry(1))));
    }
    assert!(overlay.cache.len() <= KEPT_MIN);
    assert_eq!(overlay.get(&Key::Inode(Ino(0))), None);
    assert_eq!(overlay.get(&key(99)), Some(Some(entry(1))));
}

#[test]
fn of_a_directory_that_is_known_whole_nothing_need_be_loaded() {
    let mut overlay = Overlay::new(1 << 20);
    assert_eq!(overlay.get(&key(1)), None);
    overlay.note_new_directory(Ino(1));
    assert_eq!(overlay.get(&key(1)), Some(None));
    overlay.put(key(1), Some(entry(1)));
    overlay.put(key(1), None);
    assert_eq!(overlay.open_count(), 0, "nothing lies under it");
    overlay.put(key(2), Some(entry(2)));
    overlay.seal();
    overlay.settle(overlay.sealed_changes());
    assert_eq!(overlay.get(&key(2)), Some(Some(entry(2))));
    assert_eq!(overlay.committed(&key(3)), Some(None));
    let listed = |overlay: &mut Overlay, first, limit| {
        overlay.whole_between(&key(first), &Key::Entry(Ino(2), Tag([0; 16])), limit)
    };
    assert_eq!(listed(&mut overlay, 0, 9), Some(vec![(key(2), entry(2))]));
    overlay.put(key(2), None);
    overlay.put(key(4), Some(entry(4)));
    overlay.put(key(5), Some(entry(5)));
    overlay.seal();
    overlay.settle(overlay.sealed_changes());
    assert_eq!(listed(&mut overlay, 0, 9), Some(vec![(key(4), entry(4)), (key(5), entry(5))]));
    assert_eq!(listed(&mut overlay, 0, 1), Some(vec![(key(4), entry(4))]));
    assert_eq!(listed(&mut overlay, 5, 9), Some(vec![(key(5), entry(5))]));
    assert_eq!(overlay.whole_between(&key(0), &key(9), 9), None, "a part of it is not asked for");
    overlay.forget_committed();
    assert_eq!([overlay.get(&key(2)), overlay.get(&key(3))], [None, None]);
}

#[test]
fn a_directory_is_whole_no_more_when_an_entry_of_it_leaves_the_cache() {
    let mut overlay = Overlay::new(0);
    overlay.note_new_directory(Ino(1));
    overlay.put(key(1), Some(entry(1)));
    overlay.seal();
    overlay.settle(overlay.sealed_changes());
    assert_eq!(overlay.get(&key(2)), Some(None));
    for number in 0..KEPT_MIN as u64 {
        let since = overlay.begin_load(Key::Inode(Ino(number)));
        overlay.end_load(Key::Inode(Ino(number)), since, Some(None));
    }
    assert_eq!([overlay.get(&key(1)), overlay.get(&key(2))], [None, None]);
}

#[test]
fn a_scan_that_a_commit_or_a_loss_has_overtaken_makes_nothing_whole() {
    let mut overlay = Overlay::new(0);
    let begun = overlay.begin_whole_scan();
    overlay.remember_scanned(0, key(1), entry(1));
    overlay.end_whole_scan(Ino(1), begun, vec![Tag([1; 16])]);
    assert_eq!(overlay.get(&key(2)), Some(None));
    let (from, to) = (Key::Entry(Ino(1), Tag([0; 16])), Key::Entry(Ino(2), Tag([0; 16])));
    assert_eq!(overlay.whole_between(&from, &to, 9), Some(vec![(key(1), entry(1))]));

    let begun = overlay.begin_whole_scan();
    overlay.seal();
    overlay.settle(vec![]);
    overlay.end_whole_scan(Ino(7), begun, Vec::new());
    assert_eq!(overlay.get(&Key::Entry(Ino(7), Tag([0; 16]))), None);

    let begun = overlay.begin_whole_scan();
    (0..=255).for_each(|number| overlay.remember_scanned(1, key(number), entry(1)));
    overlay.remember_scanned(1, Key::Inode(Ino(5)), entry(1));
    overlay.end_whole_scan(Ino(1), begun, (0..=255).map(|number| Tag([number; 16])).collect());
    let missing = (0..=255).filter(|number| overlay.get(&key(*number)).is_none()).count();
    assert_eq!(missing, 1, "the one that left is asked for again");
}

#[test]
fn a_change_that_is_put_off_is_seen_as_before_and_not_committed() {
    let mut overlay = Overlay::new(1 << 20);
    overlay.put(key(1), Some(entry(1)));
    overlay.put_new(key(2), entry(2));
    overlay.put(key(3), Some(entry(3)));
    overlay.seal();
    overlay.put(key(3), Some(entry(30)));
    overlay.put_off(key(1), None);
    overlay.put_off(key(2), Some(entry(20)));
    overlay.put_off(key(3), None);
    overlay.put_off(key(4), None);
    let seen = [1, 2, 3].map(|number| overlay.get(&key(number)));
    assert_eq!(seen, [entry(1), entry(2), entry(30)].map(|record| Some(Some(record))));
    assert_eq!(overlay.sealed_changes(), vec![(key(2), Some(entry(20)))]);
    assert!(overlay.is_sealed_fresh(&key(2)) && overlay.is_open(&key(2)));
    overlay.settle(vec![(key(2), Some(entry(20)))]);
    overlay.seal();
    assert!(!overlay.is_sealed_fresh(&key(2)));
    assert_eq!(overlay.sealed_changes().len(), 3);
}

#[test]
fn a_group_that_is_taken_back_is_part_of_the_next_and_what_came_and_went_in_them_was_never_there() {
    let mut overlay = Overlay::new(1 << 20);
    overlay.put(key(1), Some(entry(1)));
    overlay.put_new(key(2), entry(2));
    overlay.put_new(key(3), entry(3));
    overlay.put(key(4), None);
    overlay.seal();
    overlay.put(key(2), None);
    overlay.put(key(3), Some(entry(30)));
    overlay.put_new(key(5), entry(5));
    assert_eq!(overlay.unseal(), [key(2)]);
    overlay.seal();
    let changes = [(1, Some(entry(1))), (3, Some(entry(30))), (4, None), (5, Some(entry(5)))];
    assert_eq!(overlay.sealed_changes(), changes.map(|(number, record)| (key(number), record)));
    let fresh = [1, 3, 4, 5].map(|number| overlay.is_sealed_fresh(&key(number)));
    assert_eq!(fresh, [false, true, false, true]);
    assert_eq!(overlay.get(&key(2)), Some(None));
}

#[test]
fn bytes_are_counted_along_with_every_change() {
    fn recount(overlay: &Overlay) {
        let sum =
            |changes: &Changes| changes.values().map(|c| changed_bytes(c.record.as_ref())).sum::<usize>();
        assert_eq!(overlay.open_bytes(), sum(&overlay.open));
        let sealed = overlay.sealed.as_ref().map_or(0, sum);
        assert_eq!(overlay.changed_bytes(), overlay.open_bytes() + sealed);
    }
    let named = |bytes: usize| Record::Entry(Arc::new(Entry::new(vec![1; bytes], Ino(1), FileKind::Regular)));
    let mut overlay = Overlay::new(1 << 20);
    for number in 0..20 {
        overlay.put_new(key(number), named(10 * usize::from(number)));
        overlay.put(key(number / 2), Some(named(7)));
        overlay.put(key(number / 3), None);
        recount(&overlay);
    }
    overlay.seal();
    recount(&overlay);
    for number in 0..20 {
        if number % 3 == 0 {
            overlay.put(key(number), Some(named(100)));
        }
        overlay.put_off(key(number), (number % 2 == 0).then(|| named(3)));
        overlay.patch_open(&key(number), |record| *record = named(50));
        recount(&overlay);
    }
    overlay.unseal();
    recount(&overlay);
    overlay.seal();
    overlay.settle(overlay.sealed_changes());
    recount(&overlay);
    (0..20).for_each(|number| overlay.put(key(number), None));
    recount(&overlay);
}

#[test]
fn changes_between_merges_both_groups_in_order() {
    let mut overlay = Overlay::new(1 << 20);
    overlay.put(key(1), Some(entry(1)));
    overlay.put(key(3), Some(entry(3)));
    overlay.seal();
    overlay.put(key(2), Some(entry(2)));
    overlay.put(key(3), None);
    let all = overlay.changes_between(&key(0), &key(9), 10);
    assert_eq!(all, vec![(key(1), Some(entry(1))), (key(2), Some(entry(2))), (key(3), None)]);
    assert_eq!(overlay.changes_between(&key(0), &key(9), 2).len(), 2);
}
