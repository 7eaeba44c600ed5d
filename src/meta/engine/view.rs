//! What tells the states of a database apart that a reader is shown.

/// A state of the database that a reader looks at. Reads between two equal views saw one state; a state may have
/// several views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub(super) handle: u64,
    pub(super) pauses: u64,
    pub(super) sequence: u64,
}

/// What a reader's state was built on: the database as it was opened, and the manifest. On the same base one state differs
/// from another by the logs that came since, and by nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    pub(super) handle: u64,
    pub(super) manifest: u64,
}
