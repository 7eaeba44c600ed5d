//! A bucket behind a dam: it can be told to take no segments any more.

// Each test uses its own part of this.
#![allow(dead_code)]

use std::sync::Arc;

use coffer::base::{Ino, OsEntropy, SystemClock};
use coffer::store::fault::{Fault, FaultPlan, FaultStore, KeyClass, Rule, Verb};
use coffer::vfs::{Handle, Vfs};
use coffer::volume::{self, OpenOptions, Opened};
use object_store::memory::InMemory;

use crate::in_memory::{CALLER, World, factors, spec};

pub(crate) const MIB: usize = 1 << 20;

/// A volume in a bucket that can be told to take no segments any more.
pub(crate) struct Dammed {
    pub(crate) faults: FaultStore,
    pub(crate) world: World,
}

impl Dammed {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(SystemClock::default());
        let faults = FaultStore::new(Arc::new(InMemory::new()), FaultPlan::default(), clock.clone());
        let world = World(Arc::new(faults.clone()));
        volume::create(&world.bucket(), &spec(), &factors(), Arc::new(OsEntropy), clock).await.unwrap();
        Self { faults, world }
    }

    /// From now on no segment can be put.
    pub(crate) fn shut(&self) {
        self.shut_by(Fault::Reset);
    }

    pub(crate) fn shut_by(&self, fault: Fault) {
        let rule = Rule { verb: Some(Verb::Put), class: Some(KeyClass::Segment), ..Rule::new(fault, 1.0) };
        self.faults.set_plan(FaultPlan { rules: vec![rule], ..FaultPlan::default() });
    }

    /// From now on nothing at all fits into it.
    pub(crate) fn fill(&self) {
        let rule = Rule { verb: Some(Verb::Put), ..Rule::new(Fault::Full, 1.0) };
        self.faults.set_plan(FaultPlan { rules: vec![rule], ..FaultPlan::default() });
    }

    pub(crate) fn open_gates(&self) {
        self.faults.set_plan(FaultPlan::default());
    }

    pub(crate) async fn mount(&self) -> Opened {
        self.mount_with(OpenOptions::default()).await
    }

    pub(crate) async fn mount_with(&self, options: OpenOptions) -> Opened {
        self.world.open(OpenOptions { takeover: true, ..options }).await.0
    }
}

pub(crate) async fn make(vfs: &Vfs, name: &[u8], data: &[u8]) -> Ino {
    let ino = vfs.create(&CALLER, Ino::ROOT, name, 0o644, true).await.unwrap().ino;
    for (number, part) in data.chunks(MIB).enumerate() {
        vfs.write(ino, (number * MIB) as u64, part, true).await.unwrap();
    }
    ino
}

pub(crate) async fn contents(vfs: &Vfs, name: &[u8]) -> Vec<u8> {
    let attr = vfs.lookup(Ino::ROOT, name).await.unwrap();
    vfs.read(Handle(0), attr.ino, 0, attr.size as usize + 1).await.unwrap()
}

pub(crate) fn stream(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 4096) as u8 ^ at as u8).collect()
}
