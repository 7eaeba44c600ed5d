//! The in-memory LRU of plaintext blocks.
