//! `coffer key rotate`: gives a volume another key of its own, and seals everything in use with it.

use std::path::PathBuf;

use clap::Args;

use super::code_file::{self, CodeFile, hand_over};
use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::factors::{ReplaceArgs, UnlockArgs};
use super::init::CostArgs;
use super::key::{is_overtaken, not_stored};
use super::open::{BucketArgs, StateArgs, obtain_factors};
use super::progress::Progress;
use super::rotate_slots::{Decided, decide};
use super::stderr;
use super::units::{parse_size, show_count, show_size};
use super::{budget, explain, rotate_again, runtime};
use crate::keys::{Factor, KeyError, Role};
use crate::store::Bucket;
use crate::vfs::{RenewStep, VfsError};
use crate::volume::{self, OpenOptions, PreparedEpoch, Rotated, VolumeError};

/// Shown at the end of `coffer key rotate --help`.
pub const EXAMPLES: &str = "\
For when somebody who has had a key shall not have one any more. All segments and records in use are read and written anew, so \
it takes as long as copying the volume. It can be interrupted at any time; the volume is usable meanwhile, and the command goes \
on. When it has ended, nothing that is sealed with the old key is believed any more. What was stored before can still be read \
by whoever has the old key and a copy of the bucket.

The key that unlocks stays; if somebody else knows it, give another in its place with one of the --new options. Each other key \
is asked for, because it can only stay with what opens it; one that is not given is dropped, and a recovery code is replaced \
by a new one. Whoever knows a key that stays can open the volume. The fingerprint is another afterwards. Machines that know the \
volume follow by themselves.

Examples:
  coffer key rotate s3://bucket/home
  coffer key rotate --new-passphrase s3://bucket/home
  coffer key rotate --drop-others --new-passphrase-file new.pass --save-recovery-code code.txt /srv/volume";

/// What is said of a volume whose rotation has not ended.
pub const UNFINISHED: &str = "A rotation of the volume's key is unfinished: what is sealed with the old key is still believed. \
    `coffer key rotate URL` goes on with it.";

/// Memory for caches and buffers.
const MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// Arguments of `coffer key rotate`.
#[derive(Args, Debug)]
pub struct RotateArgs {
    /// The bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// Drop all keys but the one that unlocks, without asking for them
    #[arg(long)]
    pub drop_others: bool,
    /// Write a new recovery code to this new file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub save_recovery_code: Option<PathBuf>,
    /// Rotate although another machine may have the volume mounted; its mount can write no more
    #[arg(long)]
    pub takeover: bool,
    /// The present key.
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// What takes its place.
    #[command(flatten)]
    pub new: ReplaceArgs,
    /// How costly a guess is.
    #[command(flatten)]
    pub cost: CostArgs,
    /// What this machine remembers of volumes.
    #[command(flatten)]
    pub state: StateArgs,
    /// Memory for caches and buffers
    #[arg(long, value_name = "SIZE", env = "COFFER_MEMORY", value_parser = parse_size, hide_env_values = true, help_heading = "This machine")]
    pub memory: Option<u64>,
}

/// Rotates, or goes on with a rotation that was interrupted.
///
/// # Errors
/// When the volume cannot be opened, is mounted, or something in it cannot be sealed anew.
pub fn run(args: &RotateArgs) -> CommandResult {
    code_file::refuse_existing(args.save_recovery_code.as_deref())?;
    let factors = obtain_factors(&args.bucket, &args.unlock, &args.state)?;
    let new = args.new.obtain()?;
    let options = options(args)?;
    let rotated = runtime::block_on(async {
        let bucket = args.bucket.open()?;
        Box::pin(begin(args, &bucket, &factors, new.as_deref(), &options)).await?;
        // Nothing replaces it in a rotation that was begun before.
        let opens = new.as_deref().unwrap_or(&factors);
        Box::pin(go_on(&bucket, opens, &options, &rotate_again::how(args))).await
    })?;
    tell(&rotated);
    Ok(())
}

fn options(args: &RotateArgs) -> CommandResult<OpenOptions> {
    let (state_dir, key_slot) = (Some(args.state.directory()?), args.unlock.key_slot);
    let mut options = OpenOptions { state_dir, key_slot, takeover: args.takeover, ..OpenOptions::default() };
    options.vfs.clean.is_automatic = false;
    let segment_room_bytes = options.vfs.segment_room_bytes;
    budget::apply(&mut options, Some(args.memory.unwrap_or(MEMORY_BYTES)), None, None)?;
    // Nobody writes here, so that there is memory for segments of full size.
    options.vfs.segment_room_bytes = segment_room_bytes;
    Ok(options)
}

