//! Listings worked out from all the names below a prefix.

use std::collections::BTreeSet;

use object_store::path::Path;
use object_store::{ListResult, ObjectMeta};

/// Whether the object at `path` lies below `prefix`.
pub(super) fn is_within(prefix: Option<&Path>, path: &Path) -> bool {
    prefix.is_none_or(|prefix| path.prefix_match(prefix).is_some_and(|mut rest| rest.next().is_some()))
}

/// What lies directly below `prefix`: objects, and directories with something in them.
pub(super) fn by_directory(prefix: Option<&Path>, found: Vec<ObjectMeta>) -> ListResult {
    let top = prefix.cloned().unwrap_or_default();
    let (mut common_prefixes, mut objects) = (BTreeSet::new(), Vec::new());
    for meta in found {
        let Some(mut rest) = meta.location.prefix_match(&top) else { continue };
        match (rest.next(), rest.next()) {
            (Some(first), Some(_)) => drop(common_prefixes.insert(top.clone().join(first))),
            (Some(_), None) => objects.push(meta.clone()),
            (None, _) => {}
        }
    }
    let common_prefixes = common_prefixes.into_iter().collect();
    ListResult { common_prefixes, objects, extensions: Default::default() }
}
