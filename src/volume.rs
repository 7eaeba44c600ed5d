//! Opens, creates and closes a volume: from a bucket and factors to a filesystem.