/// Begins a new epoch, unless one has begun that was not ended.
async fn begin(
    args: &RotateArgs,
    bucket: &Bucket,
    factors: &[Factor],
    new: Option<&[Factor]>,
    options: &OpenOptions,
) -> CommandResult {
    let failed = |error: VolumeError| explain::volume(&error, factors);
    let rekeying = volume::rekey(bucket.clone(), factors, options).await.map_err(failed)?;
    let own = rekeying.unlocked.slot;
    if rekeying.unlocked.role != Role::Admin {
        return Err(explain::keys(&KeyError::NotAdmin, factors));
    }
    if rekeying.unlocked.header.is_rotating() {
        rotate_again::refuse_what_comes_too_late(args, &rekeying.unlocked.header, own)?;
        stderr::line("Going on with a rotation that was begun before.");
        rotate_again::tell_of_code(args, &rekeying.unlocked.header, own);
        return Ok(());
    }
    let (_, bytes) = args.bucket.read_header(bucket).await?;
    let decided =
        tokio::task::block_in_place(|| decide(&rekeying.unlocked.header, &bytes, own, args.drop_others))?;
    if let (None, Some(path)) = (&decided.code, &args.save_recovery_code) {
        let why =
            format!("no recovery code is replaced, so that there is none to write to {}", path.display());
        return Err(CommandError::new(Exit::SlotRefused, why)
            .hint("leave --save-recovery-code out; `coffer key add --new-recovery-code` makes a code"));
    }
    let code_file = CodeFile::create(args.save_recovery_code.as_deref())?;
    let others = decided.kept.iter().map(|(id, factors)| (*id, factors.as_slice()));
    let stays = (own, new.unwrap_or(factors));
    let kept: Vec<(u32, &[Factor])> = std::iter::once(stays).chain(others).collect();
    let prepared = volume::prepare_epoch(rekeying, factors, &kept, args.cost.cost(), options);
    store(args, Box::pin(prepared).await.map_err(failed)?, &decided, code_file).await?;
    stderr::line("The rotation has begun: from now on the volume opens with the keys that stay.");
    for slot in &decided.dropped {
        stderr::line(format_args!("Dropped key {} ({}).", slot.id, slot.label));
    }
    Ok(())
}

/// Hands over the new recovery code, then stores the header that begins the epoch.
async fn store(
    args: &RotateArgs,
    prepared: PreparedEpoch,
    decided: &Decided,
    code_file: Option<CodeFile>,
) -> CommandResult {
    let handed = decided.code.as_ref().map(|code| hand_over(code, code_file, "the rotation has begun"));
    let handed = match handed.transpose() {
        Ok(handed) => handed,
        Err(told) => {
            if let Err(error) = prepared.give_up().await {
                tracing::debug!(%error, "closing after nothing was begun");
            }
            return Err(told);
        }
    };
    let Err(error) = Box::pin(prepared.begin()).await else { return Ok(()) };
    let (told, is_overtaken) = (not_stored(&error, &[]), is_overtaken(&error));
    let told = match handed {
        Some(handed) => handed.after(told, is_overtaken, &args.bucket.url),
        None => told,
    };
    Err(match is_overtaken {
        true => told,
        false => told.hint(format!("if the rotation has begun, {}", rotate_again::how(args))),
    })
}

/// Seals everything in use anew and ends the rotation. `again` says how to go on with it.
async fn go_on(
    bucket: &Bucket,
    factors: &[Factor],
    options: &OpenOptions,
    again: &str,
) -> CommandResult<Rotated> {
    let work = Progress::start("rotate");
    let show = |step| match step {
        RenewStep::Total(bytes) => work.set_total(bytes),
        RenewStep::Done(bytes) => work.set_bytes(bytes),
        RenewStep::Records => work.note("writing the records anew"),
    };
    let done = volume::end_rotation(bucket, factors, options, &show).await;
    work.finish();
    done.map_err(|error| {
        let told = not_stored(&error, factors);
        match error {
            VolumeError::Vfs(VfsError::NotRenewed { .. }) => told.hint(format!(
                "`coffer check --read-data` tells which files that are, `coffer repair` what can be done; then {again}"
            )),
            _ => told.hint(format!("the rotation is unfinished and the volume usable; {again}")),
        }
    })
}

fn tell(rotated: &Rotated) {
    let segments = rotated.renewed.segments;
    stderr::line(format_args!(
        "The volume has a new key, and all that is in use is sealed with it ({}, {}).",
        show_count(segments.count, "segment", "segments"),
        show_size(segments.bytes)
    ));
    stderr::line(format_args!(
        "Its fingerprint is another now, for `--expect` on other machines:\n  {}",
        rotated.identity.fingerprint()
    ));
    stderr::line(format_args!(
        "The old segments are deleted by the next mount, or `coffer gc --now`, when they have waited ten minutes."
    ));
}
