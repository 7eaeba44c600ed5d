//! `coffer inspect`: shows what a stored object is; with a key, what is in it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use futures::TryStreamExt;

use super::error::{CommandError, CommandResult, stdout_error};
use super::exit::Exit;
use super::factors::UnlockArgs;
use super::key::{opens_with, role_word};
use super::ls::printable;
use super::open::{BucketArgs, StateArgs, obtain_factors};
use super::units::{show_count, show_size, show_time};
use super::{explain, inspect_records, runtime};
use crate::base::{BlockPlace, OsEntropy, SegmentId, Time};
use crate::crypto::{HEAD_BYTES, ObjectHead, ObjectKind};
use crate::data::segment::{FooterBlock, read_blocks, read_footer, read_seal};
use crate::keys::{self, Factor, HEADER_BYTES_MAX, Header};
use crate::store::Bucket;
use crate::vault::{Vault, VaultError, peek};

/// Shown at the end of `coffer inspect --help`.
pub const EXAMPLES: &str = "\
Without OBJECT, all objects are listed. Without a key, you see what the provider sees. With one (--unlock, or any option \
that gives a key), segments show which blocks of which files they hold, and metadata objects their names; everything that \
is shown has been authenticated, and an altered object is told with exit code 20. With --records, every record of the tree as \
of the last commit is written as it is stored (docs/FORMAT.md tells its bytes), one line each: key and value in hexadecimal.

Examples:
  coffer inspect s3://bucket/home
  coffer inspect s3://bucket/home header/1
  coffer inspect --unlock /srv/volume d/0a/0a4k9q2m7c1v6s8t3r5u0p9o4i
  coffer inspect --unlock --raw /srv/volume m/6kc7e0.../1v9q... > plain
  coffer inspect --records /srv/volume > records";

/// Arguments of `coffer inspect`.
#[derive(clap::Args, Debug)]
pub struct InspectArgs {
    /// The bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// The object's path in the bucket, below the volume's prefix
    #[arg(value_name = "OBJECT")]
    pub object: Option<String>,
    /// Unlock the volume and look inside
    #[arg(long)]
    pub unlock: bool,
    /// Write the plaintext of a metadata object, as it is, to standard output
    #[arg(long, requires = "object")]
    pub raw: bool,
    /// Write every record to standard output: key and value in hexadecimal, as they are stored
    #[arg(long, visible_alias = "dump-records", conflicts_with = "object")]
    pub records: bool,
    /// The keys.
    #[command(flatten)]
    pub keys: UnlockArgs,
}

/// Shows.
///
/// # Errors
/// When there is no such object, it is damaged, or the key is wrong.
pub fn run(args: &InspectArgs) -> CommandResult {
    let with_key = args.unlock || args.raw || args.records || args.keys.is_given();
    let factors =
        if with_key { Some(obtain_factors(&args.bucket, &args.keys, &StateArgs::default())?) } else { None };
    runtime::block_on(async {
        let bucket = args.bucket.open()?;
        let vault = match &factors {
            Some(factors) => Some(unlock(args, &bucket, factors).await?),
            None => None,
        };
        if let (true, Some(vault)) = (args.records, &vault) {
            return inspect_records::print(vault, factors.as_deref().unwrap_or_default()).await;
        }
        let object = args.object.as_deref().map(|object| object.trim_matches('/'));
        let shown = match (object, &vault) {
            (None, _) => overview(&bucket, vault.as_ref()).await,
            (Some(object), Some(vault)) if args.raw => raw(vault, object).await,
            (Some(object), _) if object.starts_with("header") => {
                header(&bucket, object, vault.as_ref()).await
            }
            (Some(object), _) => sealed(&bucket, object, vault.as_ref()).await,
        };
        let shown = shown.map_err(|error| match error {
            Trouble::Told(error) => error,
            Trouble::Vault(VaultError::Missing(object)) => {
                CommandError::new(Exit::NoSuchPath, format!("there is no object {object} in the bucket"))
            }
            Trouble::Vault(error) => explain::vault(&error, bucket.display_url()),
        })?;
        let mut out = io::stdout().lock();
        out.write_all(&shown).and_then(|()| out.flush()).map_err(|e| stdout_error(&e))
    })
}

