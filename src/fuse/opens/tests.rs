//! What is open how, and what the kernel keeps of it.

use super::*;

const FILE: Ino = Ino(7);

fn open(opens: &Opens, handle: u64, flags: i32) -> How {
    opens.open(handle, FILE, OpenFlags(flags))
}

#[test]
fn no_file_is_open_for_direct_writes_and_for_cached_reads_at_once() {
    let opens = Opens::default();
    assert_eq!(open(&opens, 1, libc::O_WRONLY), How::DirectWriting);
    assert_eq!(open(&opens, 2, libc::O_RDONLY), How::DirectReading);
    assert_eq!(open(&opens, 3, libc::O_RDWR), How::DirectWriting);
    opens.closed(1);
    assert_eq!(open(&opens, 4, libc::O_RDONLY), How::DirectReading, "the third writes past the pages");
    opens.closed(3);
    assert_eq!(open(&opens, 5, libc::O_RDONLY), How::Cached);
    assert_eq!(open(&opens, 6, libc::O_WRONLY), How::Cached);
    for handle in [2, 4, 5, 6, 6] {
        opens.closed(handle);
    }
    opens.flushed(FILE);
    assert_eq!(open(&opens, 7, libc::O_WRONLY), How::DirectWriting);
    opens.closed(7);
    assert!(opens.state.lock().files.is_empty() && opens.state.lock().handles.is_empty());
}

#[test]
fn who_only_writes_goes_through_the_pages_of_what_may_be_mapped() {
    let opens = Opens::default();
    assert_eq!(open(&opens, 1, libc::O_RDWR), How::Cached);
    opens.closed(1);
    assert_eq!(open(&opens, 2, libc::O_WRONLY), How::Cached, "its pages may wait still");
    assert!(!opens.is_direct(2));
    opens.closed(2);
    opens.flushed(FILE);
    assert_eq!(open(&opens, 3, libc::O_WRONLY), How::DirectWriting);
    assert!(opens.is_direct(3) && !opens.is_direct(2));
}

#[test]
fn what_may_have_been_mapped_stays_so_until_its_pages_are_sent_or_it_is_forgotten() {
    let opens = Opens::default();
    open(&opens, 1, libc::O_RDONLY);
    assert!(!opens.may_be_mapped(FILE));
    open(&opens, 2, libc::O_RDWR);
    opens.flushed(FILE);
    assert!(opens.may_be_mapped(FILE), "it is open");
    opens.closed(1);
    opens.closed(2);
    assert!(opens.may_be_mapped(FILE), "its pages may wait still");
    opens.flushed(FILE);
    assert!(!opens.may_be_mapped(FILE));
}

#[test]
fn contents_are_given_to_who_alone_has_a_file_open_for_reading() {
    let opens = Opens::default();
    assert!(opens.give(FILE).is_none(), "it is not open");
    open(&opens, 1, libc::O_RDONLY);
    drop(opens.give(FILE).expect("it is read by one"));
    open(&opens, 2, libc::O_RDONLY);
    assert!(opens.give(FILE).is_none(), "another may be waiting for a page of it");
    opens.closed(2);
    let changing = (opens.change(FILE), opens.change(FILE));
    drop(changing.0);
    assert!(opens.give(FILE).is_none(), "it is being cut");
    drop(changing.1);
    opens.give(FILE).expect("it is read by one again").done();
    opens.closed(1);
    open(&opens, 3, libc::O_WRONLY);
    assert!(opens.give(FILE).is_none(), "it is written to");
    opens.closed(3);
    open(&opens, 4, libc::O_WRONLY);
    assert_eq!(open(&opens, 5, libc::O_RDONLY), How::DirectReading);
    opens.closed(4);
    open(&opens, 6, libc::O_RDONLY);
    assert!(opens.give(FILE).is_none(), "another may have mapped it, and wait for a page");
    opens.closed(5);
    drop(opens.give(FILE).expect("it is read by one again"));
    opens.closed(6);
    open(&opens, 7, libc::O_RDWR);
    opens.closed(7);
    open(&opens, 8, libc::O_RDONLY);
    assert!(opens.give(FILE).is_none(), "pages may be there that a program wrote to");
}

