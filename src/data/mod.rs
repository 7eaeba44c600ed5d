//! File contents: dirty blocks, segment packing, upload, block reads, read-ahead.
