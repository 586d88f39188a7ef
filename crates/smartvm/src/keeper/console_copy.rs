//! The user's copy of what the guest prints (`serial.path`).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, Result};

/// A file or FIFO that gets the console's output. What it doesn't take at once, a FIFO whose
/// reader lags or a full disk, is lost to it: the guest never waits.
pub(super) struct ConsoleCopy {
    file: File,
}

impl ConsoleCopy {
    pub(super) fn open(path: &Path) -> Result<Self> {
        // Opened for reading as well, a FIFO needs no reader to be opened or written.
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
            .open(path)
            .map(|file| Self { file })
            .map_err(|e| Error::io("opening the console's copy", path, e))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        if let Err(e) = self.file.write_all(bytes) {
            tracing::debug!("copying the console: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_file_is_added_to_and_a_fifo_without_a_reader_never_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        std::fs::write(&path, "before ").unwrap();
        ConsoleCopy::open(&path).unwrap().write(b"after");
        assert_eq!(std::fs::read(&path).unwrap(), b"before after");
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
        let mut copy = ConsoleCopy::open(&fifo).unwrap();
        copy.write(b"first ");
        copy.write(&vec![b'x'; 1 << 20]);
        let mut kept = [0; 6];
        File::open(&fifo).unwrap().read_exact(&mut kept).unwrap();
        assert_eq!(&kept, b"first ");
    }
}
