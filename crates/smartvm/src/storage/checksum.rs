//! SHA-256 of files, in lower-case hexadecimal.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::copy::open_source;
use super::progress::Watch;
use crate::{Error, Result};

/// The SHA-256 of a regular file.
pub fn sha256_of_file(path: &Path, watch: &mut Watch<'_>) -> Result<String> {
    let mut file = open_source(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        watch.go_on("computing a checksum")?;
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(&buffer[..read]);
                watch.tell(super::Progress::Bytes(read as u64));
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(Error::io("reading", path, cause)),
        }
    }
    Ok(hex(&hasher.finalize()))
}

/// The SHA-256 of some bytes.
pub fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether `text` is a SHA-256 in hexadecimal, of either case.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_known_one() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of(b"abc"), known);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("abc"), "abc").unwrap();
        let (mut progress, never) = (|_| {}, || false);
        let mut watch = Watch::new(&mut progress, &never);
        assert_eq!(
            sha256_of_file(&dir.path().join("abc"), &mut watch).unwrap(),
            known
        );
        assert!(
            is_sha256(known) && !is_sha256(&known[1..]) && !is_sha256(&known.replace('a', "g"))
        );
    }
}
