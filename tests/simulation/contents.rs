//! Contents that say of each 64 bytes which file they belong to, where in it, and which write they are of.

const LINE: usize = 64;

/// What operation number `version` writes at `offset` of file `ino`.
pub fn bytes(ino: u64, version: u64, offset: u64, len: usize) -> Vec<u8> {
    let first = offset / LINE as u64;
    let mut bytes = Vec::with_capacity(len + 2 * LINE);
    let mut line = format!("file {ino:010} write {version:010} line ").into_bytes();
    line.resize(LINE, b'.');
    for number in first..=(offset + len as u64) / LINE as u64 {
        // Eight digits by hand: this loop is most of what a simulation writes.
        let mut rest = number;
        for digit in line[38..46].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        bytes.extend_from_slice(&line);
    }
    let skip = (offset % LINE as u64) as usize;
    bytes.drain(..skip);
    bytes.truncate(len);
    bytes
}

/// The line of `data` around `at`, for a person to read.
pub fn show(data: &[u8], at: usize) -> String {
    let start = at / LINE * LINE;
    let line = data.get(start..(start + LINE).min(data.len())).unwrap_or_default();
    line.escape_ascii().to_string()
}
