//! What an operation takes while it runs. Most are answered at once, on the thread that asked, and are moved about until then:
//! what they would need if they had to wait must be allocated only when they do.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod in_memory;

use std::mem::size_of_val;

use coffer::base::Ino;
use coffer::vfs::{Handle, RenameMode, SetAttr};
use coffer::volume::OpenOptions;

use in_memory::{CALLER, World};

/// As much as a request's own bookkeeping. Copies of this size cost nothing beside answering the kernel.
const BYTES_MAX: usize = 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_takes_no_room_for_what_it_seldom_waits_for() {
    let (opened, _) = World::new().await.open(OpenOptions::default()).await;
    let vfs = &opened.vfs;
    let (root, set) = (Ino::ROOT, SetAttr::default());
    // Made and dropped, never polled.
    let operations = [
        ("lookup", size_of_val(&vfs.lookup(root, b"name"))),
        ("getattr", size_of_val(&vfs.getattr(root))),
        ("setattr", size_of_val(&vfs.setattr(&CALLER, root, &set))),
        ("create", size_of_val(&vfs.create(&CALLER, root, b"name", 0o644, true))),
        ("open", size_of_val(&vfs.open(root, true, false))),
        ("read", size_of_val(&vfs.read(Handle(1), root, 0, 1))),
        ("write", size_of_val(&vfs.write(root, 0, b"data", true))),
        ("readdir", size_of_val(&vfs.readdir(root, 0, 1))),
        ("readdir_plus", size_of_val(&vfs.readdir_plus(root, 0, 1))),
        ("rename", size_of_val(&vfs.rename(root, b"one", root, b"two", RenameMode::Replace))),
        ("unlink", size_of_val(&vfs.unlink(root, b"name"))),
        ("get_xattr", size_of_val(&vfs.get_xattr(root, b"user.name"))),
    ];
    for (name, bytes) in operations {
        println!("{name}: {bytes} bytes");
    }
    for (name, bytes) in operations {
        assert!(bytes <= BYTES_MAX, "{name} takes {bytes} bytes before it has done anything");
    }
    opened.close().await.unwrap();
}
