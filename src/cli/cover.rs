//! Refuses to mount over what the mount itself needs: it would wait for itself.

use std::path::{Path, PathBuf};

use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::logging::absolute;

/// Refuses if whoever opens `path`, which is the `what` of messages, comes by `point`.
///
/// # Errors
/// That it would be covered; or the current directory is gone.
pub fn refuse(what: &str, path: &Path, point: &Path) -> CommandResult {
    let point_real = real(point);
    if !ways(&absolute(path)?).any(|way| way.starts_with(&point_real)) {
        return Ok(());
    }
    let message = format!("cannot mount at {}: the {what} {} lies below it", point.display(), path.display());
    Err(CommandError::new(Exit::BadMountPoint, message))
}

/// The places on the way to `path`: a link leads elsewhere, but lies somewhere itself.
fn ways(path: &Path) -> impl Iterator<Item = PathBuf> {
    let parts = path.ancestors().filter_map(|part| Some(real(part.parent()?).join(part.file_name()?)));
    parts.chain([real(path)])
}

/// `path` without links; of what is not there, as far as it is.
fn real(path: &Path) -> PathBuf {
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Ok(found), ..) => found,
        (Err(_), Some(parent), Some(name)) => real(parent).join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_is_covered_wherever_it_or_a_link_to_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["point/below", "elsewhere"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        symlink(at("elsewhere"), at("point/out")).unwrap();
        symlink(at("point/below"), at("in")).unwrap();
        symlink(at("point"), at("link")).unwrap();
        for (path, point, is_covered) in [
            ("point", "point", true),
            ("point/below/file", "point", true),
            ("point/absent/file", "link", true),
            ("point/out/file", "point", true),
            ("in/file", "point", true),
            ("elsewhere/file", "point", false),
            ("pointed", "point", false),
            ("elsewhere", "point/below", false),
        ] {
            let refused = refuse("file", &at(path), &at(point));
            assert_eq!(refused.is_err(), is_covered, "{path} below {point}");
        }
    }
}
