//! Which keys of a volume stay when its own is rotated: each is asked for, because only with what opens it can it be made
//! anew.

use std::io::{self, BufRead, Write};
use std::path::Path;

use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::stderr;
use super::{explain, passphrase, terminal};
use crate::base::OsEntropy;
use crate::keys::{self, Factor, FactorName, Header, KeyError, RecoveryCode, Slot};

/// How often a key is asked for that is given wrongly.
const TRIES_MAX: u32 = 3;

/// What becomes of the other keys.
pub(super) struct Decided {
    /// Those that stay, with what opens them from now on.
    pub(super) kept: Vec<(u32, Vec<Factor>)>,
    /// A new recovery code, which takes the place of one that is dropped.
    pub(super) code: Option<RecoveryCode>,
    pub(super) dropped: Vec<Slot>,
}

/// Decides about all keys of `header`, whose bytes are `bytes`, but the one numbered `own`.
pub(super) fn decide(header: &Header, bytes: &[u8], own: u32, drops_others: bool) -> CommandResult<Decided> {
    let others: Vec<&Slot> = header.slots.iter().filter(|slot| slot.id != own).collect();
    if !drops_others && !others.is_empty() && !terminal::is_there() {
        let named: Vec<String> = others.iter().map(|slot| name_of(slot)).collect();
        let message = format!(
            "there is no terminal to ask for the other keys on, which would go: {}",
            named.join(", ")
        );
        return Err(CommandError::new(Exit::SlotRefused, message).hint(
            "with --drop-others they go, and a recovery code is replaced by a new one; `coffer key add` makes keys anew",
        ));
    }
    let mut decided = Decided { kept: Vec::new(), code: None, dropped: Vec::new() };
    for slot in others {
        let given = if drops_others { None } else { obtain(slot, bytes)? };
        match given {
            Some(factors) => decided.kept.push((slot.id, factors)),
            None if slot.factors == [FactorName::RecoveryCode] && decided.code.is_none() => {
                let code = RecoveryCode::random(&OsEntropy);
                decided.kept.push((slot.id, vec![code.factor()]));
                decided.code = Some(code);
            }
            None => decided.dropped.push(slot.clone()),
        }
    }
    Ok(decided)
}

/// A key as it is spoken of.
pub(super) fn name_of(slot: &Slot) -> String {
    format!("{} ({})", slot.id, slot.label)
}

/// What opens `slot`, from its owner; nothing if it is to be dropped.
fn obtain(slot: &Slot, bytes: &[u8]) -> CommandResult<Option<Vec<Factor>>> {
    for _ in 0..TRIES_MAX {
        let Some(factors) = ask_for(slot)? else { return Ok(None) };
        match keys::unlock_slot(bytes, &factors, slot.id) {
            Ok(_) => return Ok(Some(factors)),
            Err(KeyError::WrongKey | KeyError::BadRecoveryCode(_)) => {
                stderr::line(format_args!("That does not open key {}.", name_of(slot)));
            }
            Err(error) => return Err(explain::keys(&error, &factors)),
        }
    }
    Err(CommandError::new(Exit::WrongKey, format!("key {} was not given", name_of(slot)))
        .hint("give nothing to drop it"))
}

fn ask_for(slot: &Slot) -> CommandResult<Option<Vec<Factor>>> {
    let mut factors = Vec::with_capacity(slot.factors.len());
    for name in &slot.factors {
        let (what, without) = match name {
            FactorName::Passphrase => ("Passphrase", "to drop it"),
            FactorName::KeyFile => ("Key file", "to drop it"),
            FactorName::RecoveryCode => ("Recovery code", "for a new one"),
        };
        let prompt = format!("{what} of key {}, or nothing {without}", name_of(slot));
        let factor = match name {
            FactorName::KeyFile => match ask_path(&prompt)? {
                path if path.is_empty() => return Ok(None),
                path => Factor::KeyFile(passphrase::key_file("key", Path::new(&path))?),
            },
            FactorName::Passphrase | FactorName::RecoveryCode => {
                let typed = passphrase::ask_or_nothing(&prompt)?;
                if typed.expose().is_empty() {
                    return Ok(None);
                }
                match name {
                    FactorName::Passphrase => Factor::Passphrase(typed),
                    _ => Factor::RecoveryCode(typed),
                }
            }
        };
        factors.push(factor);
    }
    Ok(Some(factors))
}

/// Asks for the name of a file, which may be seen.
fn ask_path(prompt: &str) -> CommandResult<String> {
    let failed =
        |error: io::Error| CommandError::new(Exit::NoSecret, format!("cannot ask for a file: {error}"));
    stderr::text(format_args!("{prompt}: "));
    io::stderr().flush().map_err(failed)?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
