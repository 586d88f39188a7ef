//! Copies of drive images: shared blocks where the file system can, holes kept where it can't.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{SeekFrom as Whence, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

use super::progress::go_on;
use crate::{Error, ErrorKind, Result};

/// Bytes copied between two looks at whether to go on.
const STRIDE: u64 = 16 << 20;

/// How a copy was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyMethod {
    /// The two files share their blocks until one is written.
    Reflink,
    /// The data was copied, the holes were kept.
    Sparse,
}

/// What a copy came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyOutcome {
    /// How it was made.
    pub method: CopyMethod,
    /// Size of the file, holes included, in bytes.
    pub size_bytes: u64,
    /// Bytes that were really copied: 0 for a reflink.
    pub copied_bytes: u64,
}

/// Copies the regular file `source` to `target`, which must not exist yet and gets mode 0600.
///
/// Looks at `cancelled` every 16 MiB. A copy that fails or is cancelled is removed again. The
/// copy isn't flushed to the disk: it is meant for files that don't outlive a crash.
pub fn copy_sparse(
    source: &Path,
    target: &Path,
    cancelled: &dyn Fn() -> bool,
) -> Result<CopyOutcome> {
    let input = open_source(source)?;
    let output = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(target)
        .map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => Error::new(
                ErrorKind::WrongState,
                format!("copying to {}: it exists already", target.display()),
            )
            .at(target),
            _ => Error::io("creating", target, cause),
        })?;
    copy_open(&input, &output, cancelled)
        .map_err(|failure| match failure {
            Failure::Io(cause) => {
                let error = Error::io(&format!("copying {} to", source.display()), target, cause);
                match error.kind() {
                    ErrorKind::Host => {
                        error.hint("free some space there, or choose another staging directory")
                    }
                    _ => error,
                }
            }
            Failure::Stopped(error) => error,
        })
        .map_err(|error| match fs::remove_file(target) {
            Ok(()) => error,
            Err(cause) => error.with_cleanup([Error::io("removing", target, cause)]),
        })
}

/// Opens a regular file for reading; says of anything else what it is.
pub(crate) fn open_source(path: &Path) -> Result<File> {
    // Without O_NONBLOCK, opening a FIFO would wait for its writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(|cause| Error::io("opening", path, cause))?;
    let kind = file
        .metadata()
        .map_err(|cause| Error::io("looking at", path, cause))?
        .file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let (what, hint) = if kind.is_dir() {
        ("a directory", "name the file itself")
    } else if kind.is_block_device() {
        (
            "a block device",
            "a block device is not copied: set ephemeral to false for this drive, or copy it to \
             an image file first",
        )
    } else if kind.is_fifo() {
        ("a FIFO", "name a regular file")
    } else {
        ("a device", "name a regular file")
    };
    Err(Error::new(
        ErrorKind::Invalid,
        format!("{} is {what}, not a regular file", path.display()),
    )
    .at(path)
    .hint(hint))
}

enum Failure {
    Io(io::Error),
    Stopped(Error),
}

impl From<io::Error> for Failure {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}

impl From<Errno> for Failure {
    fn from(cause: Errno) -> Self {
        Self::Io(cause.into())
    }
}

fn copy_open(
    input: &File,
    output: &File,
    cancelled: &dyn Fn() -> bool,
) -> Result<CopyOutcome, Failure> {
    let size_bytes = input.metadata()?.len();
    // Refused for many reasons (another file system, no such feature, swap files); whichever
    // it is, copying will tell if it is a real one.
    if ioctl_ficlone(output, input).is_ok() {
        return Ok(CopyOutcome {
            method: CopyMethod::Reflink,
            size_bytes,
            copied_bytes: 0,
        });
    }
    output.set_len(size_bytes)?;
    let mut copied_bytes = 0;
    let mut in_kernel = true;
    let mut position = 0;
    while let Some((start, end)) = next_data(input, position, size_bytes)? {
        let mut at = start;
        while at < end {
            go_on(cancelled, "copying a drive").map_err(Failure::Stopped)?;
            let length = STRIDE.min(end - at);
            at += copy_range(input, output, at, length, &mut in_kernel)?;
        }
        copied_bytes += end - start;
        position = end;
    }
    Ok(CopyOutcome {
        method: CopyMethod::Sparse,
        size_bytes,
        copied_bytes,
    })
}

/// The next stretch of data at or after `position`; everything is data on a file system that
/// doesn't know of holes.
fn next_data(input: &File, position: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if position >= size {
        return Ok(None);
    }
    let start = match seek(input, Whence::Data(position)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((position, size))),
        Err(cause) => return Err(cause.into()),
    };
    let end = seek(input, Whence::Hole(start))?.min(size);
    Ok((start < end).then_some((start, end)))
}

/// Copies some of `length` bytes at `at`, at least one; returns how many.
fn copy_range(
    input: &File,
    output: &File,
    at: u64,
    length: u64,
    in_kernel: &mut bool,
) -> io::Result<u64> {
    if *in_kernel {
        let (mut from, mut to) = (at, at);
        // STRIDE fits any usize.
        match copy_file_range(
            input,
            Some(&mut from),
            output,
            Some(&mut to),
            length as usize,
        ) {
            Ok(0) => return Err(shrank()),
            Ok(copied) => return Ok(copied as u64),
            Err(Errno::INTR) => return Ok(0),
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                *in_kernel = false
            }
            Err(cause) => return Err(cause.into()),
        }
    }
    let (mut input, mut output) = (input, output);
    input.seek(SeekFrom::Start(at))?;
    output.seek(SeekFrom::Start(at))?;
    let mut buffer = vec![0; length.min(1 << 20) as usize];
    let read = input.read(&mut buffer)?;
    if read == 0 {
        return Err(shrank());
    }
    output.write_all(&buffer[..read])?;
    Ok(read as u64)
}

fn shrank() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the source became shorter while it was read",
    )
}

#[cfg(test)]
#[path = "copy/tests.rs"]
mod tests;
