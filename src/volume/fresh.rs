//! Whether the state that a bucket offers goes on from what was seen, is new enough, and was not merely
//! accepted once. (`docs/ARCHITECTURE.md`, "What is remembered")

use std::time::Duration;

use super::error::utc;
use super::local::short;
use super::pin::{HeaderSeen, Pin};
use super::trust::{ExpectedCommit, TrustOptions};
use super::{OpenOptions, VolumeError};
use crate::base::{Time, VolumeId};
use crate::crypto::{KeyRing, verify_acceptance};
use crate::keys::{Header, Signer};
use crate::meta::engine::Engine;
use crate::meta::{Acceptance, Key, MetaError, Record, Superblock, chain, decode, links, lost_logs};

/// A state that a bucket offers: the header, the superblock, and the records to ask for more.
pub(super) struct Offer<'a> {
    pub(super) engine: &'a Engine,
    pub(super) ring: &'a KeyRing,
    pub(super) header: &'a Header,
    pub(super) superblock: &'a Superblock,
}

/// What came of holding an offer against what was seen.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It goes on from there. With the ordinal of the newest accepted rollback.
    Follows(u64),
    /// It does not, and an admin has accepted that on another machine.
    Excused(u64),
    /// It does not. With what to sign in order to accept it.
    Refused(VolumeError, Box<Acceptance>),
}

