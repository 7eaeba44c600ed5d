//! `coffer warm`: reads a tree of a running mount, so that what is read next is in its memory.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::task::{JoinHandle, spawn_blocking};

use super::client::mounts;
use super::deep::Near;
use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::ls::printable;
use super::progress::Progress;
use super::runtime;
use super::stderr;
use super::units::show_count;

/// Shown at the end of `coffer warm --help`.
pub const EXAMPLES: &str = "\
Names and attributes below PATH are read into the memory of the mount and of the kernel, with --contents what the files hold \
too, as far as that has room (`coffer status`: cached). Other filesystems mounted below PATH are left out. Ctrl-C ends it; \
what was read stays.

Examples:
  coffer warm ~/vault/projects
  coffer warm --contents ~/vault/photos/2026";

/// Directories and files read at the same time.
const JOBS: usize = 6;
/// Bytes asked for at a time.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Arguments of `coffer warm`.
#[derive(clap::Args, Debug)]
pub struct WarmArgs {
    /// A directory or file in a mount
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Read what the files hold too
    #[arg(long)]
    pub contents: bool,
}

/// What is to be read.
enum Job {
    Directory(PathBuf),
    File(PathBuf),
}

/// What else there is to read, or what could not be read and why.
type Outcome = Result<Vec<Job>, (PathBuf, io::Error)>;

/// What all jobs share.
struct Shared {
    progress: Progress,
    contents: bool,
    device: u64,
    is_over: AtomicBool,
}

/// Ends the jobs that run when the command ends, however that is.
struct EndAll(Arc<Shared>);

impl Drop for EndAll {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// Reads.
///
/// # Errors
/// When PATH is in no mount of the user's, or something could not be read.
pub fn run(args: &WarmArgs) -> CommandResult {
    mounts(std::slice::from_ref(&args.path))?;
    let meta = fs::metadata(&args.path).map_err(|e| CommandError::reading(&args.path, &e))?;
    runtime::block_on(async {
        let progress = Progress::start("warm");
        let shared = Arc::new(Shared {
            progress: progress.clone(),
            contents: args.contents,
            device: meta.dev(),
            is_over: AtomicBool::new(false),
        });
        let first =
            if meta.is_dir() { Job::Directory(args.path.clone()) } else { Job::File(args.path.clone()) };
        let failures = read_all(&EndAll(shared), first).await;
        progress.finish();
        stderr::line(format_args!("warmed {}", progress.summary()));
        match failures {
            0 => Ok(()),
            count => Err(CommandError::new(
                Exit::Partial,
                format!(
                    "{} could not be read",
                    show_count(count, "file or directory", "files or directories")
                ),
            )),
        }
    })
}

async fn read_all(shared: &EndAll, first: Job) -> u64 {
    let mut waiting = vec![first];
    let mut running: FuturesUnordered<JoinHandle<Outcome>> = FuturesUnordered::new();
    let mut failures = 0;
    loop {
        while running.len() < JOBS
            && let Some(job) = waiting.pop()
        {
            let shared = Arc::clone(&shared.0);
            running.push(spawn_blocking(move || shared.carry_out(job)));
        }
        match running.next().await {
            None => return failures,
            Some(Ok(Ok(more))) => waiting.extend(more),
            Some(Ok(Err((path, error)))) => {
                failures += 1;
                let name = printable(path.as_os_str().as_bytes());
                shared.0.progress.say(&format!("error: {name}: {error}"));
            }
            Some(Err(_)) => failures += 1,
        }
    }
}

impl Shared {
    fn carry_out(&self, job: Job) -> Outcome {
        match job {
            Job::Directory(path) => self.list(&path).map_err(|error| (path, error)),
            Job::File(path) => self.read(&path).map(|()| Vec::new()).map_err(|error| (path, error)),
        }
    }

    /// Lists a directory and looks at each of its entries.
    fn list(&self, path: &Path) -> io::Result<Vec<Job>> {
        let mut more = Vec::new();
        for entry in fs::read_dir(Near::of(path)?.path())? {
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.dev() != self.device {
                continue;
            }
            if meta.is_dir() {
                more.push(Job::Directory(path.join(entry.file_name())));
            } else if meta.is_file() && self.contents {
                more.push(Job::File(path.join(entry.file_name())));
                continue;
            }
            self.progress.add_file();
        }
        Ok(more)
    }

    fn read(&self, path: &Path) -> io::Result<()> {
        let mut file = File::open(Near::of(path)?.path())?;
        let mut chunk = vec![0; if self.contents { CHUNK_BYTES } else { 0 }];
        while !self.is_over.load(Ordering::Relaxed) {
            match file.read(&mut chunk)? {
                0 => break,
                bytes => self.progress.add_bytes(bytes as u64),
            }
        }
        self.progress.add_file();
        Ok(())
    }
}
