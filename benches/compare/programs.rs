//! What people do all day, on Coffer and its peers: rsync, restic, git and a build. The best peer is the one to beat.

use std::fs;
use std::path::{Path, PathBuf};

use super::Asked;
use super::ground::{Coffer, Ground, Site, Subject, drop_kernel_caches, seconds};
use super::peers::{Gocryptfs, Juicefs, Rclone, patiently};
use super::report::{Goal, Row, Series};
use crate::support::command::{Finished, command, shell};

/// Crates whose sources make the tree; all are dependencies of this one, so they are here.
const CRATES: [&str; 7] = ["clap_builder", "object_store", "rustix", "serde_core", "slatedb", "syn", "tokio"];
const SOURCES: usize = 100;

/// What is copied, backed up, cloned and built.
struct Things {
    dir: tempfile::TempDir,
}

impl Things {
    fn gather() -> Self {
        let things = Self { dir: tempfile::tempdir().expect("a directory") };
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home =
            home.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cargo"));
        let registries = fs::read_dir(home.join("registry/src")).expect("downloaded crates");
        let registry = registries.flatten().next().expect("a registry").path();
        fs::create_dir(things.tree()).expect("mkdir");
        for entry in fs::read_dir(registry).expect("crates").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if CRATES.iter().any(|wanted| is_version_of(&name, wanted)) {
                let mut copy = command("cp", ["-a"]);
                copy.arg(entry.path()).arg(things.tree());
                patiently(copy).ok();
            }
        }
        let project = things.dir.path().join("project");
        fs::create_dir(&project).expect("mkdir");
        let mut main = String::from("int main(void) { int sum = 0;\n");
        for number in 0..SOURCES {
            let source = format!(
                "#include \"all.h\"\nint f{number}(int x) {{ int sum = x; for (int i = 0; i < {number}; i++) sum += i * x; return sum; }}\n"
            );
            fs::write(project.join(format!("f{number}.c")), source).expect("a source");
            main.push_str(&format!("sum += f{number}(sum);\n"));
        }
        let declared: String = (0..SOURCES).map(|number| format!("int f{number}(int);\n")).collect();
        fs::write(project.join("all.h"), declared).expect("a header");
        fs::write(project.join("main.c"), format!("#include \"all.h\"\n{main}return sum == 1; }}\n"))
            .expect("main");
        let objects = "OBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))\nprogram: $(OBJECTS)\n\tcc -o $@ $^\n%.o: %.c all.h\n\tcc -c -o $@ $<\n";
        fs::write(project.join("Makefile"), objects).expect("a Makefile");
        shell(
            things.dir.path(),
            "cp -a tree project/tree && cd project && git init -q && git add -f . && \
             git -c user.name=x -c user.email=x@localhost commit -q -m all",
        );
        things
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    /// Has the kernel keep them in memory: this disk is not what is measured.
    fn warm(&self) {
        shell(self.dir.path(), "find tree project -type f -exec cat {} + > /dev/null");
    }
}

fn is_version_of(dir: &str, wanted: &str) -> bool {
    dir.strip_prefix(wanted)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
}

/// One measured work: what it is called, and how much faster than the best peer it shall be.
struct Work {
    name: &'static str,
    goal: f64,
}

fn rsync(from: &Path, to: &Path) -> Finished {
    let mut rsync = command("rsync", ["-a", "--delete"]);
    rsync.arg(format!("{}/", from.display())).arg(to);
    patiently(rsync)
}

