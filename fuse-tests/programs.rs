//! Other people's programs, used as their users would: git, a compiler, SQLite, tar.

use std::fs;

use crate::place::{across_a_remount, on_a_mount};
use crate::support::command::{run_ok, shell};
use crate::support::manifest::Manifest;
use crate::support::seed;
use crate::support::tree::Tree;

const GIT_SETUP: &str = "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
 export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@t
";

#[test]
fn git_clones_commits_packs_and_checks() {
    let origin = tempfile::tempdir().unwrap();
    shell(
        origin.path(),
        &format!(
            "{GIT_SETUP} git init -q -b trunk
             for n in $(seq 60); do
               mkdir -p d$((n % 7)); seq $n $((n * 50)) > d$((n % 7))/f$n; git add -A; git commit -qm \"change $n\"
             done; git tag -am release v1"
        ),
    );
    let commit = shell(origin.path(), "git rev-parse HEAD").text();
    across_a_remount(
        |root| {
            let origin = origin.path().display();
            shell(
                root,
                &format!(
                    "{GIT_SETUP} git clone -q --no-local file://{origin} clone; cd clone; git fsck --strict
                     git switch -qc work; for n in $(seq 20); do echo $n > w$n; git add .; git commit -qm \"more $n\"; done
                     git rebase -q --onto HEAD~10 HEAD~5 work; git stash list; git worktree add -q ../tree trunk
                     git gc -q --prune=now; git checkout -q trunk 2>/dev/null || git checkout -q --detach v1"
                ),
            );
        },
        |root| {
            shell(
                root,
                "cd clone; git fsck --strict; git status --porcelain | (! grep .); git log --oneline work | wc -l",
            );
            assert_eq!(shell(&root.join("clone"), "git rev-parse v1^{commit}").text(), commit);
        },
    );
}

#[test]
fn a_program_is_built_and_run_inside_the_mount() {
    across_a_remount(
        |root| {
            shell(
                root,
                "mkdir src; for n in $(seq 25); do echo \"int f$n(void) { return $n; }\" > src/f$n.c; done
                 { echo '#include <stdio.h>'; for n in $(seq 25); do echo \"int f$n(void);\"; done
                   echo 'int main(void) { int s = 0;'; for n in $(seq 25); do echo \"s += f$n();\"; done
                   echo 'printf(\"%d\\n\", s); return 0; }'; } > src/main.c
                 printf 'objects := $(patsubst %%.c,%%.o,$(wildcard src/*.c))\\nsum: libsum.a src/main.o\\n\\t$(CC) -o $@ src/main.o libsum.a\\nlibsum.a: $(filter-out src/main.o,$(objects))\\n\\t$(AR) rcs $@ $^\\n' > Makefile
                 make -s -j4; test \"$(./sum)\" = 325",
            );
        },
        |root| {
            // Times came back to the nanosecond if make finds nothing to do.
            shell(
                root,
                "test \"$(./sum)\" = 325; make -q sum; touch src/f3.c; ! make -q sum; make -s; ./sum",
            );
        },
    );
}

fn sqlite_transactions(journal: &str, transactions: u32) {
    let script = format!(
        "python3 - <<'END'
import sqlite3, random
base = sqlite3.connect('base.db', isolation_level=None)
assert base.execute('PRAGMA journal_mode={journal}').fetchone()[0] == '{journal}'
base.execute('PRAGMA synchronous=NORMAL')
base.execute('CREATE TABLE t(id INTEGER PRIMARY KEY, grp INT, body BLOB)')
base.execute('CREATE INDEX i ON t(grp)')
dice, total = random.Random(11), 0
for n in range({transactions}):
    base.execute('BEGIN')
    for _ in range(3):
        base.execute('INSERT INTO t(grp, body) VALUES (?, ?)', (n % 50, dice.randbytes(dice.randrange(600))))
    if n % 10 == 0:
        base.execute('DELETE FROM t WHERE id IN (SELECT id FROM t WHERE grp = ? LIMIT 5)', (dice.randrange(50),))
    if n % 17 == 0:
        base.execute('ROLLBACK')
    else:
        base.execute('COMMIT')
        total = base.execute('SELECT count(*) FROM t').fetchone()[0]
other = sqlite3.connect('base.db')
assert other.execute('SELECT count(*) FROM t').fetchone()[0] == total
open('total', 'w').write(str(total))
END
sqlite3 base.db 'PRAGMA integrity_check'"
    );
    across_a_remount(
        |root| assert_eq!(shell(root, &script).text(), "ok\n"),
        |root| {
            let checked = shell(
                root,
                "sqlite3 base.db 'PRAGMA integrity_check; SELECT count(*) FROM t'; cat total; echo",
            )
            .text();
            let lines: Vec<&str> = checked.lines().collect();
            assert_eq!(lines[0], "ok");
            assert_eq!(lines[1], lines[2], "rows");
            shell(root, "sqlite3 base.db \"VACUUM; INSERT INTO t(grp) VALUES (1); PRAGMA integrity_check\"");
        },
    );
}