enum Trouble {
    Vault(VaultError),
    Told(CommandError),
}

impl From<VaultError> for Trouble {
    fn from(error: VaultError) -> Self {
        Self::Vault(error)
    }
}

impl From<CommandError> for Trouble {
    fn from(error: CommandError) -> Self {
        Self::Told(error)
    }
}

type Shown = Result<Vec<u8>, Trouble>;

async fn unlock(args: &InspectArgs, bucket: &Bucket, factors: &[Factor]) -> CommandResult<Vault> {
    let (_, bytes) = args.bucket.read_header(bucket).await?;
    let unlocked = tokio::task::block_in_place(|| keys::unlock_by(&bytes, factors, args.keys.key_slot));
    let unlocked = unlocked.map_err(|e| explain::keys(&e, factors))?;
    Ok(Vault::new(bucket.clone(), Arc::new(unlocked.ring), Arc::new(OsEntropy)))
}

async fn overview(bucket: &Bucket, vault: Option<&Vault>) -> Shown {
    let mut objects: Vec<(String, u64)> = peek::list(bucket, None).try_collect().await?;
    objects.sort_unstable();
    let mut text = String::new();
    let mut bytes = 0;
    for (object, size) in &objects {
        let meaning = match object.split('/').next() {
            Some("header") => "header".to_owned(),
            Some("d") => "data".to_owned(),
            Some("m") => match vault.map(|vault| peek::engine_path(vault, object)) {
                None => "metadata".to_owned(),
                Some(Some(path)) => format!("metadata: {path}"),
                Some(None) => "not of this volume".to_owned(),
            },
            Some("a") => "audit".to_owned(),
            _ => "unknown".to_owned(),
        };
        let _ = writeln!(text, "{size:>12}  {}  {meaning}", object.escape_debug());
        bytes += size;
    }
    let count = show_count(objects.len() as u64, "object", "objects");
    let _ = writeln!(text, "{count}, {}", show_size(bytes));
    Ok(text.into_bytes())
}

async fn header(bucket: &Bucket, object: &str, vault: Option<&Vault>) -> Shown {
    let (bytes, size) = peek::front(bucket, object, HEADER_BYTES_MAX as u64 + 1).await?;
    let header = keys::describe(&bytes).map_err(|e| explain::keys(&e, &[]))?;
    let mut text = format!("{object}: volume header, {size} bytes\n");
    let genuine = match vault {
        None => "valid; that it is the volume's own, only a key can tell",
        Some(vault) if keys::is_genuine(&bytes, vault.ring()) => "valid, and the volume's own",
        Some(_) => "made by somebody who does not know the volume's key",
    };
    let created = show_time(Time { secs: header.created_unix_secs, nanos: 0 }, false);
    for (name, value) in [
        ("format", header.format.to_string()),
        ("volume", header.volume.to_string()),
        ("revision", header.revision.to_string()),
        ("key epoch", header.epoch.to_string()),
        ("created", created),
        ("compression", format!("{:?}", header.compression).to_lowercase()),
        ("admin key", HEXLOWER.encode(&header.admin_public_key.0)),
        ("signature", genuine.to_owned()),
    ] {
        let _ = writeln!(text, "  {name:<11}  {value}");
    }
    push_slots(&mut text, &header);
    Ok(text.into_bytes())
}

fn push_slots(text: &mut String, header: &Header) {
    for slot in &header.slots {
        let cost = slot.kdf.map(|kdf| format!(", scrypt N = {}, r = {}, p = {}", kdf.n, kdf.r, kdf.p));
        let _ = writeln!(
            text,
            "  slot {:<6}  {} ({}), {}{}",
            slot.id,
            printable(slot.label.as_bytes()),
            role_word(slot.role),
            opens_with(slot),
            cost.unwrap_or_default()
        );
    }
}

