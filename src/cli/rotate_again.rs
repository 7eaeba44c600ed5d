//! How a rotation that was begun is gone on with: what is said to do, and what is refused because it comes too late.

use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::rotate::RotateArgs;
use super::rotate_slots::name_of;
use super::stderr;
use crate::keys::{FactorName, Header, Slot};

/// What to call to go on with the rotation that `args` have begun, as the end of a sentence.
pub(super) fn how(args: &RotateArgs) -> String {
    let late = too_late(args);
    if late.is_empty() {
        return "the same command goes on with it".to_owned();
    }
    let mut command = "coffer key rotate".to_owned();
    let sources = &args.new.sources;
    for (option, is_given) in [
        ("--passphrase-file", sources.new_passphrase_file.is_some()),
        ("--passphrase-command", sources.new_passphrase_command.is_some()),
        ("--passphrase-fd", sources.new_passphrase_fd.is_some()),
        ("--key-file", sources.new_key_file.is_some()),
    ] {
        if is_given {
            command = format!("{command} {option} ...");
        }
    }
    let with = if replaces(args) { ", with the new key and" } else { "" };
    format!("`{command} {}` goes on with it{with} without {}", args.bucket.url, late.join(", "))
}

const fn replaces(args: &RotateArgs) -> bool {
    args.new.new_passphrase || args.new.sources.is_given()
}

/// The options given that only the beginning of a rotation can heed.
fn too_late(args: &RotateArgs) -> Vec<&'static str> {
    let sources = &args.new.sources;
    let all = [
        ("--new-passphrase", args.new.new_passphrase),
        ("--new-passphrase-file", sources.new_passphrase_file.is_some()),
        ("--new-passphrase-command", sources.new_passphrase_command.is_some()),
        ("--new-passphrase-fd", sources.new_passphrase_fd.is_some()),
        ("--new-key-file", sources.new_key_file.is_some()),
        ("--save-recovery-code", args.save_recovery_code.is_some()),
        ("--kdf-log-n", args.cost.kdf_log_n.is_some()),
    ];
    all.into_iter().filter(|(_, is_given)| *is_given).map(|(option, _)| option).collect()
}

/// Refuses what was asked for and cannot be done in the middle of a rotation, to whoever unlocked with the key `own`.
///
/// # Errors
/// When anything of that was asked for.
pub(super) fn refuse_what_comes_too_late(args: &RotateArgs, header: &Header, own: u32) -> CommandResult {
    let refuse =
        |why: &str| CommandError::new(Exit::SlotRefused, format!("a rotation was begun before: {why}"));
    if replaces(args) {
        return Err(refuse("the key that unlocks cannot be replaced in the middle of it").hint(
            "go on without the --new options, then change it with `coffer key passwd`, and rotate once more",
        ));
    }
    if let Some(path) = &args.save_recovery_code {
        let why = format!("it makes no recovery code any more to write to {}", path.display());
        return Err(refuse(&why).hint(
            "go on without --save-recovery-code; `coffer key add --new-recovery-code` makes a code at any time",
        ));
    }
    if args.cost.kdf_log_n.is_some() {
        return Err(refuse("its keys are stretched as they are").hint("go on without --kdf-log-n"));
    }
    let stayed = stayed(header, own);
    if args.drop_others && !stayed.is_empty() {
        // They have been given the new volume key, which the end of the rotation does not change.
        let named: Vec<String> = stayed.into_iter().map(name_of).collect();
        return Err(refuse(&format!(
            "these keys have stayed in it, and open the new volume key by now: {}",
            named.join(", ")
        ))
        .hint("go on without --drop-others, then rotate once more with it"));
    }
    Ok(())
}

/// The keys that `--drop-others` would not have left beside `own`. One recovery code it does leave: a new one.
fn stayed(header: &Header, own: u32) -> Vec<&Slot> {
    let code = codes(header, own).next().map(|slot| slot.id);
    header.slots.iter().filter(|slot| slot.id != own && Some(slot.id) != code).collect()
}

fn codes(header: &Header, own: u32) -> impl Iterator<Item = &Slot> {
    header.slots.iter().filter(move |slot| slot.id != own && slot.factors == [FactorName::RecoveryCode])
}

/// Says of a recovery code what nobody can know: whether somebody has it.
pub(super) fn tell_of_code(args: &RotateArgs, header: &Header, own: u32) {
    let url = &args.bucket.url;
    for slot in codes(header, own) {
        stderr::line(format_args!(
            "Key {} takes the recovery code that was made or given when it began, and that may never have been shown. \
             If you do not have it, `coffer key add --new-recovery-code {url}` makes another; then `coffer key remove {url} {}` \
             removes this one.",
            name_of(slot),
            slot.id
        ));
    }
}
