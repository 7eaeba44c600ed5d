//! `kill -9` while segments are rewritten, merged and deleted: of `coffer gc`, and of a mount that cleans by itself.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::Value;

use crate::kills::{kill_at_random, rounds, time_of};
use crate::support::command::{run, wait_until};
use crate::support::mount::Mount;
use crate::support::volume::Volume;
use crate::support::{seed, servers};

const BLOCK: usize = 65_536;
const BLOCKS: usize = 256;
/// Codes of a check that found nothing, or nothing but leftovers of a crash.
const SOUND: [i32; 2] = [0, 33];

/// A volume with one file, of which three of four blocks are overwritten again and again, and what it must hold.
struct Bench<'v> {
    volume: &'v Volume,
    state: std::path::PathBuf,
    data: Vec<u8>,
    dice: SmallRng,
}

impl<'v> Bench<'v> {
    fn new(volume: &'v Volume, what: &str) -> Bench<'v> {
        let mut dice = SmallRng::seed_from_u64(seed(what));
        let mut data = vec![0; BLOCKS * BLOCK];
        dice.fill_bytes(&mut data);
        let bench = Bench { volume, state: volume.new_dir("state"), data, dice };
        let mount = bench.mount();
        fs::write(mount.path("file"), &bench.data).unwrap();
        mount.unmount();
        bench
    }

    /// Mounts with the same state folder: whoever was killed is known to be gone.
    fn mount(&self) -> Mount<'v> {
        self.volume.mount_spec().state_dir(&self.state).mount()
    }

    /// Leaves segments of which much is dead.
    fn hollow_out(&mut self, path: &Path) {
        let file = File::options().write(true).open(path).unwrap();
        for block in 0..BLOCKS {
            if self.dice.random_range(0..4) > 0 {
                let part = &mut self.data[block * BLOCK..][..BLOCK];
                self.dice.fill_bytes(part);
                file.write_all_at(part, (block * BLOCK) as u64).unwrap();
            }
        }
        file.sync_all().unwrap();
    }

    fn gc(&self, args: &[&str]) -> Command {
        let mut gc = self.volume.coffer([&["gc", "--json"], args].concat());
        gc.arg("--state-dir").arg(&self.state).arg("--passphrase-file").arg(self.volume.passphrase_file());
        gc
    }

    fn check_file(&self, mount: &Mount<'_>, round: u32) {
        let found = fs::read(mount.path("file")).unwrap();
        assert!(found == self.data, "round {round}: the file is not what was synced\n{}", mount.said());
    }

    /// Everything adds up, and every byte of every segment in use can be read.
    fn check_volume(&self, round: u32) {
        let mut check = self.volume.coffer(["check", "--read-data", &self.volume.url, "--state-dir"]);
        check.arg(&self.state).arg("--passphrase-file").arg(self.volume.passphrase_file());
        let checked = run(check);
        assert!(SOUND.contains(&checked.code()), "round {round}: {checked}");
        // How many objects there are shows whether a life of kills piles them up.
        println!("round {round}: {}", checked.text().lines().last().unwrap_or_default());
    }

    /// What a killed cleaning left undone, the next does.
    fn finish(self, rounds: u32) {
        run(self.gc(&["--now", &self.volume.url])).ok();
        let plan = run(self.gc(&["--dry-run", &self.volume.url])).ok().text();
        let plan: Value = serde_json::from_str(&plan).unwrap();
        assert_eq!(plan["sparse"]["count"], 0, "{plan}");
        self.check_volume(rounds);
        let mount = self.mount();
        self.check_file(&mount, rounds);
        mount.unmount();
    }
}

#[test]
fn a_killed_gc_loses_nothing_and_the_next_one_goes_on() {
    let volume = Volume::local();
    let mut bench = Bench::new(&volume, "kills of gc");
    let hollow = |bench: &mut Bench<'_>, round| {
        let mount = bench.mount();
        bench.check_file(&mount, round);
        bench.hollow_out(&mount.path("file"));
        mount.unmount();
    };
    hollow(&mut bench, 0);
    let span = time_of(bench.gc(&["--now", &volume.url]));
    let (rounds, mut killed) = (rounds(4), 0);
    for round in 0..rounds {
        hollow(&mut bench, round);
        let gc = bench.gc(&["--now", &volume.url]);
        killed += u32::from(!kill_at_random(gc, &mut bench.dice, span));
        if round % 10 == 3 {
            bench.check_volume(round);
        }
    }
    println!("{killed} of {rounds} cleanings were killed");
    bench.finish(rounds);
}

#[test]
fn a_mount_that_is_killed_while_it_cleans_loses_nothing() {
    let volume = Volume::local();
    let mut bench = Bench::new(&volume, "kills of cleaning mounts");
    let (rounds, mut cleaned) = (rounds(4), 0);
    for round in 0..rounds {
        let mount = bench.mount();
        bench.check_file(&mount, round);
        bench.hollow_out(&mount.path("file"));
        if round % 2 == 0 {
            // By itself: it begins when it has counted what is dead.
            let dead = |status: Value| status["mounts"][0]["volume"]["dead_bytes"].as_u64();
            wait_until("the mount knows what is dead", Duration::from_secs(120), || {
                dead(mount.status()).is_some()
            });
            let pause = bench.dice.random_range(0..2_500);
            // The pause is the fault that is injected, not a way to wait for anything.
            std::thread::sleep(Duration::from_millis(pause));
            let done = mount.status()["mounts"][0]["volume"]["cleaned"]["rewritten_count"].as_u64();
            cleaned += u32::from(done > Some(0));
            mount.crash();
        } else {
            // When asked, at once.
            let mut gc = bench.gc(&["--now", mount.dir.to_str().unwrap()]);
            let mut asking = gc.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(bench.dice.random_range(0..800)));
            mount.crash();
            asking.wait().unwrap();
        }
        if round % 10 == 3 {
            bench.check_volume(round);
        }
    }
    println!(
        "of {} mounts killed while cleaning by themselves {cleaned} had rewritten something",
        rounds / 2
    );
    bench.finish(rounds);
}

#[test]
fn a_bucket_whose_server_is_killed_while_a_mount_cleans_loses_nothing() {
    let mut server = servers::seaweedfs();
    let volume = Volume::on(&server);
    let mut bench = Bench::new(&volume, "kills of the server beside cleaning");
    let (rounds, mut finished) = (rounds(2), 0);
    for round in 0..rounds {
        let mount = bench.mount();
        bench.check_file(&mount, round);
        bench.hollow_out(&mount.path("file"));
        let mut gc = bench.gc(&["--now", mount.dir.to_str().unwrap()]);
        let mut asking = gc.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(bench.dice.random_range(0..600)));
        server.kill();
        server.start_again();
        // What it answers depends on how long the server was away; what is in the file does not.
        finished += u32::from(asking.wait().unwrap().success());
        bench.check_file(&mount, round);
        if round % 10 == 3 {
            mount.crash();
            bench.check_volume(round);
        } else {
            mount.unmount();
        }
    }
    println!("{finished} of {rounds} cleanings went on when the server came back");
    bench.finish(rounds);
}