#[test]
fn sqlite_keeps_its_word_with_a_write_ahead_log() {
    sqlite_transactions("wal", 3_000);
}

#[test]
fn sqlite_keeps_its_word_with_a_rollback_journal() {
    // Each of them syncs three files.
    sqlite_transactions("delete", 1_000);
}

#[test]
fn tar_unpacks_and_packs_without_a_difference() {
    let (source, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Sockets do not go into archives.
    Tree { specials: 0, ..Tree::SMALL }.grow(source.path(), seed("tree"));
    let wanted = Manifest::of(source.path());
    let all = "--xattrs --xattrs-include='*' --acls --sparse --numeric-owner --format=posix";
    let packed = tempfile::NamedTempFile::new().unwrap();
    shell(source.path(), &format!("tar {all} -cf {} .", packed.path().display()));
    across_a_remount(
        |root| {
            shell(root, &format!("tar {all} -xpf {}", packed.path().display()));
            wanted.assert_same(&Manifest::of(root), "unpacked in the mount");
        },
        |root| {
            shell(root, &format!("tar {all} -cf - . | tar {all} -xpf - -C {}", back.path().display()));
            wanted.assert_same(&Manifest::of(back.path()), "packed from the mount and unpacked elsewhere");
        },
    );
}

#[test]
fn cp_mv_find_and_rm_agree_about_a_tree() {
    let source = tempfile::tempdir().unwrap();
    Tree::SMALL.grow(source.path(), seed("tree"));
    on_a_mount(|root| {
        let (copy, moved) = (root.join("copy"), root.join("away/moved"));
        run_ok("cp", ["-a".as_ref(), source.path().join(".").as_os_str(), copy.as_os_str()]);
        let wanted = Manifest::of(source.path());
        wanted.assert_same(&Manifest::of(&copy), "cp -a");
        shell(root, "mkdir away; mv copy away/moved; cp -a --reflink=auto away/moved copy");
        wanted.assert_same(&Manifest::of(&moved), "moved");
        wanted.assert_same(&Manifest::of(&copy), "copied within");
        shell(root, "test $(find away | wc -l) -gt 400; rm -rf away copy; test -z \"$(ls -A)\"");
    });
}

/// The kernel refuses it after it has opened the file, so that whoever empties files while opening them would have done so.
#[test]
fn a_program_that_runs_is_not_emptied_by_an_open_that_is_refused() {
    on_a_mount(|root| {
        let program = root.join("program");
        fs::copy("/bin/sleep", &program).unwrap();
        let length = fs::metadata(&program).unwrap().len();
        let mut running = std::process::Command::new(&program).arg("600").spawn().unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::TRUNC;
        let opened = rustix::fs::open(&program, flags, rustix::fs::Mode::empty());
        let (after, ended) = (fs::metadata(&program).unwrap().len(), running.try_wait().unwrap());
        running.kill().unwrap();
        running.wait().unwrap();
        assert_eq!((opened.err(), after, ended), (Some(rustix::io::Errno::TXTBSY), length, None));
        assert!(fs::read(&program).unwrap() == fs::read("/bin/sleep").unwrap());
    });
}
