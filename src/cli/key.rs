//! `coffer key`: lists, adds, changes and removes the keys that open a volume, and rotates the volume's own.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::code_file::{self, CodeFile, Handed, hand_over};
use super::error::{CommandError, CommandResult, stdout_error};
use super::exit::Exit;
use super::factors::{NewKeyArgs, UnlockArgs};
use super::init::CostArgs;
use super::ls::printable;
use super::open::{BucketArgs, StateArgs, describe, obtain_factors};
use super::stderr;
use super::units::show_time;
use super::{explain, rotate, runtime};
use crate::base::{Clock, OsEntropy, SystemClock, Time};
use crate::keys::{Factor, FactorName, Header, NewSlot, RecoveryCode, Role, Slot, Unlocked};
use crate::volume::{self, OpenOptions, VolumeError};

/// Shown at the end of `coffer key --help`.
pub const EXAMPLES: &str = "\
A volume has up to 32 keys; each opens it alone. A key is a passphrase, a key file, both together, or a recovery code. Of those that \
take a passphrase eight are tried in turn; --key-slot opens any. Removing a key keeps out whoever knows only that key; it cannot \
make them forget a volume key that they have already unlocked. Rotating gives the volume another: everything in use is sealed \
anew, and nothing that was sealed with the old key is believed any more.

Examples:
  coffer key list s3://bucket/home
  coffer key add --label laptop s3://bucket/home
  coffer key add --new-recovery-code s3://bucket/home
  coffer key passwd s3://bucket/home
  coffer key remove s3://bucket/home 2
  coffer key rotate s3://bucket/home";

/// The commands below `coffer key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the keys; needs none of them
    List(ListArgs),
    /// Add a key
    Add(AddArgs),
    /// Remove a key
    Remove(RemoveArgs),
    /// Change a key: another passphrase, key file or both
    Passwd(PasswdArgs),
    /// Give the volume another key of its own, and seal everything in use with it
    #[command(after_help = rotate::EXAMPLES)]
    Rotate(rotate::RotateArgs),
}

/// Arguments of `coffer key list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// The bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `coffer key add`.
#[derive(Args, Debug)]
pub struct AddArgs {
    /// The bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// The present key.
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// What this machine remembers of volumes.
    #[command(flatten)]
    pub state: StateArgs,
    /// The new key.
    #[command(flatten)]
    pub new: NewKeyArgs,
    /// Make a recovery code and print it, instead of asking for a passphrase
    #[arg(long, conflicts_with_all = ["new_passphrase_file", "new_passphrase_command", "new_passphrase_fd", "new_key_file"])]
    pub new_recovery_code: bool,
    /// Write the new recovery code to this new file instead of standard output
    #[arg(long, value_name = "FILE", requires = "new_recovery_code")]
    pub save_recovery_code: Option<PathBuf>,
    /// What to call the key
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// What the key may do: open the volume, or change its keys as well
    #[arg(long, value_enum, default_value_t = RoleArg::Admin)]
    pub role: RoleArg,
    /// How costly a guess is.
    #[command(flatten)]
    pub cost: CostArgs,
}

/// Arguments of `coffer key remove`.
#[derive(Args, Debug)]
pub struct RemoveArgs {
    /// The bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// The key's number in `coffer key list`
    #[arg(value_name = "SLOT")]
    pub slot: u32,
    /// A key that stays, or the one that goes.
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// What this machine remembers of volumes.
    #[command(flatten)]
    pub state: StateArgs,
}

/// Arguments of `coffer key passwd`.
#[derive(Args, Debug)]
pub struct PasswdArgs {
    /// The bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// The key's number in `coffer key list`, if it is another than the one that unlocks
    #[arg(long, value_name = "SLOT")]
    pub slot: Option<u32>,
    /// The present key.
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// What this machine remembers of volumes.
    #[command(flatten)]
    pub state: StateArgs,
    /// What takes its place.
    #[command(flatten)]
    pub new: NewKeyArgs,
    /// How costly a guess is.
    #[command(flatten)]
    pub cost: CostArgs,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Open the volume and change its keys
    Admin,
    /// Open the volume
    Data,
}

