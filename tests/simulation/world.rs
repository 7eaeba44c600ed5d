//! One seed: a volume in a bucket, and the lives of the processes that mount it, one after the other or two at a
//! time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coffer::base::{Entropy, SeededEntropy};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewVolume};
use coffer::store::fault::{FaultPlan, FaultStore, KeyClass, Verb};
use coffer::store::{Bucket, StoreOptions};
use coffer::vfs::{OnCommit, Vfs};
use coffer::volume::{self, NewVolumeSpec, OpenOptions, Opened, VolumeError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::{Builder, Runtime};

use crate::actor::{Actor, HABITS, fork};
use crate::busy::Busy;
use crate::clock::{SimClock, SkewedClock};
use crate::crash;
use crate::disk::{Camera, Disk, Objects};
use crate::door::{Deathbed, Door, DoorStore};
use crate::follower::Follower;
use crate::history::History;
use crate::rescue;
use crate::trace::{Log, Trace};
use crate::tree::Tree;
use crate::weather::{self, End};

/// What came of a seed.
#[derive(Default)]
pub struct Outcome {
    pub operations: u64,
    pub requests: u64,
    pub lives: u64,
    /// Processes that died at a request, and what each was asking for.
    pub deathbeds: Vec<Deathbed>,
    /// Lives that the power ended between requests.
    pub cuts: u64,
    /// Crashes that nobody suffered, and what would have changed the bucket next.
    pub crashes: Vec<(Verb, KeyClass)>,
    pub takeovers: u64,
    /// Files that mounts which were taken over had not sent and kept; and parts of them that had gone with the bucket.
    pub kept: u64,
    pub absent: u64,
    /// Whole trees that a reader beside a writer was shown.
    pub looks: u64,
    /// Mounts that found contents older than the rest.
    pub behind: u64,
    pub trace: u64,
    pub log: Vec<String>,
}

/// Of how many of the moments between two changes of the bucket it is tried what a crash would have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crashes {
    /// None.
    None,
    /// A few of each life.
    Few,
    /// Every one.
    All,
}

/// How many a few are.
const FEW: usize = 2;
/// The quota of those volumes that have one.
pub const QUOTA_BYTES: u64 = 600_000;

pub struct World {
    seed: u64,
    rng: SmallRng,
    /// The volume has a quota.
    pub is_bounded: bool,
    pub clock: Arc<SimClock>,
    pub disk: Arc<Disk>,
    pub faults: FaultStore,
    pub entropy: Arc<dyn Entropy>,
    trace: Arc<Trace>,
    /// The history of the last mount that came into being.
    history: Rc<RefCell<History>>,
    /// Those of all mounts of which a picture has been taken.
    histories: BTreeMap<u64, Rc<RefCell<History>>>,
    camera: Camera,
    /// How many of a life's pictures are looked into.
    crashes: Crashes,
    versions: Rc<RefCell<u64>>,
    operations: Rc<Cell<u64>>,
    looks: Rc<Cell<u64>>,
    pub processes: u64,
    is_short_lived: bool,
    /// Segments may lie about that no record knows of.
    pub may_litter: bool,
    outcome: Outcome,
}

pub fn factors() -> Vec<Factor> {
    vec![Factor::KeyFile(Secret::new(b"the key file of the simulation".to_vec()))]
}

pub fn spec(quota_bytes: u64) -> NewVolumeSpec {
    let header = NewVolume { compression: Compression::None, kdf_cost: KdfCost::Fixed { log_n: 15 } };
    NewVolumeSpec { header, quota_bytes, owner: (0, 0) }
}

pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// The objects of new volumes, of which every seed begins with a copy of one.
pub struct Templates {
    boundless: Objects,
    bounded: Objects,
}

impl Templates {
    pub fn new() -> Self {
        Self { boundless: new_volume(0), bounded: new_volume(QUOTA_BYTES) }
    }
}

fn new_volume(quota_bytes: u64) -> Objects {
    let clock = Arc::new(SimClock::default());
    let disk = Arc::new(Disk::new(Objects::new(), Arc::clone(&clock), None));
    let faultless = FaultStore::new(disk.clone(), FaultPlan::default(), clock.clone());
    let bucket = Bucket::from_store(Arc::new(faultless));
    let entropy = Arc::new(SeededEntropy::new(1));
    runtime().block_on(volume::create(&bucket, &spec(quota_bytes), &factors(), entropy, clock)).unwrap();
    disk.objects.lock().clone()
}

