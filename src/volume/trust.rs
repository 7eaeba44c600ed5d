//! Whether what a bucket offers is what this machine has seen before, or goes on from there.
//!
//! First the header, before anything is unlocked; then the pin; then the chain of commits. What does not
//! fit is a typed error, unless an admin has accepted it. (`docs/ARCHITECTURE.md`, "What is remembered")

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;

use super::known::{KnownVolumes, without_header};
use super::local::{Found, LocalState, new_device, short};
use super::pin::Pin;
use super::{OpenOptions, VolumeError};
use crate::crypto::KeyRing;
use crate::keys::{self, Factor, Fingerprint, Header, Identity, Unlocked};
use crate::meta::engine::Engine;
use crate::meta::{Key, Record, decode};
use crate::store::Bucket;
use crate::vault::{VaultError, header};

/// What is known from elsewhere, and how much is asked of the bucket's state.
#[derive(Clone, Debug, Default)]
pub struct TrustOptions {
    /// The volume must have this fingerprint. It stands in for local state that is lost or wrong.
    pub expect: Option<Fingerprint>,
    /// The history must have this commit.
    pub expect_commit: Option<ExpectedCommit>,
    /// The newest commit must not be older.
    pub max_staleness: Option<Duration>,
    /// Go on from an older or another state than was seen, by the leave of an admin slot.
    pub accept_rollback: bool,
    /// Look at what the bucket offers, whatever was seen before, and remember nothing of it.
    pub forensic: bool,
}

/// A commit that somebody has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedCommit {
    /// Its number.
    pub number: u64,
    /// The first bytes of its hash, at least 16 of 32.
    hash: Vec<u8>,
}

impl ExpectedCommit {
    /// Reads `NUMBER:HASH`, as [`ExpectedCommit::show`] writes it; at least half of the hash.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (number, hash) = text.split_once(':').ok_or("it is NUMBER:HASH")?;
        let number = number.parse().map_err(|_| "the number before the colon is none")?;
        let hash = HEXLOWER.decode(hash.to_lowercase().as_bytes()).map_err(|_| "the hash is hexadecimal")?;
        match hash.len() {
            16..=32 => Ok(Self { number, hash }),
            _ => Err("the hash has 32 to 64 digits".to_owned()),
        }
    }

    /// A commit in the words that [`ExpectedCommit::parse`] reads.
    #[must_use]
    pub fn show(number: u64, hash: &[u8; 32]) -> String {
        format!("{number}:{}", short(hash))
    }

    pub(super) fn digits(&self) -> String {
        HEXLOWER.encode(&self.hash)
    }

    pub(super) fn is(&self, hash: &[u8; 32]) -> bool {
        hash.starts_with(&self.hash)
    }
}

/// A volume that was unlocked and is the one that is meant.
pub(super) struct Met {
    pub(super) unlocked: Unlocked,
    pub(super) memory: Memory,
}

/// What this machine knows of the volume, and where it notes more.
pub(super) struct Memory {
    place: Option<(Arc<LocalState>, KnownVolumes)>,
    /// What was seen before; none at first contact.
    pub(super) pin: Option<Pin>,
    /// This machine's id for the volume; zeros where nothing is remembered.
    pub(super) device: [u8; 16],
    /// Whether what lies in the state folder is not to be believed.
    begins_anew: bool,
    /// Whether it is an old copy, so that another id was drawn.
    pub(super) is_copy: bool,
}

impl Memory {
    /// The volume's state folder, if there is one.
    pub(super) fn local(&self) -> Option<&Arc<LocalState>> {
        self.place.as_ref().map(|(local, _)| local)
    }

    /// Whether this machine has never seen the volume.
    pub(super) const fn is_first_contact(&self) -> bool {
        self.place.is_some() && self.pin.is_none() && !self.begins_anew
    }