impl Offer<'_> {
    fn volume(&self) -> VolumeId {
        self.ring.volume()
    }

    /// What is to be remembered of this offer.
    pub(super) fn pin(&self, before: Option<&Pin>, device: [u8; 16], accepted: u64) -> Pin {
        Pin {
            commit: self.superblock.commit,
            hash: self.superblock.head,
            device,
            counter: before.map_or(0, |pin| pin.counter),
            seen: HeaderSeen::of(self.header),
            accepted,
        }
    }

    /// Whether the offer goes on from `pin`, has the commit that is expected, and is new enough.
    pub(super) async fn judge(
        &self,
        pin: Option<&Pin>,
        options: &OpenOptions,
    ) -> Result<Verdict, VolumeError> {
        let trust = &options.trust;
        if let Some(expected) = &trust.expect_commit {
            self.check_expected(expected).await?;
        }
        let newest = self.acceptance().await?;
        let ordinal = newest.as_ref().map_or(0, |acceptance| acceptance.ordinal);
        let verdict = match pin {
            None => Verdict::Follows(ordinal),
            Some(pin) => match self.what_differs(pin).await? {
                None => Verdict::Follows(ordinal.max(pin.accepted)),
                Some(error) => match newest {
                    Some(newest) if self.excuses(&newest, pin, &error).await? => Verdict::Excused(ordinal),
                    _ => Verdict::Refused(error, Box::new(self.to_sign(pin, ordinal, options.clock.now()))),
                },
            },
        };
        if let (Some(allowed), Verdict::Follows(_) | Verdict::Excused(_)) = (trust.max_staleness, &verdict) {
            self.check_age(allowed, options.clock.now()).await?;
        }
        Ok(verdict)
    }

    async fn what_differs(&self, pin: &Pin) -> Result<Option<VolumeError>, VolumeError> {
        match went_back(&pin.seen, self.header) {
            None => self.reaches(pin.commit, &pin.hash).await,
            worse => Ok(worse),
        }
    }

    /// Why the history offered does not lead from commit `number` with this hash to its end, if it does not.
    pub(super) async fn reaches(
        &self,
        number: u64,
        hash: &[u8; 32],
    ) -> Result<Option<VolumeError>, VolumeError> {
        let (volume, offered) = (self.volume(), self.superblock);
        if offered.commit < number {
            return Ok(Some(VolumeError::Rollback { volume, expected: number, found: offered.commit }));
        }
        let found = match number {
            0 => return Ok(None),
            number => self.hash_of(number).await?,
        };
        if found.as_ref() == Some(hash) {
            return Ok(None);
        }
        let found = found.map_or("not there".to_owned(), |hash| short(&hash));
        Ok(Some(VolumeError::Fork { volume, number, expected: short(hash), found }))
    }

    /// Why it was not made by one history, in which each commit follows from the one before, if it was not. Only what
    /// came after the newest state that an admin has accepted is asked for that; nothing where a person only looks.
    pub(super) async fn is_woven(&self, trust: &TrustOptions) -> Result<Option<VolumeError>, VolumeError> {
        if trust.forensic {
            return Ok(None);
        }
        let volume = self.volume();
        let accepted = self.accepted().await?;
        match links::walk(self.engine, self.ring, self.superblock, accepted).await {
            Err(MetaError::Inconsistent { key: Key::Commit(number), .. }) => {
                return Ok(Some(VolumeError::Woven { volume, number }));
            }
            walked => walked?,
        }
        if accepted.is_none() {
            // Nothing was ever given up.
            return Ok(None);
        }
        match lost_logs::stay_away(self.engine).await {
            Err(MetaError::Inconsistent { key: Key::LostLog(number), .. }) => {
                Ok(Some(VolumeError::LogIsBack { volume, number }))
            }
            looked => looked.map(|()| None).map_err(Into::into),
        }
    }

    /// The commit, and its hash, up to which an admin has accepted the history as it is.
    pub(super) async fn accepted(&self) -> Result<Option<(u64, [u8; 32])>, VolumeError> {
        Ok(self.acceptance().await?.map(|accepted| (accepted.commit, accepted.hash)))
    }

    /// Up to which commit an admin has accepted the history as it is: what is missing or does not follow before that no
    /// mount asks for.
    pub(super) async fn accepted_upto(&self) -> Result<Option<u64>, VolumeError> {
        let Some(accepted) = self.acceptance().await? else { return Ok(None) };
        let next = accepted.commit.saturating_add(1);
        for key in [Key::Commit(next), Key::History(chain::first_of(next))] {
            if self.record(key).await?.is_some() {
                return Ok(Some(accepted.commit));
            }
        }
        Ok(None)
    }

    async fn check_expected(&self, expected: &ExpectedCommit) -> Result<(), VolumeError> {
        let found = match expected.number {
            number if number > self.superblock.commit => None,
            number => self.hash_of(number).await?,
        };
        if found.is_some_and(|hash| expected.is(&hash)) {
            return Ok(());
        }
        Err(VolumeError::UnexpectedCommit {
            volume: self.volume(),
            number: expected.number,
            expected: expected.digits(),
            found: found.map_or("not there".to_owned(), |hash| short(&hash)),
        })
    }

    /// The newest commit must have been made `allowed` ago at most; of a volume without any, its birth counts.
    async fn check_age(&self, allowed: Duration, now: Time) -> Result<(), VolumeError> {
        let commit = self.superblock.commit;
        let made = match commit {
            0 => Time { secs: self.header.created_unix_secs, nanos: 0 },
            number => match self.record(Key::Commit(number)).await? {
                Some(Record::Commit(commit)) if commit.hash == self.superblock.head => commit.time,
                _ => return Err(MetaError::Missing(Key::Commit(number)).into()),
            },
        };
        match age_secs(made, now) {
            age_secs if age_secs <= allowed.as_secs() => Ok(()),
            age_secs => Err(VolumeError::Stale {
                volume: self.volume(),
                commit,
                made: utc(made),
                age_secs,
                allowed_secs: allowed.as_secs(),
            }),
        }
    }

    /// The newest rollback that an admin has accepted in the history offered.
    pub(super) async fn acceptance(&self) -> Result<Option<Acceptance>, VolumeError> {
        let Some(Record::Acceptance(found)) = self.record(Key::Acceptance).await? else { return Ok(None) };
        let parts = found.parts(self.volume());
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let is_signed = self.header.admin_keys().any(|key| verify_acceptance(key, &parts, &found.signature));
        if !is_signed {
            tracing::warn!(
                "an accepted rollback is noted in the volume that no admin has signed; it is passed over"
            );
        }
        Ok(is_signed.then(|| (*found).clone()))
    }

    /// The newest accepted rollback, signed with the newest admin key, where it is signed with one that a rotation under way
    /// takes the place of.
    pub(super) async fn signed_anew(&self, signer: &Signer) -> Result<Option<Acceptance>, VolumeError> {
        let Some(found) = self.acceptance().await? else { return Ok(None) };
        let parts = found.parts(self.volume());
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        match verify_acceptance(&self.header.admin_public_key.0, &parts, &found.signature) {
            true => Ok(None),
            false => sign(found, self.volume(), signer).map(Some),
        }
    }

    /// Whether an accepted rollback explains why the offer does not go on from `pin`: it is newer than any that
    /// was known, it lies in the history offered, and what was seen is not beyond what it gives up.
    async fn excuses(
        &self,
        accepted: &Acceptance,
        pin: &Pin,
        error: &VolumeError,
    ) -> Result<bool, VolumeError> {
        if matches!(error, VolumeError::WeakerKeys { .. }) || accepted.ordinal <= pin.accepted {
            return Ok(false);
        }
        let is_given_up = pin.commit <= accepted.abandoned_commit
            && pin.seen.revision <= accepted.abandoned_revision.max(self.header.revision);
        let goes_on = self.header.revision >= accepted.revision
            && self.reaches(accepted.commit, &accepted.hash).await?.is_none();
        Ok(is_given_up && goes_on)
    }

    /// What an admin signs who accepts this offer although `pin` was seen.
    pub(super) fn to_sign(&self, pin: &Pin, ordinal: u64, time: Time) -> Acceptance {
        Acceptance {
            ordinal: ordinal.max(pin.accepted).saturating_add(1),
            commit: self.superblock.commit,
            hash: self.superblock.head,
            revision: self.header.revision,
            abandoned_commit: pin.commit,
            abandoned_revision: pin.seen.revision,
            time,
            signature: [0; 64],
        }
    }

    /// The hash of a commit: as its own record has it, or as a history gives it.
    async fn hash_of(&self, number: u64) -> Result<Option<[u8; 32]>, VolumeError> {
        // The superblock itself says what the last commit was: its record is not needed for that.
        if number == self.superblock.commit {
            return Ok(Some(self.superblock.head));
        }
        let first = chain::first_of(number);
        for key in [Key::Commit(number), Key::History(first)] {
            match self.record(key).await? {
                None => {}
                Some(Record::Commit(commit)) => return Ok(Some(commit.hash)),
                Some(Record::History(history)) => {
                    return Ok(chain::hash_in(self.ring, &history, first, number));
                }
                Some(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    async fn record(&self, key: Key) -> Result<Option<Record>, VolumeError> {
        match self.engine.get(&key.encode()).await? {
            Some(bytes) => Ok(Some(decode(&key, &bytes)?)),
            None => Ok(None),
        }
    }
}

/// Why a header does not follow the one that was seen, if it does not.
pub(super) fn went_back(seen: &HeaderSeen, header: &Header) -> Option<VolumeError> {
    let (volume, offered) = (header.volume, HeaderSeen::of(header));
    if offered.revision < seen.revision {
        let (expected, found) = (seen.revision, offered.revision);
        return Some(VolumeError::HeaderRolledBack { volume, expected, found });
    }
    if offered.weakest != 0 && offered.weakest < seen.weakest {
        let (expected, found) = (seen.weakest, offered.weakest);
        return Some(VolumeError::WeakerKeys { volume, expected, found });
    }
    None
}

/// Signs what an admin accepts.
///
/// # Errors
/// The slot that was opened is no admin's.
pub(super) fn sign(
    mut acceptance: Acceptance,
    volume: VolumeId,
    signer: &Signer,
) -> Result<Acceptance, VolumeError> {
    let parts = acceptance.parts(volume);
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    acceptance.signature = signer.sign_acceptance(&parts)?;
    Ok(acceptance)
}

/// Whole seconds from `made` to `now`; none where the one clock is ahead of the other.
fn age_secs(made: Time, now: Time) -> u64 {
    u64::try_from(now.secs.saturating_sub(made.secs)).unwrap_or_default()
}