#[test]
fn what_the_kernel_has_is_not_given_again() {
    let (opens, other) = (Opens::default(), Ino(8));
    let gives = |handle, ino, flags| {
        opens.open(handle, ino, OpenFlags(flags));
        let giving = opens.give(ino);
        let gives = giving.is_some();
        giving.into_iter().for_each(Giving::done);
        opens.closed(handle);
        gives
    };
    assert!(gives(1, FILE, libc::O_RDONLY) && gives(1, other, libc::O_RDONLY));
    assert!(!gives(1, FILE, libc::O_RDONLY) && !gives(1, other, libc::O_RDONLY));
    open(&opens, 2, libc::O_WRONLY);
    opens.closed(2);
    assert!(gives(3, FILE, libc::O_RDONLY), "it was written to");
    drop(opens.change(FILE));
    assert!(gives(4, FILE, libc::O_RDONLY), "it was cut");
    opens.forgotten(FILE);
    assert!(gives(5, FILE, libc::O_RDONLY) && !gives(6, other, libc::O_RDONLY));
    opens.asked(FILE);
    assert!(!gives(7, FILE, libc::O_RDONLY), "it has been read");
    assert!(gives(8, other, libc::O_RDONLY), "if one has gone, others may have");
    for number in 0..GIVEN_MAX as u64 {
        opens.asked(Ino(100 + number));
    }
    assert!(opens.state.lock().given.len() <= GIVEN_MAX);
}

#[test]
fn nobody_opens_or_cuts_a_file_while_its_contents_are_given() {
    let (opens, order) = (Opens::default(), Mutex::new(Vec::new()));
    open(&opens, 1, libc::O_RDONLY);
    let giving = opens.give(FILE).unwrap();
    assert!(opens.give(FILE).is_none(), "it is being given");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            open(&opens, 2, libc::O_WRONLY);
            order.lock().push("opened");
        });
        scope.spawn(|| {
            drop(opens.change(FILE));
            order.lock().push("cut");
        });
        (0..1000).for_each(|_| std::thread::yield_now());
        order.lock().push("given");
        giving.done();
    });
    assert_eq!(order.lock()[0], "given");
    assert!(opens.state.lock().giving.is_empty() && opens.state.lock().changing.is_empty());
}

#[test]
fn who_was_given_contents_has_read_them() {
    let opens = Opens::default();
    open(&opens, 1, libc::O_RDONLY);
    open(&opens, 2, libc::O_RDONLY);
    opens.counts(2);
    assert_eq!((opens.closed(1), opens.closed(2), opens.closed(2)), (None, Some(FILE), None));
}

#[test]
fn a_listing_is_kept_only_while_it_is_the_only_one() {
    let opens = Opens::default();
    assert_eq!((opens.list(FILE), opens.list(FILE)), (Kept::All, Kept::Nothing));
    opens.listed(FILE);
    opens.adopted(vec![FILE]);
    assert_eq!(opens.list(FILE), Kept::Nothing);
    opens.listed(FILE);
    opens.listed(FILE);
    assert_eq!(opens.list(FILE), Kept::Anew, "it leads to another parent");
    opens.listed(FILE);
    assert_eq!(opens.list(FILE), Kept::All);
}

#[test]
fn who_else_may_write_is_known() {
    let opens = Opens::default();
    open(&opens, 1, libc::O_RDWR);
    assert!(opens.may_be_written(FILE) && !opens.may_be_written_by_others(FILE, 1));
    open(&opens, 2, libc::O_RDONLY);
    assert!(opens.may_be_written_by_others(FILE, 2) && !opens.may_be_written_by_others(FILE, 1));
    open(&opens, 3, libc::O_WRONLY);
    assert!(opens.may_be_written_by_others(FILE, 1));
    opens.closed(1);
    opens.closed(3);
    assert!(!opens.may_be_written(FILE) && !opens.may_be_written_by_others(FILE, 2));
}

#[test]
fn pages_of_what_was_written_past_them_are_dropped_once_by_who_has_it_open_alone() {
    let opens = Opens::default();
    open(&opens, 1, libc::O_WRONLY);
    assert_eq!(open(&opens, 2, libc::O_RDONLY), How::DirectReading);
    assert!(!opens.has_old_pages(FILE), "it is being written to");
    opens.closed(1);
    open(&opens, 3, libc::O_RDONLY);
    assert!(!opens.has_old_pages(FILE), "another may have mapped it");
    opens.closed(2);
    assert!(opens.has_old_pages(FILE) && !opens.has_old_pages(FILE));
}