/// One process that mounts the volume.
pub struct Process {
    door: Arc<Door>,
    pub bucket: Bucket,
    pub options: OpenOptions,
}

impl World {
    pub fn new(seed: u64, templates: &Templates, log: Log, crashes: Crashes) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let is_bounded = rng.random_bool(0.15);
        let template = if is_bounded { &templates.bounded } else { &templates.boundless };
        let clock = Arc::new(SimClock::default());
        let camera = Camera::default();
        let disk = Arc::new(Disk::new(template.clone(), Arc::clone(&clock), Some(camera.clone())));
        let history = History::new(Tree::default(), true, 0, Arc::clone(&camera.board));
        let history = Rc::new(RefCell::new(history));
        let faults = FaultStore::new(disk.clone(), FaultPlan::default(), clock.clone());
        Self {
            seed,
            rng,
            is_bounded,
            trace: Arc::new(Trace::new(clock.clone(), log)),
            clock,
            disk,
            faults,
            entropy: Arc::new(SeededEntropy::new(seed)),
            histories: BTreeMap::from([(0, Rc::clone(&history))]),
            history,
            camera,
            crashes,
            versions: Rc::default(),
            operations: Rc::default(),
            looks: Rc::default(),
            processes: 0,
            is_short_lived: false,
            may_litter: false,
            outcome: Outcome::default(),
        }
    }

    /// A few lives in all weathers, and a last one in which everything is looked at.
    pub fn run(mut self) -> Outcome {
        // Many short lives make many tables, which are merged, and garbage, which is collected.
        self.is_short_lived = self.rng.random_bool(0.06);
        let lives = if self.is_short_lived { 10..16 } else { 2..6 };
        for _ in 0..self.rng.random_range(lives) {
            self.live();
        }
        self.look_at_everything();
        self.outcome.operations = self.operations.get();
        self.outcome.looks = self.looks.get();
        self.outcome.trace = self.trace.hash();
        self.outcome.log = std::mem::take(&mut *self.trace.kept.lock());
        self.outcome
    }

    pub fn process(&mut self, mortal: bool) -> Process {
        self.process_with(mortal, StoreOptions::default())
    }

    fn process_with(&mut self, mortal: bool, store: StoreOptions) -> Process {
        self.processes += 1;
        let death = if mortal { weather::death(&mut self.rng) } else { None };
        let inner = Arc::new(self.faults.clone());
        let door = Arc::new(Door::new(inner, self.processes, death, Arc::clone(&self.trace)));
        let store = StoreOptions { pause_seed: Some(self.rng.random()), ..store };
        let bucket = Bucket::with_options(Arc::new(DoorStore(door.clone())), "simulated", &store);
        let skew_secs = if self.rng.random_bool(0.2) { self.rng.random_range(-900..900) } else { 0 };
        let jumps = if self.rng.random_bool(0.2) { self.rng.random_range(1..4) } else { 0 };
        let clock = SkewedClock::new(
            Arc::clone(&self.clock),
            skew_secs,
            jumps,
            Duration::from_secs(60),
            &mut fork(&mut self.rng),
        );
        let mut vfs = weather::options(&mut self.rng);
        let committed = Arc::clone(&self.camera.committed);
        let told: OnCommit = Arc::new(move |made| {
            committed.fetch_max(made.number, Ordering::SeqCst);
            Ok(())
        });
        vfs.on_commit = Some(told);
        let table_cache_bytes = if self.rng.random_bool(0.2) { 0 } else { 16 << 20 };
        let cache_bytes = if self.rng.random_bool(0.3) { 100_000 } else { 16 << 20 };
        let options = OpenOptions {
            takeover: true,
            cache_bytes,
            table_cache_bytes,
            vfs,
            clock: Arc::new(clock),
            entropy: Arc::clone(&self.entropy),
            ..OpenOptions::default()
        };
        Process { door, bucket, options }
    }

    fn live(&mut self) {
        self.outcome.lives += 1;
        let plan = weather::faults(&mut self.rng);
        self.may_litter |= weather::leaves_stragglers(&plan);
        self.faults.set_plan(plan);
        let runtime = runtime();
        runtime.block_on(async {
            self.clock.begin_life();
            if self.rng.random_bool(0.25) {
                self.two_mounts().await
            } else {
                self.one_mount().await
            }
            // Before the runtime goes, and with it its time: what dies with it dies now.
            self.clock.end_life();
        });
        drop(runtime);
        self.suffer_crashes();
        self.clock.pass(Duration::from_secs(self.rng.random_range(0..1200)));
    }

    /// Tries what this life would have left if it had ended earlier.
    pub fn suffer_crashes(&mut self) {
        // Of its own, so that a seed goes the same way whatever is tried.
        let mut rng = fork(&mut self.rng);
        let mut pictures = std::mem::take(&mut *self.camera.taken.lock());
        let count = match self.crashes {
            Crashes::None => 0,
            Crashes::Few => FEW,
            Crashes::All => pictures.len(),
        };
        while pictures.len() > count {
            pictures.swap_remove(rng.random_range(0..pictures.len()));
        }
        pictures.sort_by_key(|picture| picture.number);
        let mut earliest = (0, 0);
        for picture in &pictures {
            if picture.mount != earliest.0 {
                earliest = (picture.mount, 0);
            }
            let history = self.histories[&picture.mount].borrow();
            earliest.1 = crash::after(picture, &history, earliest.1, self.seed);
            self.outcome.crashes.push(picture.next);
        }
        let newest = self.history.borrow().number();
        self.histories.retain(|number, _| *number == newest);
    }

    async fn one_mount(&mut self) {
        let process = self.process(true);
        let door = Arc::clone(&process.door);
        let end = if self.rng.random_bool(0.5) { End::Close } else { End::Cut };
        let has_died = tokio::select! {
            biased;
            () = door.died.notified() => true,
            () = self.life_of(process, end) => false,
        };
        self.bury(&door, has_died, end);
    }

    fn bury(&mut self, door: &Door, has_died: bool, end: End) {
        self.outcome.requests += door.requests();
        door.shut();
        match (has_died, end) {
            (true, _) => self.outcome.deathbeds.extend(door.deathbed.lock().take()),
            (false, End::Cut) => self.outcome.cuts += 1,
            (false, End::Close) => {}
        }
    }

    async fn life_of(&mut self, process: Process, end: End) {
        let opened = self.open(&process).await;
        let actors = self.actors(&opened.vfs, self.history.clone());
        if self.rng.random_bool(0.25) {
            let follower = self.follower();
            tokio::select! {
                biased;
                () = work(actors) => {}
                () = follower => {}
            }
        } else {
            work(actors).await;
        }
        if end == End::Close {
            self.close(opened).await;
        }
    }

    /// A reader beside the writer, in a process of its own.
    fn follower(&mut self) -> impl Future<Output = ()> + use<> {
        let mut store = StoreOptions::default();
        if self.rng.random_bool(0.5) {
            // So short that looks are given up, and complete later.
            store.read_timeout = Duration::from_millis(self.rng.random_range(80..800));
        }
        let mut process = self.process_with(false, store);
        process.options.vfs.read_only = true;
        process.options.vfs.poll_interval = Duration::from_millis(self.rng.random_range(500..6_000));
        let (history, looks) = (self.history.clone(), Rc::clone(&self.looks));
        let rng = fork(&mut self.rng);
        async move {
            loop {
                match volume::open(process.bucket.clone(), &factors(), process.options.clone()).await {
                    Ok(opened) => break Follower { vfs: opened.vfs, history, rng, looks }.watch().await,
                    Err(error) if is_passing(&error) => tokio::time::sleep(Duration::from_secs(1)).await,
                    Err(error) => panic!("a reader cannot open the volume: {error:?}"),
                }
            }
        }
    }

    /// Opens the volume, however often that takes, and compares what is there with what must be.
    pub async fn open(&mut self, process: &Process) -> Opened {
        let (factors, mut attempts) = (factors(), 0);
        let (opened, told) = loop {
            attempts += 1;
            if attempts > 20 {
                self.faults.set_plan(FaultPlan::default());
            }
            let told = self.camera.committed.load(Ordering::SeqCst);
            match volume::open(process.bucket.clone(), &factors, process.options.clone()).await {
                Ok(opened) => break (opened, told),
                Err(error) if is_passing(&error) => tokio::time::sleep(Duration::from_secs(1)).await,
                Err(error) => panic!("the volume cannot be opened: {error:?}"),
            }
        };
        let (commit, _) = opened.vfs.head();
        assert!(
            commit > told,
            "commit {told} was told to be durable, but the new mount begins with {commit}"
        );
        let found = read(&opened.vfs).await;
        let at = self.history.borrow_mut().find(&found);
        self.trace.event(&[b"found", &at.to_be_bytes()]);
        self.outcome.behind += u64::from(self.history.borrow().states[at] != found);
        let (number, board) = (self.history.borrow().number() + 1, Arc::clone(&self.camera.board));
        let history = History::new(found, process.options.vfs.overtakes, number, board);
        self.history = Rc::new(RefCell::new(history));
        self.histories.insert(number, Rc::clone(&self.history));
        opened
    }

    fn actors(&mut self, vfs: &Arc<Vfs>, history: Rc<RefCell<History>>) -> Vec<(Actor, usize, u32)> {
        let count = self.rng.random_range(1..5);
        let busy = Busy::default();
        let actor = |number| {
            let habit = self.rng.random_range(0..HABITS.len());
            let actor = Actor {
                vfs: Arc::clone(vfs),
                history: Rc::clone(&history),
                trace: Arc::clone(&self.trace),
                number,
                rng: fork(&mut self.rng),
                versions: Rc::clone(&self.versions),
                operations: Rc::clone(&self.operations),
                busy: busy.clone(),
            };
            let steps = if self.is_short_lived { 1..6 } else { 3..30 };
            (actor, habit, self.rng.random_range(steps))
        };
        (0..count).map(actor).collect()
    }

    /// The newest mount shows `tree` now.
    pub fn follow_on(&mut self, tree: Tree) {
        self.history.borrow_mut().record(&[], |now| *now = tree);
    }

    /// Unmounts, after which everything is durable.
    pub async fn close(&mut self, opened: Opened) {
        let mark = self.history.borrow().mark();
        match opened.close().await {
            Ok(()) => self.history.borrow_mut().acknowledge(mark),
            Err(error) => panic!("the volume cannot be closed: {error:?}"),
        }
    }

    /// A second process takes the volume over while the first is at work.
    async fn two_mounts(&mut self) {
        let first = self.process(false);
        let second = self.process(true);
        let door = Arc::clone(&second.door);
        let end = if self.rng.random_bool(0.5) { End::Close } else { End::Cut };
        let first_door = Arc::clone(&first.door);
        let has_died = tokio::select! {
            biased;
            () = door.died.notified() => true,
            () = self.takeover(first, second, end) => false,
        };
        first_door.shut();
        self.outcome.requests += first_door.requests();
        self.bury(&door, has_died, end);
    }

    async fn takeover(&mut self, first: Process, second: Process, end: End) {
        let mut first = first;
        let shelf = rescue::Shelf::default();
        first.options.vfs.on_fenced = Some(rescue::keep_on(&shelf, self.rng.random_bool(0.3)));
        let old = self.open(&first).await;
        let old_history = self.history.clone();
        // One that does nothing learns late that it is no longer the writer.
        let is_idle = self.rng.random_bool(0.3);
        let old_actors = if is_idle { Vec::new() } else { self.actors(&old.vfs, self.history.clone()) };
        let wait = Duration::from_millis(self.rng.random_range(0..20_000));
        let old_work = async {
            work(old_actors).await;
            // Whatever it still wants to save: it must fail or be a part of what the successor found.
            let _ = old.vfs.sync_all().await;
        };
        let new_work = async {
            tokio::time::sleep(wait).await;
            self.history.borrow_mut().is_contested = true;
            let new = self.open(&second).await;
            self.outcome.takeovers += 1;
            self.may_litter = true;
            let actors = self.actors(&new.vfs, self.history.clone());
            work(actors).await;
            new
        };
        let ((), new) = futures::join!(old_work, new_work);
        let closed = old.close().await;
        assert!(closed.is_err(), "a mount that was taken over says that everything is saved");
        let kept = shelf.lock().take().expect("what was not sent is kept before the mount ends");
        let (kept, absent) = old_history.borrow().check_kept(&kept);
        (self.outcome.kept, self.outcome.absent) = (self.outcome.kept + kept, self.outcome.absent + absent);
        if end == End::Close {
            self.close(new).await;
        }
    }
}

/// Lets all actors live at once.
async fn work(actors: Vec<(Actor, usize, u32)>) {
    let lives: FuturesUnordered<_> =
        actors.into_iter().map(|(actor, habit, steps)| actor.live(HABITS[habit], steps)).collect();
    lives.collect::<()>().await;
}

async fn read(vfs: &Vfs) -> Tree {
    loop {
        match Tree::read(vfs).await {
            Ok(tree) => return tree,
            Err(error) if error.is_passing() => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => panic!("the tree cannot be read: {error:?}"),
        }
    }
}

/// Whether trying again may help: nobody answered in time.
fn is_passing(error: &VolumeError) -> bool {
    let told = format!("{error:?}");
    // A bucket that has no room is given up like one that does not answer, if that was its last word.
    told.contains("Unavailable") || told.contains("Full")
}
