//! Uncommitted contents against a plain byte array.

use super::*;

#[test]
fn a_cut_in_the_middle_of_a_block_leaves_no_old_bytes_behind() {
    let mut dirty = Dirty::default();
    let ino = Ino(2);
    dirty.write(ino, 0, &[7; 100], 0);
    dirty.truncate(ino, 100, 40);
    dirty.write(ino, 60, &[9; 10], 40);
    let mut seen = vec![1; 80];
    dirty.paint_of(ino, 0).apply(&mut seen, 0);
    assert_eq!(seen[..40], [7; 40]);
    assert_eq!(seen[40..60], [0; 20]);
    assert_eq!(seen[60..70], [9; 10]);
    assert_eq!(seen[70..], [0; 10]);
}
