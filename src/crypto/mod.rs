//! Primitives bound to this format: derivation, name sealing, object sealing. Knows no files.
