//! Finds and lists files of a volume that is open but not mounted.

use std::sync::Arc;

use super::error::{CommandError, CommandResult, sentence};
use super::exit::Exit;
use super::explain;
use super::local::Xattr;
use super::stderr;
use crate::base::{FileKind, Ino};
use crate::vfs::{Attr, Vfs, VfsError};

/// Symbolic links followed on one path, as in Linux.
const LINKS_MAX: usize = 40;
/// Entries asked for at a time.
const PAGE_ENTRIES: usize = 1024;

/// The tree of an open volume.
#[derive(Clone)]
pub struct Tree {
    /// The filesystem.
    pub vfs: Arc<Vfs>,
}

/// One entry of a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// What it names.
    pub attr: Attr,
}

impl Tree {
    /// Finds what `path` names, counted from the volume's root. A link at its end is followed if `follow`.
    ///
    /// # Errors
    /// When there is no such file, or a link leads out of the volume.
    pub async fn resolve(&self, path: &[u8], follow: bool) -> CommandResult<Attr> {
        let mut trail = vec![Ino::ROOT];
        let mut todo: Vec<Vec<u8>> = components(path);
        let mut last = self.getattr(Ino::ROOT, path).await?;
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                last = self.getattr(trail.last().copied().unwrap_or(Ino::ROOT), path).await?;
                continue;
            }
            let dir = trail.last().copied().unwrap_or(Ino::ROOT);
            let found = self.vfs.lookup(dir, &name).await.map_err(|e| path_error(path, &e))?;
            self.vfs.forget(found.ino, 1);
            if found.kind == FileKind::Symlink && (follow || !todo.is_empty()) {
                links += 1;
                if links > LINKS_MAX {
                    return Err(no_path(path, "too many symbolic links"));
                }
                let target = self.vfs.readlink(found.ino).await.map_err(|e| path_error(path, &e))?;
                if target.starts_with(b"/") {
                    let text = format!("the link leads out of the volume, to {}", target.escape_ascii());
                    return Err(no_path(path, &text));
                }
                todo.extend(components(&target));
                last = self.getattr(dir, path).await?;
                continue;
            }
            if found.kind == FileKind::Directory {
                trail.push(found.ino);
            } else if !todo.is_empty() {
                return Err(no_path(path, "not a directory"));
            }
            last = found;
        }
        Ok(last)
    }

    /// The entries of `dir` from `cookie` on, without `.` and `..`, and where to go on; `None` at the end.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub async fn page(&self, dir: Ino, cookie: u64) -> Result<(Vec<Entry>, Option<u64>), VfsError> {
        let listed = self.vfs.readdir_plus(dir, cookie, PAGE_ENTRIES).await?;
        let next = listed.last().map(|(entry, _)| entry.next);
        let mut entries = Vec::with_capacity(listed.len());
        for (entry, attr) in listed {
            if entry.name != b"." && entry.name != b".." {
                self.vfs.forget(attr.ino, 1);
                entries.push(Entry { name: entry.name, attr });
            }
        }
        Ok((entries, next))
    }

    /// All entries of `dir` in the order of their names' bytes.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub async fn sorted(&self, dir: Ino) -> Result<Vec<Entry>, VfsError> {
        let mut all = Vec::new();
        let mut cookie = 0;
        loop {
            let (mut entries, next) = self.page(dir, cookie).await?;
            all.append(&mut entries);
            match next {
                Some(next) => cookie = next,
                None => break,
            }
        }
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Every extended attribute of `ino`.
    ///
    /// # Errors
    /// When one cannot be read.
    pub async fn xattrs(&self, ino: Ino) -> Result<Vec<Xattr>, VfsError> {
        let names = self.vfs.list_xattr(ino).await?;
        let mut all = Vec::new();
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            match self.vfs.get_xattr(ino, name).await {
                Ok(value) => all.push((name.to_vec(), value)),
                Err(VfsError::NoAttribute) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn getattr(&self, ino: Ino, path: &[u8]) -> CommandResult<Attr> {
        self.vfs.getattr(ino).await.map_err(|e| path_error(path, &e))
    }
}

/// The names on a path, last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    let mut names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
    names.reverse();
    names
}

fn no_path(path: &[u8], why: &str) -> CommandError {
    CommandError::new(Exit::NoSuchPath, format!("{}: {why}", path.escape_ascii()))
}

/// An error of the filesystem at `path`.
#[must_use]
pub fn path_error(path: &[u8], error: &VfsError) -> CommandError {
    CommandError::new(explain::vfs_exit(error), format!("{}: {}", path.escape_ascii(), sentence(error)))
}

/// Errors of single paths, where the others are gone on with.
#[derive(Debug, Default)]
pub struct PathErrors(Option<Exit>);

impl PathErrors {
    /// Tells `error` of one of `paths` and keeps it in mind.
    ///
    /// # Errors
    /// `error` itself if there is one path only, or nobody listens any more.
    pub fn note(&mut self, error: CommandError, paths: usize) -> CommandResult {
        if paths == 1 || error.is_silent() {
            return Err(error);
        }
        stderr::text(error.render());
        let is_graver = error.exit() == Exit::Tampered;
        self.0 = self.0.filter(|_| !is_graver).or(Some(error.exit()));
        Ok(())
    }

    /// Ends the command.
    ///
    /// # Errors
    /// With the first exit that was told; that of tampered data comes before others.
    pub fn end(self) -> CommandResult {
        self.0.map_or(Ok(()), |exit| Err(CommandError::silent(exit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_its_names_whatever_the_slashes() {
        let want = vec![b"b".to_vec(), b"..".to_vec(), b"a".to_vec()];
        assert_eq!(components(b"/a//./../b/"), want);
        assert!(components(b"/").is_empty() && components(b"").is_empty());
    }
}