    /// Settles under which id this machine goes on writing, and gives how many commits it has made under it. The
    /// caller holds the lock, so that no other process of this machine is about to write.
    ///
    /// One commit may have become durable without being noted, when a process died in between. More say
    /// that the state folder is an old copy: another machine, or this one before it was restored, went on
    /// under the same id. What it did must not be taken for ours, so that a new id is drawn.
    pub(super) async fn settle_device(
        &mut self,
        engine: &Engine,
        ring: &KeyRing,
        options: &OpenOptions,
    ) -> Result<u64, VolumeError> {
        let Some((local, _)) = &self.place else { return Ok(0) };
        let current = local.current(ring)?.filter(|pin| pin.device == self.device);
        let noted = current.map_or(0, |pin| pin.counter);
        let key = Key::Machine(self.device);
        let made = match engine.get(&key.encode()).await? {
            Some(bytes) => match decode(&key, &bytes)? {
                Record::Machine(machine) => machine.counter,
                _ => 0,
            },
            None => 0,
        };
        if made <= noted.saturating_add(1) {
            return Ok(made.max(noted));
        }
        tracing::warn!(
            machine = %short(&self.device), made, noted,
            "the bucket has commits of this machine that it does not remember: \
             it was restored or copied, and goes on as another machine"
        );
        self.device = new_device(options.entropy.as_ref());
        self.is_copy = true;
        Ok(0)
    }

    /// Notes `pin`, and that the volume is in `bucket`.
    pub(super) fn note(
        &self,
        bucket: &Bucket,
        ring: &KeyRing,
        pin: Pin,
        is_new: bool,
    ) -> Result<(), VolumeError> {
        let Some((local, known)) = &self.place else { return Ok(()) };
        let is_noted = match self.begins_anew || is_new {
            true => local.begin_anew(ring, pin)?,
            false => local.note(ring, pin)?,
        };
        if is_noted { known.note(bucket, pin.seen.identity) } else { Ok(()) }
    }
}

/// Reads the newest header of the volume in `bucket`, holds it against what is expected and known, unlocks it
/// and reads what this machine remembers. A header that was read a moment ago is read again while it is unlocked: it counts if it is
/// the newest still.
pub(super) async fn meet(
    bucket: &Bucket,
    factors: &[Factor],
    options: &OpenOptions,
) -> Result<Met, VolumeError> {
    let again = bucket.clone();
    // By another thread: what unlocks takes a while, and waits for nothing.
    let newest = tokio::spawn(async move { read_header(&again).await });
    let early = match &options.header {
        Some(header) => Some((header, meet_by(header.clone(), bucket, factors, options).await)),
        None => None,
    };
    let newest = match newest.await {
        Ok(read) => read,
        Err(_) => read_header(bucket).await,
    };
    let newest = newest.map_err(|error| match error {
        VolumeError::NoVolume { .. } => {
            without_header(bucket, options.state_dir.as_deref().filter(|_| !options.trust.forensic))
        }
        error => error,
    })?;
    match early {
        Some((header, met)) if *header == newest => met,
        _ => meet_by(newest, bucket, factors, options).await,
    }
}

async fn meet_by(
    (mut number, mut bytes): (u64, Bytes),
    bucket: &Bucket,
    factors: &[Factor],
    options: &OpenOptions,
) -> Result<Met, VolumeError> {
    let trust = &options.trust;
    let state = options.state_dir.as_deref().filter(|_| !trust.forensic);
    let mut offered = keys::describe(&bytes)?;
    let known = match look_up(bucket, &offered, state, trust) {
        // The key may have been rotated, and that been noted by another process, since the header was read.
        Err(VolumeError::KeySubstituted { .. }) => {
            (number, bytes) = read_header(bucket).await?;
            offered = keys::describe(&bytes)?;
            look_up(bucket, &offered, state, trust)?
        }
        known => known?,
    };
    let place =
        state.map(|state| (Arc::new(LocalState::new(state, offered.volume)), KnownVolumes::new(state)));
    // Before anything else is read from the bucket.
    let found = match &place {
        Some((local, _)) => local.look()?,
        None => Found::default(),
    };
    let mut unlocked = keys::unlock_by(&bytes, factors, options.key_slot)?;
    let memory = recall(place, &found, &unlocked, known.is_some(), options)?;
    if let Some((local, known)) = &memory.place {
        tell_what_is_gone(local, known, &found);
        if trust.expect.is_some() {
            known.put_aside_if_altered()?;
        }
    }
    if let Some(pin) = &memory.pin
        && unlocked.header.revision < pin.seen.revision
    {
        // A newer one may have been written, and noted by another process, since this one was read.
        (number, bytes) = read_header(bucket).await?;
        unlocked = keys::unlock_by(&bytes, factors, options.key_slot)?;
    }
    unlocked.header.check_number(number)?;
    if let Some(pin) = &memory.pin {
        compare((&pin.seen.identity, pin.seen.revision), &unlocked.header, bucket)?;
    }
    Ok(Met { unlocked, memory })
}

