//! What a hostile header costs: next to no memory, whatever it asks for.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use coffer::cli::exit::Exit;
use serde_json::{Value, json};

use crate::support::Bench;

/// Above what the command takes for a header that is as it should be.
const MORE_BYTES_MAX: u64 = 64 << 20;

/// The exit code, and the most memory that the command had, in bytes.
#[allow(unsafe_code, clippy::zombie_processes)] // wait4 waits, and tells what std does not
fn most_memory(mut command: Command) -> (i32, u64) {
    let child = command.spawn().unwrap();
    let (mut status, mut usage) = (0, unsafe { std::mem::zeroed::<libc::rusage>() });
    let id = i32::try_from(child.id()).unwrap();
    // SAFETY: both places are ours and of the right type.
    assert_eq!(unsafe { libc::wait4(id, &raw mut status, 0, &raw mut usage) }, id);
    let code = std::process::ExitStatus::from_raw(status).code().unwrap();
    (code, usage.ru_maxrss.unsigned_abs() * 1024)
}

fn fingerprint(bench: &Bench) -> Command {
    // Not through another program, whose memory would count.
    let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
    command.args(["ls", "--passphrase-file", "right", "vol"]).current_dir(bench.path(""));
    command.env_clear().env("HOME", bench.path("home")).stderr(std::process::Stdio::null());
    command.stdout(std::process::Stdio::null());
    command
}

/// The volume's header with its body changed. Nobody but the admin could sign it.
fn with_body(good: &[u8], change: impl Fn(&mut Value)) -> Vec<u8> {
    let (body, rest) = good[12..].split_at(good.len() - 108);
    let mut body: Value = serde_json::from_slice(body).unwrap();
    change(&mut body);
    let body = serde_json::to_vec(&body).unwrap();
    [&good[..8], &u32::try_from(body.len()).unwrap().to_be_bytes(), &body, rest].concat()
}

#[test]
fn a4_no_header_takes_more_than_64_mib_beyond_what_a_good_one_does() {
    let bench = Bench::with_volume();
    let place = bench.path("vol/header/1");
    let good = fs::read(&place).unwrap();
    // A wrong passphrase is as far as a header goes that is right; with the least cost that is 32 MiB of scrypt.
    bench.secret("right", "not the passphrase");
    let (code, base) = most_memory(fingerprint(&bench));
    assert_eq!(code, i32::from(Exit::WrongKey.code()));

    let cost = |n: u64, r: u64, p: u64| {
        with_body(&good, |body| {
            body["slots"][0]["kdf"] = json!({ "algorithm": "scrypt", "n": n, "r": r, "p": p })
        })
    };
    let slots = |count: usize| {
        with_body(&good, |body| {
            let slot = body["slots"][0].clone();
            let numbered = (0..count).map(|id| {
                let mut slot = slot.clone();
                slot["id"] = json!(id);
                slot
            });
            body["slots"] = numbered.collect();
        })
    };
    let long = |length: u32| [&good[..8], &length.to_be_bytes(), &good[12..]].concat();
    let headers = [
        ("N = 2^40", cost(1 << 40, 8, 1)),
        ("r = 2^31", cost(1 << 15, 1 << 31, 1)),
        ("p = 2^31", cost(1 << 15, 8, 1 << 31)),
        ("2^63", cost(1 << 63, 8, 1)),
        ("10,000 slots", slots(10_000)),
        ("a body of 4 GiB, it says", long(u32::MAX)),
        ("brackets in brackets", [&good[..8], &60_000_u32.to_be_bytes(), &vec![b'['; 60_000]].concat()),
    ];
    for (what, header) in headers {
        fs::write(&place, header).unwrap();
        let (code, most) = most_memory(fingerprint(&bench));
        println!("{what}: {} MiB, with a good header {} MiB", most >> 20, base >> 20);
        assert_eq!(code, i32::from(Exit::HeaderDamaged.code()), "{what}");
        assert!(most < base + MORE_BYTES_MAX, "{what}: {most} bytes");
    }
    // An object of 4 GiB, of which the disk holds nothing.
    File::options().write(true).truncate(true).open(&place).unwrap().set_len(4 << 30).unwrap();
    let (code, most) = most_memory(fingerprint(&bench));
    assert_eq!(code, i32::from(Exit::HeaderDamaged.code()), "4 GiB");
    assert!(most < base + MORE_BYTES_MAX, "4 GiB: {most} bytes");
}