impl From<RoleArg> for Role {
    fn from(arg: RoleArg) -> Self {
        match arg {
            RoleArg::Admin => Self::Admin,
            RoleArg::Data => Self::Data,
        }
    }
}

/// Runs one of the commands.
///
/// # Errors
/// When the header cannot be read or written, or no key opens it.
pub fn run(command: &KeyCommand) -> CommandResult {
    match command {
        KeyCommand::List(args) => list(args),
        KeyCommand::Add(args) => add(args),
        KeyCommand::Remove(args) => remove(args),
        KeyCommand::Passwd(args) => passwd(args),
        KeyCommand::Rotate(args) => rotate::run(args),
    }
}

fn list(args: &ListArgs) -> CommandResult {
    let header = describe(&args.bucket, &StateArgs::default())?;
    let text = if args.json { json(&header) } else { table(&header) };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| stdout_error(&e))?;
    if header.is_rotating() {
        stderr::line(rotate::UNFINISHED);
    }
    Ok(())
}

fn add(args: &AddArgs) -> CommandResult {
    code_file::refuse_existing(args.save_recovery_code.as_deref())?;
    let factors = obtain_factors(&args.bucket, &args.unlock, &args.state)?;
    let code = args.new_recovery_code.then(|| RecoveryCode::random(&OsEntropy));
    let new = match &code {
        Some(code) => vec![code.factor()],
        None => args.new.obtain("New passphrase")?,
    };
    let code_file = CodeFile::create(args.save_recovery_code.as_deref())?;
    let label =
        args.label.clone().unwrap_or_else(|| if code.is_some() { "recovery" } else { "added" }.into());
    let slot = NewSlot { label: &label, role: args.role.into(), factors: &new, kdf_cost: args.cost.cost() };
    let number = change((&args.bucket, &args.state, &args.unlock), &factors, |unlocked, now| {
        let bytes = unlocked.add_slot(&slot, &OsEntropy, now).map_err(|e| explain::keys(&e, &[]))?;
        let handed = code.as_ref().map(|code| hand_over(code, code_file, "the key is added")).transpose()?;
        Ok(Change { bytes, slot: None, handed })
    })?;
    stderr::line(format_args!("Added key {number} ({label})."));
    Ok(())
}

fn remove(args: &RemoveArgs) -> CommandResult {
    let factors = obtain_factors(&args.bucket, &args.unlock, &args.state)?;
    let (mut is_last_code, mut are_codes) = (false, false);
    change((&args.bucket, &args.state, &args.unlock), &factors, |unlocked, _| {
        let bytes = unlocked.remove_slot(args.slot).map_err(|e| explain::keys(&e, &[]))?;
        let is_code = |slot: &&Slot| slot.factors == [FactorName::RecoveryCode];
        are_codes = unlocked.slots().iter().filter(|slot| slot.id != args.slot).all(|slot| is_code(&slot));
        let mut codes = unlocked.slots().iter().filter(is_code);
        is_last_code = codes.next().is_some_and(|code| code.id == args.slot) && codes.next().is_none();
        Ok(Change { bytes, slot: Some(args.slot), handed: None })
    })?;
    stderr::line(format_args!(
        "Removed key {}. Who has used it may still know the volume key; `coffer key rotate` gives the volume another.",
        args.slot
    ));
    if are_codes {
        stderr::line(format_args!(
            "warning: only a recovery code opens the volume now; `coffer key add {}` gives it a passphrase or key file.",
            args.bucket.url
        ));
    }
    if is_last_code {
        stderr::line(format_args!(
            "The volume has no recovery code now; `coffer key add --new-recovery-code {}` makes one.",
            args.bucket.url
        ));
    }
    Ok(())
}

