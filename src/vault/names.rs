//! Seals and opens the paths of SlateDB's objects, component by component.

use object_store::path::Path;

use crate::crypto::KeyRing;

/// Directory of the bucket that holds them.
pub(super) const ROOT: &str = "m";
/// Deepest path: SlateDB's are three deep.
const DEPTH_MAX: usize = 8;

/// Where the object called `plain` lies in the bucket.
pub(super) fn seal(ring: &KeyRing, plain: &Path) -> Path {
    let mut sealed = Path::from(ROOT);
    let mut parent = String::new();
    for part in plain.parts() {
        sealed = sealed.join(ring.seal_component(&parent, part.as_ref()));
        push(&mut parent, part.as_ref());
    }
    sealed
}

/// Opens many paths of one listing; remembers the directory of the last.
pub(super) struct Opener<'a> {
    ring: &'a KeyRing,
    directory: Option<(Vec<String>, String)>,
}

impl<'a> Opener<'a> {
    pub(super) const fn new(ring: &'a KeyRing) -> Self {
        Self { ring, directory: None }
    }

    /// What the object at `sealed` is called; `None` if it is not ours.
    pub(super) fn open(&mut self, sealed: &Path) -> Option<Path> {
        let mut parts: Vec<String> = sealed.parts().map(|part| part.as_ref().to_owned()).collect();
        let name = parts.pop()?;
        if parts.len() > DEPTH_MAX {
            return None;
        }
        let parent = match &self.directory {
            Some((known, parent)) if *known == parts => parent.clone(),
            _ => {
                let parent = self.open_directory(&parts)?;
                self.directory = Some((parts, parent.clone()));
                parent
            }
        };
        let mut plain = parent.clone();
        push(&mut plain, &self.open_part(&parent, &name)?);
        Path::parse(plain).ok()
    }

    fn open_directory(&self, parts: &[String]) -> Option<String> {
        let (root, below) = parts.split_first()?;
        if root != ROOT {
            return None;
        }
        below.iter().try_fold(String::new(), |mut parent, part| {
            let opened = self.open_part(&parent, part)?;
            push(&mut parent, &opened);
            Some(parent)
        })
    }

    fn open_part(&self, parent: &str, sealed: &str) -> Option<String> {
        let opened = self.ring.open_component(parent, sealed).ok()?;
        let is_component = !opened.is_empty() && !opened.contains('/');
        is_component.then_some(opened)
    }
}

fn push(path: &mut String, part: &str) {
    if !path.is_empty() {
        path.push('/');
    }
    path.push_str(part);
}