/// Seconds for each of [`works`], on a filesystem mounted anew for each; without end, where it failed.
fn measure(subject: &dyn Subject, things: &Things, round: usize) -> Vec<f64> {
    let mut times = Vec::new();
    let mut timed = |work: &mut dyn FnMut(&Site<'_>) -> Finished| {
        subject.mounted(&mut |site| {
            drop_kernel_caches();
            things.warm();
            let mut finished = None;
            let time = seconds(|| {
                finished = Some(work(site));
                site.settle();
            });
            let failed = finished.filter(|finished| !finished.status.success());
            if let Some(finished) = &failed {
                eprintln!("{} failed: {finished}", subject.name());
            }
            times.push(if failed.is_some() { f64::INFINITY } else { time });
        });
    };
    let below = |site: &Site<'_>, what: &str| site.path(&format!("{what}{round}"));
    timed(&mut |site| rsync(&things.tree(), &below(site, "tree")));
    timed(&mut |site| rsync(&things.tree(), &below(site, "tree")));
    let out = things.dir.path().join("out");
    timed(&mut |site| rsync(&below(site, "tree"), &out));
    let mut same = command("diff", ["-r", "--no-dereference"]);
    same.arg(things.tree()).arg(&out);
    assert!(patiently(same).status.success(), "{} gave other contents back", subject.name());
    fs::remove_dir_all(&out).expect("remove the copy");
    timed(&mut |site| {
        let (repository, tree) = (below(site, "restic"), things.tree());
        let script = format!(
            "export RESTIC_PASSWORD=x; restic init -q --no-cache -r {repository}; \
             restic backup -q --no-cache -r {repository} {tree}",
            repository = repository.display(),
            tree = tree.display()
        );
        patiently(command("bash", ["-euc", &script]))
    });
    timed(&mut |site| {
        let script = format!(
            "git clone -q {project} {clone}; make -s -j2 -C {clone}",
            project = things.dir.path().join("project").display(),
            clone = below(site, "clone").display()
        );
        patiently(command("bash", ["-euc", &script]))
    });
    times
}

fn works(is_far: bool) -> [Work; 5] {
    let (rsync, rest) = if is_far { (2.0, 1.5) } else { (1.0, 1.0) };
    [
        Work { name: "rsync -a of a source tree in", goal: rsync },
        Work { name: "rsync -a again, nothing changed, mounted cold", goal: rsync },
        Work { name: "rsync -a out, mounted cold", goal: rsync },
        Work { name: "restic init and backup into the mount", goal: rest },
        Work { name: "git clone and make", goal: rest },
    ]
}

pub(crate) fn against_peers(asked: &Asked, ground: &Ground) -> Vec<Row> {
    let things = Things::gather();
    let mut subjects: Vec<Box<dyn Subject>> = vec![Box::new(Coffer::new(ground.volume(), &[]))];
    if asked.takes_peer("rclone") {
        subjects.push(Box::new(Rclone::crypt(ground)));
    }
    if asked.takes_peer("juicefs") {
        subjects.push(Box::new(Juicefs::new(ground)));
    }
    if asked.takes_peer("gocryptfs") {
        subjects.push(Box::new(Gocryptfs::new(ground)));
    }
    let mut all: Vec<Vec<Vec<f64>>> = subjects.iter().map(|_| Vec::new()).collect();
    for round in 0..asked.rounds.div_ceil(2) {
        for (subject, times) in subjects.iter().zip(&mut all) {
            let measured = measure(subject.as_ref(), &things, round);
            eprintln!("{}: {measured:.2?}", subject.name());
            times.push(measured);
        }
    }
    let ms = ground.round_trip.as_millis();
    let row = |(index, work): (usize, Work)| {
        let mut series: Vec<Series> = subjects
            .iter()
            .zip(&all)
            .map(|(subject, times)| {
                Series::new(subject.name(), times.iter().map(|times| times[index]).collect())
            })
            .collect();
        let coffer = series.remove(0);
        // The best first: it is the one that the goal speaks of.
        series.sort_by(|a, b| a.median().total_cmp(&b.median()));
        Row {
            work: format!("{}, {ms} ms", work.name),
            unit: "s",
            coffer,
            others: series,
            goal: Goal::Speed(work.goal),
        }
    };
    works(ms > 0).into_iter().enumerate().map(row).collect()
}