fn passwd(args: &PasswdArgs) -> CommandResult {
    let factors = obtain_factors(&args.bucket, &args.unlock, &args.state)?;
    let new = args.new.obtain("New passphrase")?;
    let number = change((&args.bucket, &args.state, &args.unlock), &factors, |unlocked, now| {
        let slot = args.slot.unwrap_or(unlocked.slot);
        let bytes = unlocked.change_factors(slot, &new, args.cost.cost(), &OsEntropy, now);
        let bytes = bytes.map_err(|e| explain::keys(&e, &[]))?;
        Ok(Change { bytes, slot: Some(slot), handed: None })
    })?;
    stderr::line(format_args!("Changed key {number}. It opens with the new one only."));
    Ok(())
}

/// A header that is to follow.
struct Change {
    bytes: Vec<u8>,
    /// The slot concerned, if it is not the newest.
    slot: Option<u32>,
    /// The recovery code of which it makes a key.
    handed: Option<Handed>,
}

/// Unlocks the newest header, stores the one that `next` makes of it, and returns the number of the slot concerned.
fn change(
    (bucket, state, unlock): (&BucketArgs, &StateArgs, &UnlockArgs),
    factors: &[Factor],
    next: impl FnOnce(&Unlocked, Time) -> CommandResult<Change>,
) -> CommandResult<u32> {
    let (state_dir, key_slot) = (Some(state.directory()?), unlock.key_slot);
    let options = OpenOptions { state_dir, key_slot, ..OpenOptions::default() };
    runtime::block_on(async {
        let opened = volume::rekey(bucket.open()?, factors, &options).await;
        let mut opened = opened.map_err(|e| explain::volume(&e, factors))?;
        let Change { bytes, slot, handed } =
            tokio::task::block_in_place(|| next(&opened.unlocked, SystemClock::default().now()))?;
        if let Err(error) = opened.store(bytes).await {
            let told = not_stored(&error, factors);
            return Err(match handed {
                Some(handed) => handed.after(told, is_overtaken(&error), &bucket.url),
                None => told,
            });
        }
        Ok(slot.or_else(|| opened.unlocked.slots().last().map(|slot| slot.id)).unwrap_or_default())
    })
}

/// Whether a header is certainly not stored, because somebody else has stored one.
#[must_use]
pub const fn is_overtaken(error: &VolumeError) -> bool {
    matches!(error, VolumeError::Vault(source) if explain::is_conflict(source))
}

/// Why a header could not be stored, if it is that somebody else has stored one.
#[must_use]
pub fn not_stored(error: &VolumeError, factors: &[Factor]) -> CommandError {
    match is_overtaken(error) {
        true => CommandError::new(Exit::SlotRefused, "somebody else changed the keys at the same time")
            .hint("run the command again"),
        false => explain::volume(error, factors),
    }
}

fn table(header: &Header) -> String {
    let mut text = String::from("SLOT  ROLE   OPENS WITH              CHANGED           LABEL\n");
    for slot in &header.slots {
        let changed = show_time(Time { secs: slot.created_unix_secs, nanos: 0 }, false);
        let role = role_word(slot.role);
        text.push_str(&format!(
            "{:>4}  {role:<5}  {:<22}  {changed}  {}\n",
            slot.id,
            opens_with(slot),
            printable(slot.label.as_bytes())
        ));
    }
    text
}

/// A role in a word.
#[must_use]
pub const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Data => "data",
    }
}

/// The factors of a slot in words.
#[must_use]
pub fn opens_with(slot: &Slot) -> String {
    slot.factors.iter().map(|name| explain::word(*name)).collect::<Vec<_>>().join(" + ")
}

fn json(header: &Header) -> String {
    let slots: Vec<_> = header
        .slots
        .iter()
        .map(|slot| {
            serde_json::json!({
                "slot": slot.id,
                "label": slot.label,
                "role": slot.role,
                "factors": slot.factors,
                "kdf": slot.kdf,
                "changed_unix_secs": slot.created_unix_secs,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::json!({ "is_rotating": header.is_rotating(), "slots": slots }))
}