pub(super) async fn read_header(bucket: &Bucket) -> Result<(u64, Bytes), VolumeError> {
    match header::read_newest(bucket).await {
        Ok(found) => Ok(found),
        Err(VaultError::NoHeader) => Err(VolumeError::NoVolume { url: bucket.display_url().to_owned() }),
        Err(error) => Err(error.into()),
    }
}

/// What is known to be in `bucket`, if `offered` is that.
fn look_up(
    bucket: &Bucket,
    offered: &Header,
    state: Option<&Path>,
    trust: &TrustOptions,
) -> Result<Option<Identity>, VolumeError> {
    let identity = offered.identity();
    if let Some(expected) = trust.expect {
        return match identity.fingerprint() {
            found if found == expected => Ok(None),
            found => Err(VolumeError::Unexpected { expected, found }),
        };
    }
    let Some(state) = state else { return Ok(None) };
    let known = KnownVolumes::new(state).at(bucket)?;
    if let Some(known) = &known {
        // The revision that was seen is told by the pin, once that can be read.
        compare((known, 0), offered, bucket)?;
    }
    Ok(known)
}

/// What is gone of the local state though there is a note is told. It is no reason to refuse: the note is intact and
/// says whose it is, and a process may have died before it wrote the rest.
fn tell_what_is_gone(local: &LocalState, known: &KnownVolumes, found: &Found) {
    if found.lacks_device() {
        tracing::warn!(volume = %local.volume(), "this machine's id is gone from the state folder; it is taken from its note");
    }
    if found.has_pin() && known.is_gone() {
        tracing::warn!(
            volume = %local.volume(),
            "the list of known volumes is gone from the state folder: that another volume is where one was seen is \
             not noticed until it is seen there again"
        );
    }
}

/// Whether a volume is the one that was seen with a header of this revision, or follows from it by rotations that the
/// admin keys between have signed.
fn compare((seen, revision): (&Identity, u64), header: &Header, bucket: &Bucket) -> Result<(), VolumeError> {
    let (expected, found) = (seen.volume, header.volume);
    if expected != found {
        return Err(VolumeError::OtherVolume { url: bucket.display_url().to_owned(), expected, found });
    }
    if header.follows_from(seen, revision) {
        return Ok(());
    }
    let offered = header.identity();
    for (what, expected, found) in [
        ("admin key", &seen.admin_public_key, &offered.admin_public_key),
        ("volume key's commitment", &seen.vmk_commitment, &offered.vmk_commitment),
    ] {
        if expected != found {
            let (expected, found) = (short(expected), short(found));
            return Err(VolumeError::KeySubstituted { volume: offered.volume, what, expected, found });
        }
    }
    Ok(())
}

/// What the state folder says, by the keys of the volume that it is about.
fn recall(
    place: Option<(Arc<LocalState>, KnownVolumes)>,
    found: &Found,
    unlocked: &Unlocked,
    is_known: bool,
    options: &OpenOptions,
) -> Result<Memory, VolumeError> {
    let Some((local, known)) = place else {
        return Ok(Memory { place: None, pin: None, device: [0; 16], begins_anew: false, is_copy: false });
    };
    let checked = local.check(found, &unlocked.ring, is_known);
    let (pin, begins_anew) = match checked {
        Ok(pin) => (pin, false),
        // The fingerprint tells the volume; what is left of the folder tells nothing.
        Err(
            error @ (VolumeError::PinLost { .. }
            | VolumeError::PinForeign { .. }
            | VolumeError::PinAltered { .. }),
        ) if options.trust.expect.is_some() => {
            tracing::warn!("{error}; trusting the volume by its fingerprint, as a new machine");
            (None, true)
        }
        Err(error) => return Err(error),
    };
    let device = pin.map_or_else(|| new_device(options.entropy.as_ref()), |pin| pin.device);
    Ok(Memory { place: Some((local, known)), pin, device, begins_anew, is_copy: false })
}
