//! Where the keys of a running mount are, and where they are not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit, setrlimit};

use crate::secrecy::Search;
use crate::support::command::{DEADLINE, command, run, wait_until};
use crate::support::mount::Mount;
use crate::support::secrets::{self, Found, Needle, Opener};
use crate::support::tree::is_root;
use crate::support::volume::{COFFER, Volume};

const NOBODY: u32 = 65_534;

fn secrets_of(volume: &Volume) -> (Vec<Needle>, Vec<Needle>) {
    let header = fs::read(volume.bucket().join("header/1")).unwrap();
    secrets::of_volume(&header, &Opener::Passphrase(volume.passphrase.as_bytes()))
}

/// Searches the memory of the mount's process while it stands still.
fn search(mount: &Mount<'_>, needles: &[Needle]) -> Vec<Found> {
    let [pid] = mount.daemons()[..] else { panic!("not one process: {:?}", mount.daemons()) };
    kill_process(pid, Signal::STOP).unwrap();
    let found = secrets::search(pid.as_raw_nonzero().get() as u32, needles);
    kill_process(pid, Signal::CONT).unwrap();
    found
}

/// Uses every working key that a mount uses.
fn work(mount: &Mount<'_>) {
    for number in 0..20 {
        let dir = mount.path(format!("dir{number}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("small"), "small").unwrap();
        fs::write(dir.join("large"), vec![number; 200_000]).unwrap();
        mount.sync();
        fs::read_dir(&dir).unwrap().count();
    }
}

#[test]
fn a10_keys_of_a_mount_are_in_locked_pages_only_and_what_unlocked_it_is_nowhere() {
    if !is_root() {
        return println!("only root can read the memory of a process that is not dumpable");
    }
    let volume = Volume::local();
    let (behind, working) = secrets_of(&volume);
    let mount = volume.mount_spec().args(&["-vv"]).mount();
    work(&mount);
    let left = search(&mount, &behind);
    assert!(left.is_empty(), "{left:#?}");
    let found = search(&mount, &working);
    for (what, _) in &working {
        let places: Vec<_> = found.iter().filter(|found| found.what == *what).collect();
        assert!(!places.is_empty(), "{what} was not found where it must be: the search finds nothing");
    }
    let astray: Vec<_> =
        found.iter().filter(|found| !found.region.is_locked() || !found.region.is_not_dumped()).collect();
    assert!(astray.is_empty(), "{astray:#?}");
    assert_eq!(mount.status()["mounts"][0]["keys_unlocked"], serde_json::Value::Null);

    let all = Search::new(&[behind, working].concat());
    let pid = mount.daemons()[0].as_raw_nonzero();
    let places = ["cmdline", "environ"].map(|name| format!("/proc/{pid}/{name}"));
    for place in places.iter().map(Path::new).chain([mount.log.as_path()]) {
        let bytes = fs::read(place).unwrap();
        assert!(!bytes.is_empty(), "{}", place.display());
        assert_eq!(all.find(&bytes), None, "in {}", place.display());
    }
    mount.unmount();
}

/// What a debugger takes of a process without being asked for more is what a core dump has.
#[test]
fn a10_an_image_that_a_debugger_takes_of_the_process_holds_no_key() {
    if !is_root() || !has_gcore() {
        return println!("only root can take an image of a process that is not dumpable, with gcore of gdb");
    }
    let volume = Volume::local();
    let (behind, working) = secrets_of(&volume);
    let mount = volume.mount();
    work(&mount);
    let [pid] = mount.daemons()[..] else { panic!("not one process: {:?}", mount.daemons()) };
    let (prefix, pid) = (volume.new_dir("images").join("image"), pid.as_raw_nonzero().to_string());
    run(command("gcore", ["-o", prefix.to_str().unwrap(), &pid])).ok();
    let image = prefix.with_extension(pid);
    let known = "what is no secret".to_owned();
    let needles = [&behind[..], &working, &[(known.clone(), volume.url.clone().into_bytes())]].concat();
    assert_eq!(secrets::search_image(&image, &needles), BTreeSet::from([known]));
    fs::remove_file(&image).unwrap();
    mount.unmount();
}

fn has_gcore() -> bool {
    Command::new("gcore").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Nobody sees the volume any more, and what was written is still on its way: an unplugged disk holds it up.
#[test]
fn a10_a_process_that_outlives_its_mount_keeps_keys_in_locked_pages_only() {
    if !is_root() {
        return println!("only root can read the memory of a process that is not dumpable");
    }
    let volume = Volume::local();
    let (behind, working) = secrets_of(&volume);
    let mount = volume.mount_spec().args(&["-o", "nohold"]).mount();
    work(&mount);
    let (bucket, aside) = (volume.bucket(), volume.new_dir("aside").join("vol"));
    fs::rename(&bucket, &aside).unwrap();
    fs::write(mount.path("late"), vec![7; 100_000]).unwrap();
    run(command("umount", [mount.dir.as_os_str()])).ok();
    assert!(!mount.is_mounted());
    let left = search(&mount, &behind);
    assert!(left.is_empty(), "{left:#?}");
    let found = search(&mount, &working);
    let is_astray = |found: &&Found| !found.region.is_locked() || !found.region.is_not_dumped();
    assert!(!found.is_empty() && !found.iter().any(|found| is_astray(&found)), "{found:#?}");
    fs::rename(&aside, &bucket).unwrap();
    mount.wait_until_gone();
}

/// A process that does not outlive the test.
struct Running(Child);

impl Running {
    /// Begins with no limit on core dumps, and would leave one in `dir`.
    fn begin(mut command: Command, dir: &Path) -> Self {
        command.current_dir(dir);
        #[allow(unsafe_code)] // one system call, after fork and before exec, which allocates nothing
        unsafe {
            command.pre_exec(|| Ok(setrlimit(Resource::Core, Rlimit { current: None, maximum: None })?))
        };
        Self(command.spawn().unwrap())
    }

    fn proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.0.id()).into()
    }

    fn is_program(&self, name: &str) -> bool {
        fs::read_to_string(self.proc("comm")).is_ok_and(|comm| comm.trim() == name)
    }

    /// Kills it the way a failed assertion does, with the limit lifted again where this machine lets us.
    fn abort(&mut self) -> ExitStatus {
        let lifted = Rlimit { current: None, maximum: None };
        if let Err(error) = prlimit(Some(Pid::from_child(&self.0)), Resource::Core, lifted) {
            println!("the limit on core dumps stays: {error}");
        }
        kill_process(Pid::from_child(&self.0), Signal::ABORT).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a10_no_core_is_dumped_even_where_the_limit_is_lifted() {
    let volume = Volume::local();
    let (dir, point, state) = (volume.new_dir("cores"), volume.new_dir("mnt"), volume.new_dir("state"));
    let mut other = Running::begin(command("sleep", ["100"]), &dir);
    wait_until("sleep sleeps", DEADLINE, || other.is_program("sleep"));
    assert!(other.abort().core_dumped(), "nothing dumps core here: the test cannot fail");

    let mut mount = volume.coffer(["mount", "-f", &volume.url]);
    mount.arg(&point).arg("--state-dir").arg(&state).arg("--passphrase-file").arg(volume.passphrase_file());
    let mut mount = Running::begin(mount, &dir);
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    wait_until("the mount is there", DEADLINE, || mounts().contains(&*point.to_string_lossy()));
    let limits = fs::read_to_string(mount.proc("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let status = mount.abort();
    run(command("fusermount3", ["-u".as_ref(), "-z".as_ref(), point.as_os_str()]));
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::ABORT.as_raw()), false));
}

/// The kernel gives the files of a process that is not dumpable to root, whoever runs it: nobody else can attach to it,
/// read its memory or its environment.
#[test]
fn a10_other_processes_of_the_same_user_cannot_look_into_the_process() {
    if !is_root() {
        return println!("only root can become another user");
    }
    let volume = Volume::local();
    volume.let_others_through();
    let dir = volume.new_dir_of(NOBODY, "of-nobody");
    let program = dir.join("coffer");
    fs::copy(COFFER, &program).unwrap();
    let ask = ["init", "./vol", "--passphrase-command", "exec sleep 100"];
    let mut asking = Running::begin(nobodys(volume.program(program.to_str().unwrap(), ask)), &dir);
    let has_child = || fs::read_to_string(asking.proc(&format!("task/{}/children", asking.0.id())));
    wait_until("it waits for a passphrase", DEADLINE, || has_child().is_ok_and(|pids| !pids.is_empty()));
    let other = Running::begin(nobodys(command("sleep", ["100"])), &dir);
    wait_until("sleep sleeps", DEADLINE, || other.is_program("sleep"));
    let owner = |running: &Running| fs::metadata(running.proc("environ")).unwrap().uid();
    assert_eq!((owner(&other), owner(&asking)), (NOBODY, 0));
    for child in has_child().unwrap().split_whitespace() {
        kill_process(Pid::from_raw(child.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    }
    assert_eq!(asking.0.wait().unwrap().code(), Some(25));
}

/// Without the right to lock memory, as an ordinary user with a limit of nought has it.
const MAY_NOT_LOCK: &str = "ulimit -l 0; exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock \"$@\"";

#[test]
fn where_memory_cannot_be_locked_a_mount_says_so_once_or_is_refused_if_asked() {
    if !is_root() {
        return println!("the limit is lowered by setpriv, as root");
    }
    let volume = Volume::local();
    let mount = volume.mount_spec().wrapped_in(MAY_NOT_LOCK).mount();
    work(&mount);
    let log = fs::read_to_string(&mount.log).unwrap();
    assert_eq!(log.matches("keys cannot be locked").count(), 1, "{log}");
    assert!(mount.status()["mounts"][0]["keys_unlocked"].is_string(), "{}", mount.status());
    let (status, dir) = (volume.coffer(["status"]), mount.dir.clone());
    let mut status = status;
    status.arg(dir);
    assert!(run(status).text().contains("may be swapped out"));
    mount.unmount();

    let asked = volume.mount_spec().wrapped_in(MAY_NOT_LOCK).args(&["--require-locked-keys"]);
    let refused = asked.try_mount().err().expect("mounted all the same");
    assert_eq!(refused.code(), 1, "{refused}");
    assert!(refused.stderr.contains("ulimit -l"), "{refused}");
    volume.mount_spec().args(&["-o", "require-locked-keys"]).mount().unmount();
}

/// The same command, run by a user who has no rights.
fn nobodys(command: Command) -> Command {
    let mut setpriv = crate::support::command::command("setpriv", ["--clear-groups"]);
    setpriv.args(["--reuid", "65534", "--regid", "65534", "--"]);
    setpriv.arg(command.get_program()).args(command.get_args()).current_dir("/");
    setpriv.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    setpriv
}

/// Another user has the way to everything opened to him but what is closed by Coffer itself.
#[test]
fn d16_another_user_reaches_neither_the_control_socket_nor_the_local_state() {
    if !is_root() {
        return println!("only root can become another user");
    }
    let volume = Volume::local();
    volume.let_others_through();
    let mount = volume.mount();
    fs::set_permissions(&mount.state_dir, fs::Permissions::from_mode(0o755)).unwrap();
    work(&mount);
    let folder = fs::read_dir(&mount.state_dir).unwrap().map(|entry| entry.unwrap().path());
    let folder = folder.into_iter().find(|path| path.is_dir()).expect("the volume's folder");
    let socket = format!("/run/coffer/{}-0.sock", mount.daemons()[0].as_raw_nonzero());
    assert!(Path::new(&socket).exists(), "{socket}");
    for name in ["pin", "device", "sessions", "lock"] {
        let mode = fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
    for path in [&mount.log, &mount.state_dir.join("known-volumes.json")] {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}: {mode:o}", path.display());
    }
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let refused = [
        command("ls", [folder.as_os_str()]),
        command("cat", [folder.join("pin")]),
        command("cat", [&mount.log]),
        command("ls", ["/run/coffer"]),
        command("stat", [&socket]),
        command("ls", [&mount.dir]),
    ];
    for tried in refused {
        let tried = run(nobodys(tried));
        assert!(!tried.status.success() && tried.stderr.contains("Permission denied"), "{tried}");
    }
    let program = volume.new_dir("program").join("coffer");
    fs::copy(COFFER, &program).unwrap();
    for verb in ["status", "sync", "umount"] {
        let mut coffer = volume.program(program.to_str().unwrap(), [verb]);
        // His own place for sockets, in which there are none.
        coffer.arg(&mount.dir).env("XDG_RUNTIME_DIR", volume.new_dir_of(NOBODY, "run"));
        let tried = run(nobodys(coffer));
        assert_eq!(tried.code(), 24, "{tried}");
    }
    assert!(mount.is_mounted());
    mount.unmount();
}

#[test]
fn a_state_folder_that_another_user_owns_or_can_write_to_is_refused() {
    if !is_root() {
        return println!("only root can give a directory away");
    }
    let volume = Volume::local();
    let refused = |spec: &dyn Fn(&Path)| {
        let state = volume.new_dir("others");
        spec(&state);
        let refused = volume.mount_spec().state_dir(&state).try_mount().err().expect("mounted all the same");
        assert_eq!(refused.code(), 22, "{refused}");
        refused.stderr
    };
    assert!(refused(&|dir| chown(dir, Some(NOBODY), None).unwrap()).contains("uid 65534"));
    let open = |mode| move |dir: &Path| fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o777, 0o770, 0o1777] {
        assert!(refused(&open(mode)).contains("other users can write to it"));
    }
}
