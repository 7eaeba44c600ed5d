//! restic keeps its repository in a mount, and backs one up.

use std::path::Path;

use crate::place::{Place, on_a_mount};
use crate::support::command::{command, run, run_ok};
use crate::support::manifest::Manifest;
use crate::support::seed;
use crate::support::tree::Tree;

struct Restic<'p> {
    repository: &'p Path,
    cache: tempfile::TempDir,
}

impl Restic<'_> {
    fn new(repository: &Path) -> Restic<'_> {
        let restic = Restic { repository, cache: tempfile::tempdir().unwrap() };
        restic.run(&["init"], Path::new("/"));
        restic
    }

    fn run(&self, args: &[&str], dir: &Path) -> String {
        let mut restic = command("restic", args);
        restic.env("RESTIC_REPOSITORY", self.repository).env("RESTIC_PASSWORD", "of restic's own");
        restic.env("RESTIC_CACHE_DIR", self.cache.path()).env("HOME", self.cache.path()).current_dir(dir);
        run(restic).ok().text()
    }

    /// Of `tree` in `dir`, by a path relative to it: so it is restored at the top.
    fn backup(&self, dir: &Path) {
        self.run(&["backup", "--quiet", "tree"], dir);
    }

    fn restore(&self, to: &Path) {
        self.run(&["restore", "latest", "--quiet", "--target", to.to_str().unwrap()], Path::new("/"));
    }

    fn check(&self) {
        self.run(&["check", "--quiet", "--read-data"], Path::new("/"));
    }
}

/// A tree with what restic can hold: it leaves sockets out, and takes link targets for text.
fn grow(tree: &Path) {
    std::fs::create_dir(tree).unwrap();
    Tree { small: 900, large: 6, specials: 0, symlinks: 0, ..Tree::SMALL }.grow(tree, seed("tree"));
    for target in ["deep", "absent/and gone", "日本語"] {
        std::os::unix::fs::symlink(target, tree.join("deep").join(format!("to {}", target.len()))).unwrap();
    }
}

#[test]
fn a_repository_in_the_mount_is_sound() {
    let (source, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = source.path().join("tree");
    grow(&tree);
    let wanted = Manifest::of(&tree);
    let place = Place::new();
    let cache = place.mounted(|root| {
        let repository = root.join("repository");
        let restic = Restic::new(&repository);
        restic.backup(source.path());
        restic.check();
        restic.cache
    });
    place.mounted(|root| {
        let repository = root.join("repository");
        let restic = Restic { repository: &repository, cache };
        restic.check();
        restic.restore(back.path());
        wanted
            .assert_same(&Manifest::of(&back.path().join("tree")), "restored from a repository in the mount");
        std::fs::write(tree.join("one more"), "file").unwrap();
        restic.backup(source.path());
        restic.run(&["forget", "--quiet", "--keep-last", "1", "--prune"], Path::new("/"));
        restic.check();
    });
}

#[test]
fn a_backup_of_the_mount_restores_to_the_same_tree() {
    let (source, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = source.path().join("tree");
    grow(&tree);
    let wanted = Manifest::of(&tree);
    on_a_mount(|root| {
        run_ok("cp", ["-a".as_ref(), tree.as_os_str(), root.as_os_str()]);
        let (repository, back) = (outside.path().join("repository"), outside.path().join("back"));
        let restic = Restic::new(&repository);
        restic.backup(root);
        restic.check();
        restic.restore(&back);
        wanted.assert_same(
            &Manifest::of(&back.join("tree")),
            "backed up from the mount and restored elsewhere",
        );
        restic.restore(&root.join("back"));
        wanted.assert_same(&Manifest::of(&root.join("back/tree")), "restored into the mount");
    });
}
