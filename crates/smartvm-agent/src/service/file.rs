//! Files to and from the guest.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::connection::Connection;
use super::session::{Failure, done};
use crate::protocol::{
    Accepted, ErrorCode, Kind, MAX_PAYLOAD, ProtocolError, ReadFile, Refusal, WriteFile,
};

/// The permission bits of a new file, where the request names none.
const DEFAULT_MODE: u32 = 0o644;

/// Sends a regular file.
pub(crate) fn read(connection: &mut Connection, request: &ReadFile) -> Result<(), Failure> {
    let refused = |error: &io::Error| refusal("reading", &request.path, error);
    absolute(&request.path)?;
    // Without O_NONBLOCK a fifo would hold the session until somebody wrote to it.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(&request.path)
        .map_err(|error| refused(&error))?;
    let metadata = file.metadata().map_err(|error| refused(&error))?;
    if !metadata.is_file() {
        return Err(not_a_file(&request.path).into());
    }
    Accepted {
        size: Some(metadata.len()),
        mode: Some(metadata.permissions().mode() & 0o7777),
        ..Accepted::default()
    }
    .encode(connection.buffer())?;
    let mut chunk = vec![0; MAX_PAYLOAD];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => connection.queue(Kind::Data, &chunk[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(refused(&error).into()),
        }
        connection.make_room()?;
    }
    connection.queue(Kind::DataEnd, &[])?;
    Ok(connection.flush(None)?)
}

/// Takes a file: the old contents stay until all of the new ones are there.
pub(crate) fn write(connection: &mut Connection, request: &WriteFile) -> Result<(), Failure> {
    let refused = |error: &io::Error| refusal("writing", &request.path, error);
    absolute(&request.path)?;
    if let Some(mode) = request.mode
        && mode > 0o7777
    {
        return Err(Refusal::new(
            ErrorCode::BadRequest,
            format!("{mode:#o} can't be a file's mode"),
        )
        .into());
    }
    let mut target = Target::open(&request.path, request.mode)?;
    Accepted::default().encode(connection.buffer())?;
    connection.flush(None)?;
    loop {
        let frame = connection.receive(None)?;
        match frame.kind {
            Kind::Data => target
                .file
                .write_all(&frame.payload)
                .map_err(|error| refused(&error))?,
            Kind::DataEnd => break,
            kind => return Err(ProtocolError::Unexpected(kind).into()),
        }
    }
    target.commit().map_err(|error| refused(&error))?;
    done(connection)
}

/// Where a file's new contents go until they are complete.
struct Target {
    file: File,
    /// The temporary name and the final one; None when written in place.
    rename: Option<(PathBuf, PathBuf)>,
}

impl Target {
    fn open(path: &Path, mode: Option<u32>) -> Result<Self, Refusal> {
        let refused = |error: &io::Error| refusal("writing", path, error);
        // What a symbolic link points to is replaced, not the link.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let old = std::fs::metadata(&path).ok();
        if old.as_ref().is_some_and(|old| !old.is_file()) {
            return Err(not_a_file(&path));
        }
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(not_a_file(&path));
        };
        if !directory.is_dir() {
            return Err(Refusal::new(
                ErrorCode::NoSuchDirectory,
                format!("writing {}: its directory doesn't exist", path.display()),
            ));
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(
            ".smartvm-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        let temporary = directory.join(temporary);
        let mut options = OpenOptions::new();
        options
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        match options
            .clone()
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
        {
            Ok(file) => {
                let target = Self {
                    file,
                    rename: Some((temporary, path.clone())),
                };
                target
                    .take_over(old.as_ref(), mode)
                    .map_err(|error| refused(&error))?;
                Ok(target)
            }
            // Files of /proc and /sys, mounted files in a read-only directory: in place.
            Err(_) if old.is_some() => {
                let file = options
                    .truncate(true)
                    .open(&path)
                    .map_err(|error| refused(&error))?;
                if let Some(mode) = mode {
                    file.set_permissions(std::fs::Permissions::from_mode(mode))
                        .map_err(|error| refused(&error))?;
                }
                Ok(Self { file, rename: None })
            }
            Err(error) => Err(refused(&error)),
        }
    }

    /// Gives the new file the old one's owner and mode, and the requested mode.
    fn take_over(&self, old: Option<&Metadata>, mode: Option<u32>) -> io::Result<()> {
        if let Some(old) = old {
            std::os::unix::fs::fchown(&self.file, Some(old.uid()), Some(old.gid()))?;
        }
        let kept = old.map(|old| old.permissions().mode() & 0o7777);
        let mode = mode.or(kept).unwrap_or(DEFAULT_MODE);
        self.file
            .set_permissions(std::fs::Permissions::from_mode(mode))
    }

    fn commit(mut self) -> io::Result<()> {
        self.file.flush()?;
        if let Some((temporary, path)) = &self.rename {
            std::fs::rename(temporary, path)?;
            self.rename = None;
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.rename {
            // Half a file is of no use to anybody; if it can't go it at least has its own name.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

fn absolute(path: &Path) -> Result<(), Refusal> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::BadRequest,
        format!("{}: not an absolute path", path.display()),
    ))
}

fn not_a_file(path: &Path) -> Refusal {
    Refusal::new(
        ErrorCode::NotAFile,
        format!("{}: not a regular file", path.display()),
    )
}

fn refusal(doing: &str, path: &Path, error: &io::Error) -> Refusal {
    let code = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorCode::FileNotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorCode::PermissionDenied
        }
        io::ErrorKind::IsADirectory => ErrorCode::NotAFile,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::NoSpace,
        // A socket can't be opened.
        _ if error.raw_os_error() == Some(libc::ENXIO) => ErrorCode::NotAFile,
        _ => ErrorCode::Failed,
    };
    Refusal::new(code, format!("{doing} {}: {error}", path.display()))
}
