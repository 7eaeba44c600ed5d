//! Old commits are folded.

use coffer::base::Ino;
use coffer::maint::{self, CheckOptions, Problem};
use coffer::vfs::VfsOptions;
use coffer::volume::VolumeError;

use crate::world::{World, make};

/// Makes commits, as a machine that notes them in `folder`, and gives the number of the last.
async fn commit_often(world: &mut World, folder: &std::path::Path, commits: u64) -> u64 {
    world.state_dir = Some(folder.to_owned());
    let opened = world.mount().await;
    let ino = match opened.vfs.lookup(Ino::ROOT, b"a").await {
        Ok(found) => found.ino,
        Err(_) => make(&opened.vfs, "a", b"1").await,
    };
    for commit in 0..commits {
        opened.vfs.write(ino, 0, &commit.to_le_bytes(), true).await.unwrap();
        opened.vfs.fsync(ino, false).await.unwrap();
    }
    opened.vfs.reclaim().await.unwrap();
    let (last, _) = opened.vfs.head();
    opened.close().await.unwrap();
    last
}

#[tokio::test]
async fn old_commits_are_folded_and_every_pin_is_still_checked() {
    let mut world = World::new(VfsOptions::default()).await;
    let folders: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let first = commit_often(&mut world, folders[0].path(), 700).await;
    // A history that is put aside again, of which one machine knows.
    let before = world.store.all_of("m").await;
    let other = commit_often(&mut world, folders[3].path(), 5).await;
    world.store.put_back("m", &before).await;
    let second = commit_often(&mut world, folders[1].path(), 1500).await;
    let third = commit_often(&mut world, folders[2].path(), 1500).await;
    assert!(other < 1024 && first < 1024 && second > 2048 && third > 3 * 1024, "{first} {second} {third}");

    let examined = world.examine().await;
    let report = maint::check(&examined, &CheckOptions::default(), &|_| ()).await.unwrap();
    examined.close().await;
    let found: Vec<_> = report.findings.iter().filter(|found| found.problem != Problem::Garbage).collect();
    assert!(found.is_empty(), "a check walks along the folded chain, too: {found:#?}");

    for folder in &folders[..3] {
        world.state_dir = Some(folder.path().to_owned());
        world.mount().await.close().await.unwrap();
    }
    world.state_dir = Some(folders[3].path().to_owned());
    let refused = world.try_mount().await.err();
    assert!(matches!(refused, Some(VolumeError::Fork { number, .. }) if number <= other + 1), "{refused:?}");
}
