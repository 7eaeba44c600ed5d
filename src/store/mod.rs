//! Opens a bucket from a URL; retries, meters and probes it.
