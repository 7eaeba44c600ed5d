//! The bucket's server is killed and started again under a command: it waits, or fails and has left things whole.

use std::fs;
use std::process::Command;
use std::time::Duration;

use coffer::cli::exit::Exit;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::key_kills::Keys;
use crate::kills::{rounds, time_of};
use crate::support::command::{Finished, run};
use crate::support::seed;
use crate::support::servers::{self, Server};
use crate::support::volume::Volume;

/// Runs `command`, and kills the server after a random part of `span` under it.
fn run_through_a_kill(
    command: Command,
    server: &mut Server,
    dice: &mut SmallRng,
    span: Duration,
) -> Finished {
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(command));
        // The pause is the fault that is injected, not a way to wait for anything.
        std::thread::sleep(span.mul_f64(dice.random_range(0.0..1.0)));
        server.kill();
        server.start_again();
        running.join().unwrap()
    })
}

/// Whether the command did what it should. If it did not, then because there was no server.
fn is_done(finished: &Finished) -> bool {
    assert!(
        [Exit::Success, Exit::StoreUnreachable].map(|exit| i32::from(exit.code())).contains(&finished.code()),
        "{finished}"
    );
    finished.status.success()
}

fn noise(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 3 << 20];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

#[test]
fn an_init_whose_server_is_killed_leaves_a_whole_volume_or_none() {
    let mut dice = SmallRng::seed_from_u64(seed("kills of the server under init"));
    let mut server = servers::seaweedfs();
    let at =
        |server: &Server, name: u32| Volume::at_without_init(server, &format!("s3://coffer/volume{name}"));
    let rounds = rounds(3);
    let span = time_of(at(&server, rounds).init_command());
    for round in 0..rounds {
        let volume = at(&server, round);
        let first = run_through_a_kill(volume.init_command(), &mut server, &mut dice, span);
        println!("round {round}: {}", first.status);
        let (is_done, again) = (is_done(&first), run(volume.init_command()));
        let exists = again.code() == i32::from(Exit::VolumeExists.code());
        assert!(exists || (!is_done && again.status.success()), "round {round}: {first}\n{again}");
        let mount = volume.mount();
        fs::write(mount.path("file"), "x").unwrap();
        mount.unmount();
    }
}

#[test]
fn keys_are_changed_or_not_when_the_server_is_killed_meanwhile() {
    let mut dice = SmallRng::seed_from_u64(seed("kills of the server under key changes"));
    let mut server = servers::seaweedfs();
    let keys = Keys::of(Volume::on(&server));
    let mount = keys.volume.mount();
    fs::write(mount.path("file"), noise(0)).unwrap();
    mount.unmount();
    let passwd = time_of(keys.passwd());
    assert!(keys.settle(0), "a change that nobody disturbed");
    let rotate = time_of(keys.rotate());
    assert!(keys.settle(0), "a rotation that nobody disturbed");
    for round in 0..rounds(2).min(40) {
        let changed = run_through_a_kill(keys.passwd(), &mut server, &mut dice, passwd);
        assert!(keys.settle(round) || !is_done(&changed), "round {round}: {changed}");
        let rotated = run_through_a_kill(keys.rotate(), &mut server, &mut dice, rotate);
        println!("round {round}: {}, {}", changed.status, rotated.status);
        let (is_done, is_begun) = (is_done(&rotated), keys.settle(round));
        assert!(is_begun || !is_done, "round {round}: {rotated}");
        if keys.is_rotating() {
            assert!(!is_done && is_begun, "round {round}: {rotated}");
            keys.end_rotation();
        }
        assert!(!keys.is_rotating());
        let mount = keys.volume.mount();
        assert!(fs::read(mount.path("file")).unwrap() == noise(0), "round {round}: the file is another");
        mount.unmount();
    }
}

#[test]
fn a_key_is_added_or_not_and_removed_or_not_when_the_server_is_killed_meanwhile() {
    let mut dice = SmallRng::seed_from_u64(seed("kills of the server under key add and key remove"));
    let mut server = servers::seaweedfs();
    let keys = Keys::of(Volume::on(&server));
    let mount = keys.volume.mount();
    fs::write(mount.path("file"), noise(0)).unwrap();
    mount.unmount();
    let others = keys.others();
    let add = time_of(keys.add());
    let second = keys.second(0).expect("an addition that nobody disturbed");
    let remove = time_of(keys.remove(second));
    assert_eq!(keys.second(0), None, "a removal that nobody disturbed");
    let (rounds, mut tally) = (rounds(3), [0; 4]);
    for round in 0..rounds {
        let added = run_through_a_kill(keys.add(), &mut server, &mut dice, add);
        let (is_done, second) = (is_done(&added), keys.second(round));
        assert!(second.is_some() || !is_done, "round {round}: it added nothing: {added}");
        assert_eq!(keys.others(), others, "round {round}: an addition changed other keys: {added}");
        tally[0] += u32::from(second.is_some());
        tally[1] += u32::from(is_done);
        let second = second.unwrap_or_else(|| {
            run(keys.add()).ok();
            keys.second(round).expect("an addition that nobody disturbed")
        });
        let removed = run_through_a_kill(keys.remove(second), &mut server, &mut dice, remove);
        let (is_done, left) = (self::is_done(&removed), keys.second(round));
        assert!(
            left.is_none_or(|left| left == second && !is_done),
            "round {round}: {left:?} of {second} is left: {removed}"
        );
        assert_eq!(keys.others(), others, "round {round}: a removal changed other keys: {removed}");
        tally[2] += u32::from(left.is_none());
        tally[3] += u32::from(is_done);
        if let Some(left) = left {
            run(keys.remove(left)).ok();
            assert_eq!(keys.second(round), None, "round {round}: it is there after it was removed again");
        }
        assert!(!keys.is_rotating(), "round {round}");
        let mount = keys.volume.mount();
        assert!(fs::read(mount.path("file")).unwrap() == noise(0), "round {round}: the file is another");
        mount.unmount();
    }
    let [added, told, removed, said] = tally;
    println!(
        "of {rounds} additions {added} took effect, {told} said so; of the removals {removed}, {said} said so"
    );
}

#[test]
fn an_unmount_whose_server_is_killed_waits_and_saves_everything() {
    let mut dice = SmallRng::seed_from_u64(seed("kills of the server under unmounts"));
    let mut server = servers::seaweedfs();
    let volume = Volume::on(&server);
    let mut span = None;
    for round in 0..=rounds(3) {
        let mount = volume.mount();
        for number in 0..round {
            let found = fs::read(mount.path(number.to_string())).unwrap();
            assert!(found == noise(number.into()), "round {round}: file {number} is not as it was saved");
        }
        fs::write(mount.path(round.to_string()), noise(round.into())).unwrap();
        let mut umount = volume.coffer(["umount"]);
        umount.arg(&mount.dir);
        let Some(span) = span else {
            span = Some(time_of(umount));
            mount.wait_until_gone();
            continue;
        };
        run_through_a_kill(umount, &mut server, &mut dice, span).ok();
        assert!(!mount.is_mounted(), "round {round}");
        mount.wait_until_gone();
    }
}