async fn sealed(bucket: &Bucket, object: &str, vault: Option<&Vault>) -> Shown {
    let (front, size) = peek::front(bucket, object, HEAD_BYTES as u64).await?;
    let head = ObjectHead::decode(&front).map_err(|error| {
        CommandError::new(Exit::Tampered, format!("{object}, {size} bytes: {error}"))
            .hint("it was not written by coffer, or has been altered")
    })?;
    let kind = match head.kind {
        ObjectKind::Segment => "data segment",
        ObjectKind::Meta => "metadata object",
        ObjectKind::Audit => "audit object",
        ObjectKind::Rescue => "rescued data",
    };
    let mut text = format!("{object}: {kind}, {size} bytes\n");
    for (name, value) in [
        ("suite", format!("{} (AES-256-GCM)", head.suite)),
        ("key epoch", head.epoch.to_string()),
        ("salt", HEXLOWER.encode(&head.salt)),
        ("commitment", HEXLOWER.encode(&head.commitment)),
    ] {
        let _ = writeln!(text, "  {name:<10}  {value}");
    }
    match (vault, head.kind) {
        (Some(vault), ObjectKind::Segment) => push_blocks(&mut text, vault, object, size).await?,
        (Some(vault), ObjectKind::Meta) => {
            let (path, bytes) = engine_object(vault, object).await?;
            let _ = writeln!(text, "  name        {path}");
            let _ = writeln!(text, "  contents    {} bytes, all authenticated", bytes.len());
        }
        _ => {}
    }
    Ok(text.into_bytes())
}

async fn push_blocks(text: &mut String, vault: &Vault, object: &str, size: u64) -> Result<(), Trouble> {
    let name = object.rsplit('/').next().unwrap_or_default();
    let id = SegmentId::parse(name).ok_or_else(|| {
        CommandError::new(Exit::Tampered, format!("{object} has no name that coffer gives a segment"))
    })?;
    let tampered = |error| {
        let exit = explain::data_exit(&error);
        CommandError::new(exit, super::error::sentence(&error))
    };
    let seal = read_seal(vault, id).await.map_err(tampered)?;
    let blocks = read_footer(vault, id, &seal, size).await.map_err(tampered)?;
    let places: Vec<BlockPlace> = blocks.iter().map(|block| block.place).collect();
    read_blocks(vault, id, &seal, &places).await.map_err(tampered)?;
    let plain: u64 = blocks.iter().map(|block| u64::from(block.place.piece.plain)).sum();
    let count = show_count(blocks.len() as u64, "block", "blocks");
    let _ = writeln!(text, "  contents    {count}, {} of plaintext, all authenticated", show_size(plain));
    let _ = writeln!(
        text,
        "  {:>9} {:>12} {:>17} {:>7} {:>7}  CODEC",
        "POSITION", "INODE", "BLOCKS", "PLAIN", "STORED"
    );
    for run in blocks.chunk_by(follows) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let piece = first.place.piece;
        let codec = format!("{:?}", piece.codec).to_lowercase();
        let (pos, ino) = (first.place.pos, first.ino);
        let range = match run.len() {
            1 => first.index.0.to_string(),
            _ => format!("{} to {}", first.index.0, last.index.0),
        };
        let (plain, stored) = (piece.plain, piece.stored);
        let _ = writeln!(text, "  {pos:>9} {ino:>12} {range:>17} {plain:>7} {stored:>7}  {codec}");
    }
    Ok(())
}

/// Whether two blocks of a segment are neighbours in the same file and stored alike, so that one line shows both.
fn follows(one: &FooterBlock, next: &FooterBlock) -> bool {
    one.ino == next.ino && one.index.0 + 1 == next.index.0 && one.place.piece == next.place.piece
}

async fn raw(vault: &Vault, object: &str) -> Shown {
    Ok(engine_object(vault, object).await?.1.to_vec())
}

async fn engine_object(vault: &Vault, object: &str) -> Result<(String, bytes::Bytes), Trouble> {
    let path = peek::engine_path(vault, object).ok_or_else(|| {
        CommandError::new(Exit::Tampered, format!("{object} has no name of this volume's metadata objects"))
    })?;
    let bytes = peek::engine_object(vault, &path).await?;
    Ok((path, bytes))
}
