//! The house rules that a machine can see: which room may know which, and how files begin.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms it may name. (`docs/ARCHITECTURE.md`, "Rooms")
const ROOMS: [(&str, &[&str]); 15] = [
    ("base", &[]),
    ("crypto", &["base"]),
    ("keys", &["base", "crypto"]),
    ("store", &["base"]),
    ("vault", &["base", "crypto", "store"]),
    ("meta", &["base", "crypto", "store", "vault"]),
    ("cache", &["base"]),
    ("data", &["base", "cache", "crypto", "store", "vault"]),
    ("vfs", &["base", "cache", "crypto", "data", "meta", "store", "vault"]),
    ("volume", &["base", "cache", "crypto", "data", "keys", "meta", "store", "vault", "vfs"]),
    ("maint", &["base", "crypto", "data", "keys", "meta", "store", "vault", "vfs", "volume"]),
    ("fuse", &["base", "vfs"]),
    ("web", &["base", "store", "vfs"]),
    ("control", &["fuse", "store", "vfs"]),
    (
        "cli",
        &[
            "base", "control", "crypto", "data", "fuse", "keys", "maint", "meta", "store", "vault", "vfs",
            "volume", "web",
        ],
    ),
];

/// Each crate that is named in few places, and those places.
const CRATES: [(&str, &[&str]); 14] = [
    ("fuser", &["src/fuse/"]),
    ("object_store", &["src/store/", "src/vault/", "src/meta/engine/"]),
    ("reqwest", &["src/store/connect/"]),
    ("humantime", &["src/store/connect/"]),
    ("slatedb", &["src/meta/engine/"]),
    ("aes_siv", &["src/crypto/"]),
    ("scrypt", &["src/crypto/"]),
    ("memmap2", &["src/crypto/"]),
    ("aws_lc_rs", &["src/crypto/", "src/base/entropy.rs", "src/store/aws/sso.rs"]),
    ("zstd", &["src/data/segment/"]),
    ("lz4_flex", &["src/data/segment/"]),
    ("indicatif", &["src/cli/"]),
    ("hyper", &["src/web/"]),
    ("tracing_journald", &["src/cli/logging.rs"]),
];

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut queue = vec![root.join("src")];
    while let Some(folder) = queue.pop() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(found.len() > 100, "the sources are not where they were");
    found
}

/// The words that follow `prefix` in `text`, up to what is no part of a name.
fn words_after<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).map(move |(at, _)| {
        let rest = &text[at + prefix.len()..];
        &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())]
    })
}

#[test]
fn rooms_know_only_the_rooms_below_them() {
    for (name, text) in sources() {
        let Some(room) = name.strip_prefix("src/").and_then(|rest| rest.split_once('/')) else { continue };
        let (_, allowed) = ROOMS.iter().find(|(known, _)| *known == room.0).expect("a room without a rule");
        for named in words_after(&text, "crate::") {
            let is_room = ROOMS.iter().any(|(known, _)| *known == named);
            assert!(
                !is_room || named == room.0 || allowed.contains(&named),
                "{name} names the room `{named}`"
            );
        }
    }
}

#[test]
fn crates_are_named_where_they_can_be_replaced() {
    for (name, text) in sources() {
        for (library, places) in CRATES {
            let is_named =
                text.contains(&format!("use {library}::")) || text.contains(&format!(" {library}::"));
            assert!(
                !is_named || places.iter().any(|place| name.starts_with(place)),
                "{name} names the crate `{library}`"
            );
        }
        let calls_bincode = text.contains("bincode::encode_") || text.contains("bincode::decode_");
        assert!(!calls_bincode || name == "src/meta/codec.rs", "{name} encodes or decodes by itself");
    }
}

#[test]
fn every_file_says_what_it_is_for_and_stays_of_a_size() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "{name} does not begin with its one sentence");
        let line_count = text.lines().count();
        assert!(line_count <= 700, "{name} has {line_count} lines");
    }
}
