//! What changes of contents take of the privileges of a program, where no kernel takes them first.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod dammed;
mod in_memory;

use coffer::base::Ino;
use coffer::maint::{self, CheckOptions};
use coffer::vfs::{Caller, Drops, SetAttr, Vfs, XattrMode};
use coffer::volume::{self, OpenOptions};

use dammed::{Dammed, MIB, contents, make, stream};
use in_memory::{CALLER, World, factors};

const CAPABILITY: &[u8] = b"security.capability";
const BLOCK: u64 = 65_536;

/// All that changes contents.
const WAYS: [&str; 6] = ["write", "cut", "lengthen", "punch", "share a block", "copy through memory"];

/// Changes `file`, on behalf of root; `holes` is a file without contents to copy from.
async fn change(vfs: &Vfs, way: &str, file: Ino, holes: Ino) {
    match way {
        "write" => assert_eq!(vfs.write(file, 5, b"changed", true).await.unwrap(), 7),
        "cut" => {
            let cut = SetAttr { size: Some(150_000), ..SetAttr::default() };
            vfs.setattr(&CALLER, file, &cut).await.unwrap();
        }
        "lengthen" => vfs.fallocate(file, 0, 0, 200_000).await.unwrap(),
        "punch" => {
            let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            vfs.fallocate(file, punch, 10, 20).await.unwrap();
        }
        "share a block" => assert_eq!(vfs.copy_file_range(holes, 0, file, 0, BLOCK).await.unwrap(), BLOCK),
        _ => assert_eq!(vfs.copy_file_range(holes, 1, file, 1, 100).await.unwrap(), 100),
    }
}

/// A program, and a file without contents.
async fn files(vfs: &Vfs) -> (Ino, Ino) {
    let file = make(vfs, b"file", &[1; 200_000]).await;
    let holes = make(vfs, b"holes", b"").await;
    let size = SetAttr { size: Some(4 * BLOCK), ..SetAttr::default() };
    vfs.setattr(&CALLER, holes, &size).await.unwrap();
    (file, holes)
}

async fn has_capability(vfs: &Vfs, ino: Ino) -> bool {
    match vfs.get_xattr(ino, CAPABILITY).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.errno(), libc::ENODATA);
            false
        }
    }
}

async fn check_finds_nothing(world: &World) {
    let (bucket, factors) = (world.bucket(), factors());
    let opening = volume::examine(bucket, &factors, OpenOptions::default());
    let examined = Box::pin(opening).await.unwrap();
    let report = Box::pin(maint::check(&examined, &CheckOptions::default(), &|_| ())).await;
    examined.close().await;
    assert!(report.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_of_contents_takes_capabilities_and_no_other_attribute() {
    let world = World::new().await;
    let (opened, _) = world.open(OpenOptions::default()).await;
    let vfs = &opened.vfs;
    let (file, holes) = files(vfs).await;
    vfs.set_xattr(file, b"user.note", b"stays", XattrMode::Set).await.unwrap();
    for is_committed in [false, true] {
        for way in WAYS {
            vfs.set_xattr(file, CAPABILITY, b"of a program", XattrMode::Create).await.unwrap();
            if is_committed {
                vfs.sync_all().await.unwrap();
            }
            change(vfs, way, file, holes).await;
            assert!(!has_capability(vfs, file).await, "{way}");
            assert_eq!(vfs.list_xattr(file).await.unwrap(), b"user.note\0", "{way}");
        }
    }
    vfs.set_xattr(file, CAPABILITY, b"of a program", XattrMode::Create).await.unwrap();
    vfs.write_dropping(file, 0, b"through a map", Drops::Nothing).await.unwrap();
    assert!(has_capability(vfs, file).await);
    vfs.write_dropping(file, 0, b"by somebody", Drops::All).await.unwrap();
    assert!(!has_capability(vfs, file).await);
    opened.close().await.unwrap();
    check_finds_nothing(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_is_not_privileged_takes_set_id_bits() {
    let (opened, _) = World::new().await.open(OpenOptions::default()).await;
    let vfs = &opened.vfs;
    let (file, holes) = files(vfs).await;
    let perm = |perm: u16| SetAttr { perm: Some(perm), ..SetAttr::default() };
    vfs.setattr(&CALLER, file, &perm(0o6755)).await.unwrap();
    for way in WAYS {
        change(vfs, way, file, holes).await;
        assert_eq!(vfs.getattr(file).await.unwrap().perm, 0o6755, "{way}");
    }
    vfs.write(file, 0, b"by somebody", false).await.unwrap();
    assert_eq!(vfs.getattr(file).await.unwrap().perm, 0o755);
    vfs.setattr(&CALLER, file, &perm(0o6745)).await.unwrap();
    let cut = SetAttr { size: Some(10), ..SetAttr::default() };
    vfs.setattr(&Caller { uid: 1000, ..CALLER }, file, &cut).await.unwrap();
    assert_eq!(vfs.getattr(file).await.unwrap().perm, 0o2745, "without group execution it is no set-id bit");
    opened.close().await.unwrap();
}

/// Else the file would be in the bucket with the contents before and without the capabilities that belong to them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_that_took_capabilities_are_committed_with_their_loss() {
    let dammed = Dammed::new().await;
    let opened = dammed.mount().await;
    let vfs = &opened.vfs;
    let (small, program) = (make(vfs, b"small", b"small").await, make(vfs, b"program", b"").await);
    vfs.set_xattr(program, CAPABILITY, b"of a program", XattrMode::Set).await.unwrap();
    vfs.sync_all().await.unwrap();
    dammed.shut();
    let data = stream(9 * MIB);
    for (number, part) in data.chunks(MIB).enumerate() {
        vfs.write(program, (number * MIB) as u64, part, true).await.unwrap();
    }
    vfs.write(small, 0, b"SMALL", true).await.unwrap();
    {
        let syncing = vfs.fsync(small, false);
        tokio::pin!(syncing);
        assert!(futures::poll!(&mut syncing).is_pending());
        dammed.open_gates();
        syncing.await.unwrap();
    }
    assert_eq!(vfs.status().put_off, 0);

    let after_a_crash = dammed.mount().await;
    drop(opened);
    assert!(contents(&after_a_crash.vfs, b"program").await == data);
    assert!(!has_capability(&after_a_crash.vfs, program).await);
    after_a_crash.close().await.unwrap();
}
