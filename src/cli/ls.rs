//! `coffer ls`: lists files of a volume without mounting it.

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;

use super::error::{CommandError, CommandResult, stdout_error};
use super::open::{SourceArgs, with_tree};
use super::tree::{Entry, PathErrors, Tree, path_error};
use super::units::{show_size, show_time};
use crate::base::FileKind;
use crate::vfs::Attr;

/// Shown at the end of `coffer ls --help`.
pub const EXAMPLES: &str = "\
Names are listed one a line, those that start with a dot too. On a terminal, bytes that are not \
printable show as escapes; elsewhere names come out as they are.

Examples:
  coffer ls s3://bucket/home
  coffer ls -l s3://bucket/home /photos/2024
  coffer ls -lRH /srv/volume docs";

/// Arguments of `coffer ls`.
#[derive(clap::Args, Debug)]
pub struct LsArgs {
    /// The volume and how to open it.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Paths in the volume
    #[arg(value_name = "PATH", default_value = "/")]
    pub paths: Vec<OsString>,
    /// Show kind, permissions, links, owner, group, size, time and link target
    #[arg(short, long)]
    pub long: bool,
    /// Descend into directories
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Show sizes with units
    #[arg(short = 'H', long)]
    pub human: bool,
    /// Show times to the nanosecond, with their zone
    #[arg(long)]
    pub full_time: bool,
    /// List a directory itself, not what is in it
    #[arg(short, long)]
    pub directory: bool,
}

/// Lists.
///
/// # Errors
/// When the volume cannot be opened or a path not be read.
pub fn run(args: &LsArgs) -> CommandResult {
    with_tree(&args.source, async |tree| {
        let listing = Listing { args, tree: &tree, escape: io::stdout().is_terminal() };
        let mut out = BufWriter::new(io::stdout().lock());
        let mut errors = PathErrors::default();
        for path in &args.paths {
            if let Err(error) = listing.path(&mut out, path.as_bytes()).await {
                out.flush().map_err(|e| stdout_error(&e))?;
                errors.note(error, args.paths.len())?;
            }
        }
        out.flush().map_err(|e| stdout_error(&e))?;
        errors.end()
    })
}

struct Listing<'a> {
    args: &'a LsArgs,
    tree: &'a Tree,
    escape: bool,
}

impl Listing<'_> {
    async fn path(&self, out: &mut impl Write, path: &[u8]) -> CommandResult {
        let attr = self.tree.resolve(path, !self.args.directory && !self.args.long).await?;
        if attr.kind != FileKind::Directory || self.args.directory {
            let name = if path.is_empty() { b"/" } else { path };
            return self.print(out, name, &attr).await;
        }
        let mut waiting = vec![(Vec::new(), attr)];
        while let Some((prefix, dir)) = waiting.pop() {
            let shown = [path, b"/", &prefix].concat();
            let entries = self.tree.sorted(dir.ino).await.map_err(|e| path_error(&shown, &e))?;
            let mut below = Vec::new();
            for Entry { name, attr } in entries {
                let full = if prefix.is_empty() { name } else { [&prefix[..], b"/", &name].concat() };
                self.print(out, &full, &attr).await?;
                if self.args.recursive && attr.kind == FileKind::Directory {
                    below.push((full, attr));
                }
            }
            waiting.extend(below.into_iter().rev());
        }
        Ok(())
    }

    async fn print(&self, out: &mut impl Write, name: &[u8], attr: &Attr) -> CommandResult {
        let mut line = Vec::new();
        if self.args.long {
            line.extend_from_slice(self.columns(attr).as_bytes());
        }
        self.push_name(&mut line, name);
        if self.args.long && attr.kind == FileKind::Symlink {
            let target = self.tree.vfs.readlink(attr.ino).await.map_err(|e| path_error(name, &e))?;
            line.extend_from_slice(b" -> ");
            self.push_name(&mut line, &target);
        }
        line.push(b'\n');
        out.write_all(&line).map_err(|e| stdout_error(&e))
    }

    fn push_name(&self, line: &mut Vec<u8>, name: &[u8]) {
        if self.escape {
            line.extend_from_slice(printable(name).as_bytes());
        } else {
            line.extend_from_slice(name);
        }
    }

    fn columns(&self, attr: &Attr) -> String {
        let size = match attr.kind {
            FileKind::CharDevice | FileKind::BlockDevice => {
                format!(
                    "{},{}",
                    (attr.rdev >> 8) & 0xFFF,
                    (attr.rdev & 0xFF) | ((attr.rdev >> 12) & 0xF_FF00)
                )
            }
            _ if self.args.human => show_size(attr.size),
            _ => attr.size.to_string(),
        };
        let width = if self.args.human { 10 } else { 12 };
        let time = show_time(attr.mtime, self.args.full_time);
        format!(
            "{} {:>3} {:>5} {:>5} {size:>width$} {time} ",
            mode_text(attr),
            attr.nlink,
            attr.uid,
            attr.gid
        )
    }
}

/// `name` for a terminal: whole if it is printable UTF-8, else with escapes for what is not.
#[must_use]
pub fn printable(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || turns_text(character) {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Whether it has what comes after it shown in another order, so that a name looks like another one.
const fn turns_text(character: char) -> bool {
    matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Kind and permissions in the ten characters of `ls -l`.
fn mode_text(attr: &Attr) -> String {
    let kind = match attr.kind {
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Socket => 's',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = attr.perm >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (attr.perm & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Refuses an empty path argument, which a shell gives for an unset variable.
///
/// # Errors
/// When one of `paths` is empty.
pub fn no_empty_path(paths: &[OsString]) -> CommandResult {
    if paths.iter().any(|path| path.is_empty()) {
        return Err(CommandError::usage("a path is empty"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Ino, Time};

    #[test]
    fn permissions_read_as_ls_writes_them() {
        let zero = Time::default();
        let mut attr = Attr {
            ino: Ino(1),
            kind: FileKind::Regular,
            perm: 0,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            atime: zero,
            mtime: zero,
            ctime: zero,
            btime: zero,
            is_unsettled: false,
        };
        for (kind, perm, text) in [
            (FileKind::Regular, 0o644, "-rw-r--r--"),
            (FileKind::Directory, 0o1777, "drwxrwxrwt"),
            (FileKind::Regular, 0o6750, "-rwsr-s---"),
            (FileKind::Fifo, 0o7000, "p--S--S--T"),
        ] {
            (attr.kind, attr.perm) = (kind, perm);
            assert_eq!(mode_text(&attr), text);
        }
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        assert_eq!(printable("naïve 日本".as_bytes()), "naïve 日本");
        assert_eq!(printable("a\u{202E}fdp.exe".as_bytes()), "a\\u{202e}fdp.exe");
        assert_eq!(printable(b"a\x1b[2Jb\n\xff\xc2\x9b"), "a\\u{1b}[2Jb\\n\\xff\\u{9b}");
    }
}
