//! Copies out of a volume that somebody writes to meanwhile.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use coffer::base::Ino;
use coffer::vfs::{Caller, SetAttr};

use crate::support::{Bench, runtime};

const MIB: usize = 1024 * 1024;

/// `cat` is held up by a pipe that nobody reads, until every reader that follows would have gone on to the newer commit.
#[test]
fn what_cat_prints_is_of_one_commit_whatever_is_written_meanwhile() {
    let bench = Bench::with_volume();
    let want: Vec<u8> = (0..8 * MIB).map(|at| (at % 251) as u8).collect();
    runtime().block_on(async {
        let opened = bench.open_for_writing().await;
        let (vfs, caller) = (&opened.vfs, Caller::default());
        let file = vfs.create(&caller, Ino::ROOT, b"file", 0o600, true).await.unwrap().ino;
        vfs.write(file, 0, &want, true).await.unwrap();
        vfs.sync_all().await.unwrap();

        let args = ["cat", "--passphrase-file", "right", "vol", "file"];
        let mut cat = bench.command(&args).stdout(Stdio::piped()).spawn().unwrap();
        let mut printed = vec![0; 100];
        cat.stdout.as_mut().unwrap().read_exact(&mut printed).unwrap();
        let cut = SetAttr { size: Some(2 * MIB as u64), ..SetAttr::default() };
        vfs.setattr(&caller, file, &cut).await.unwrap();
        vfs.write(file, MIB as u64, &vec![0xFF; MIB], true).await.unwrap();
        vfs.sync_all().await.unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        cat.stdout.as_mut().unwrap().read_to_end(&mut printed).unwrap();
        assert!(cat.wait().unwrap().success());
        assert!(printed == want, "{} bytes, or others", printed.len());
        opened.close().await.unwrap();
    });
}
