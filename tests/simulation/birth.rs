//! The making of a volume, cut off at every request.

use std::sync::Arc;

use coffer::base::SeededEntropy;
use coffer::store::Bucket;
use coffer::store::fault::{FaultPlan, FaultStore};
use coffer::volume::{self, OpenOptions};
use tokio::time::{Duration, timeout};

use crate::clock::SimClock;
use crate::disk::{Disk, Objects};
use crate::door::{Death, Door, DoorStore};
use crate::trace::{Log, Trace};
use crate::tree::Tree;
use crate::world::{factors, runtime, spec};

struct Nursery {
    clock: Arc<SimClock>,
    faultless: FaultStore,
    seed: u64,
}

impl Nursery {
    fn new() -> Self {
        let clock = Arc::new(SimClock::default());
        let disk = Arc::new(Disk::new(Objects::new(), Arc::clone(&clock), None));
        let faultless = FaultStore::new(disk, FaultPlan::default(), clock.clone());
        Self { clock, faultless, seed: 0 }
    }

    /// Makes a volume, unless the maker dies; says whether it lived, and gives the requests it made.
    async fn make(&mut self, death: Option<Death>) -> (bool, u64) {
        self.seed += 1;
        let trace = Arc::new(Trace::new(self.clock.clone(), Log::Forget));
        let door = Arc::new(Door::new(Arc::new(self.faultless.clone()), self.seed, death, trace));
        let bucket = Bucket::from_store(Arc::new(DoorStore(door.clone())));
        let entropy = Arc::new(SeededEntropy::new(self.seed));
        let spec = spec(0);
        let factors = factors();
        let making = volume::create(&bucket, &spec, &factors, entropy, self.clock.clone());
        let lived = tokio::select! {
            biased;
            () = door.died.notified() => false,
            made = making => made.map(|_| true).expect("a volume is made"),
        };
        (lived, door.requests())
    }

    /// Whether there is a volume. If so, it must be whole.
    async fn is_there(&self) -> bool {
        let bucket = Bucket::from_store(Arc::new(self.faultless.clone()));
        let (entropy, clock) = (Arc::new(SeededEntropy::new(99)), self.clock.clone());
        let options = OpenOptions { entropy, clock, ..OpenOptions::default() };
        let factors = factors();
        let opening = volume::open(bucket, &factors, options);
        match timeout(Duration::from_secs(600), opening).await.expect("an answer") {
            Ok(opened) => {
                assert_eq!(Tree::read(&opened.vfs).await.unwrap(), Tree::default());
                opened.close().await.unwrap();
                true
            }
            Err(volume::VolumeError::NoVolume { .. }) => false,
            Err(error) => panic!("half a volume: {error:?}"),
        }
    }
}

/// Gives the number of deaths.
pub fn die_at_every_request() -> u64 {
    let mut deaths = 0;
    let requests = runtime().block_on(async { Nursery::new().make(None).await.1 });
    for request in 1..=requests {
        for takes_effect in [false, true] {
            runtime().block_on(async {
                let mut nursery = Nursery::new();
                nursery.clock.begin_life();
                let (lived, _) =
                    nursery.make(Some(Death { request, counts_writes: false, takes_effect })).await;
                deaths += u64::from(!lived);
                if !nursery.is_there().await {
                    let (lived, _) = nursery.make(None).await;
                    assert!(
                        lived && nursery.is_there().await,
                        "it cannot be made after a death at request {request}"
                    );
                }
            });
        }
    }
    deaths
}
