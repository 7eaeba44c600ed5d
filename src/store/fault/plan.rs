//! Which faults a bucket is to show: their kinds, how often, and to which requests.

use std::time::Duration;

use object_store::path::Path;

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refused with «slow down»; not carried out.
    Throttle,
    /// Refused with an error of the server's own; not carried out.
    Broken,
    /// Refused for want of space; not carried out.
    Full,
    /// The connection breaks before the request arrives.
    Reset,
    /// The request is lost; nobody ever answers.
    Hang,
    /// Carried out, but reported as failed.
    Ambiguous,
    /// Carried out, but never answered.
    Silent,
    /// A write that is reported as failed and takes effect later: after [`Rule::delay`].
    Late,
    /// A write whose sender stops waiting takes effect all the same: after [`Rule::delay`].
    Straggler,
    /// A listing that does not know what changed within [`Rule::delay`].
    StaleList,
    /// A listing in which entries come twice.
    RepeatList,
    /// A body that ends early.
    ShortBody,
}

impl Fault {
    /// Every fault under its name in a specification.
    pub const NAMED: [(&'static str, Self); 12] = [
        ("throttle", Self::Throttle),
        ("broken", Self::Broken),
        ("full", Self::Full),
        ("reset", Self::Reset),
        ("hang", Self::Hang),
        ("ambiguous", Self::Ambiguous),
        ("silent", Self::Silent),
        ("late", Self::Late),
        ("straggler", Self::Straggler),
        ("stale-list", Self::StaleList),
        ("repeat-list", Self::RepeatList),
        ("short-body", Self::ShortBody),
    ];

    /// Whether it can befall a request of this kind.
    #[must_use]
    pub const fn befalls(self, verb: Verb) -> bool {
        match self {
            Self::Throttle | Self::Broken | Self::Reset | Self::Hang | Self::Ambiguous | Self::Silent => true,
            Self::Late | Self::Straggler => matches!(verb, Verb::Put | Verb::Delete),
            Self::Full => matches!(verb, Verb::Put),
            Self::StaleList | Self::RepeatList => matches!(verb, Verb::List),
            Self::ShortBody => matches!(verb, Verb::Get),
        }
    }
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Writing an object.
    Put,
    /// Reading an object, or its size.
    Get,
    /// Listing objects.
    List,
    /// Deleting an object.
    Delete,
}

impl Verb {
    /// Every kind under its name in a specification.
    pub const NAMED: [(&'static str, Self); 4] =
        [("put", Self::Put), ("get", Self::Get), ("list", Self::List), ("delete", Self::Delete)];
}

/// What an object is for, by its name. (docs/FORMAT.md, "Objects in the bucket")
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyClass {
    /// A volume header.
    Header,
    /// The records: logs, tables, manifests.
    Meta,
    /// File contents.
    Segment,
    /// Anything else.
    Other,
}

impl KeyClass {
    /// Every class under its name in a specification.
    pub const NAMED: [(&'static str, Self); 4] =
        [("header", Self::Header), ("meta", Self::Meta), ("segment", Self::Segment), ("other", Self::Other)];

    /// The class of the object, or of the objects of the directory, at `path`.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        match path.as_ref().split('/').next() {
            Some("header") => Self::Header,
            Some("m") => Self::Meta,
            Some("d") => Self::Segment,
            _ => Self::Other,
        }
    }
}

/// One fault, how often, and to which requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What goes wrong.
    pub fault: Fault,
    /// How often, from 0 to 1.
    pub chance: f64,
    /// How late, for the faults that say so.
    pub delay: Duration,
    /// Requests of this kind only.
    pub verb: Option<Verb>,
    /// Objects of this class only.
    pub class: Option<KeyClass>,
}

impl Rule {
    /// A fault that befalls every request that it can, after 3 seconds where it is one of delay.
    #[must_use]
    pub const fn new(fault: Fault, chance: f64) -> Self {
        Self { fault, chance, delay: Duration::from_secs(3), verb: None, class: None }
    }

    /// Whether the rule is about such requests.
    #[must_use]
    pub fn covers(&self, verb: Verb, class: KeyClass) -> bool {
        self.fault.befalls(verb)
            && self.verb.is_none_or(|only| only == verb)
            && self.class.is_none_or(|only| only == class)
    }
}

/// A time in which the bucket is out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When it begins, from the store's first use on.
    pub from: Duration,
    /// How long it lasts.
    pub len: Duration,
}

/// Which faults a bucket shows. The default shows none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultPlan {
    /// Whatever is left to chance follows from this.
    pub seed: u64,
    /// Time from a request to its answer, at least.
    pub latency: Duration,
    /// Up to this much is added to the latency of each request.
    pub jitter: Duration,
    /// Bytes per second that go through, all requests together; `None` for no limit.
    pub bandwidth: Option<u64>,
    /// When the bucket is out of reach: half of the requests are refused, half never answered.
    pub outages: Vec<Outage>,
    /// What goes wrong. The first rule that strikes decides.
    pub rules: Vec<Rule>,
}

impl FaultPlan {
    /// Whether the bucket is out of reach at `now`.
    #[must_use]
    pub fn is_out(&self, now: Duration) -> bool {
        self.outages.iter().any(|outage| now >= outage.from && now - outage.from < outage.len)
    }
}
