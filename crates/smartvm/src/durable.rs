//! Files that other processes rely on: written whole, read bounded, each with a format
//! version.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// What a state file may hold at most.
const MAX_STATE_BYTES: u64 = 4 << 20;

/// Writes `value` as JSON under `path`, with its format version: a reader sees the old
/// content or the new, never a part.
pub fn write_state<T: Serialize>(path: &Path, format: u32, value: &T) -> Result<()> {
    write_passing_state(path, format, value)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// The same for what matters as long as the host isn't started anew: after that there may be the
/// old content, or none; never a part.
pub fn write_passing_state<T: Serialize>(path: &Path, format: u32, value: &T) -> Result<()> {
    Staged::state(path, format, value)?.publish()
}

/// The same for what matters less still: after a restart of the host there may be anything under
/// `path`. Whoever reads it takes no notice of what is [`of_another_boot`].
pub(crate) fn write_until_restart<T: Serialize>(path: &Path, format: u32, value: &T) -> Result<()> {
    Staged::unsynced(path, &versioned(path, format, value)?)?.publish()
}

/// Whether a file or directory was last changed before this host was started: by nobody who runs
/// still.
pub(crate) fn of_another_boot(path: &Path) -> bool {
    let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let since_boot = Duration::new(
        u64::try_from(since_boot.tv_sec).unwrap_or_default(),
        u32::try_from(since_boot.tv_nsec).unwrap_or_default(),
    );
    let booted = SystemTime::now().checked_sub(since_boot);
    let changed = path.symlink_metadata().and_then(|found| found.modified());
    changed.is_ok_and(|changed| booted.is_some_and(|booted| changed < booted))
}

/// Writes `bytes` under `path` through a temporary file: fsync, then rename. Mode 0600.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    Staged::new(path, bytes)?.publish()?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// A file's new content, which nobody sees yet. Dropping it leaves the old.
#[derive(Debug)]
pub(crate) struct Staged {
    temporary: tempfile::NamedTempFile,
    path: PathBuf,
}

impl Staged {
    /// What [`write_passing_state`] writes.
    pub(crate) fn state<T: Serialize>(path: &Path, format: u32, value: &T) -> Result<Self> {
        Self::new(path, &versioned(path, format, value)?)
    }

    fn new(path: &Path, bytes: &[u8]) -> Result<Self> {
        let staged = Self::unsynced(path, bytes)?;
        let synced = staged.temporary.as_file().sync_all();
        synced.map_err(|e| Error::io("writing", path, e))?;
        Ok(staged)
    }

    fn unsynced(path: &Path, bytes: &[u8]) -> Result<Self> {
        let Some(dir) = path.parent() else {
            return Err(Error::new(ErrorKind::Invalid, "writing to an empty path"));
        };
        let mut temporary =
            tempfile::NamedTempFile::new_in(dir).map_err(|e| Error::io("writing", path, e))?;
        temporary
            .write_all(bytes)
            .map_err(|e| Error::io("writing", path, e))?;
        Ok(Self {
            temporary,
            path: path.to_owned(),
        })
    }

    /// Puts it in the place of the old.
    pub(crate) fn publish(self) -> Result<()> {
        self.publish_open().map(drop)
    }

    /// The same; returns the file.
    pub(crate) fn publish_open(self) -> Result<File> {
        let Self { temporary, path } = self;
        temporary
            .persist(&path)
            .map_err(|e| Error::io("replacing", &path, e.error))
    }
}

/// A state file's content.
fn versioned<T: Serialize>(path: &Path, format: u32, value: &T) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Versioned<'a, T> {
        format: u32,
        #[serde(flatten)]
        value: &'a T,
    }
    serde_json::to_vec(&Versioned { format, value })
        .map_err(|e| Error::new(ErrorKind::Io, format!("encoding {}", path.display())).because(e))
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| Error::io("syncing", dir, e))
}

/// Reads what [`write_state`] wrote. `None` if there is no such file; a newer format than
/// `format`, or a damaged file, is [`ErrorKind::Corrupt`]. To `T` the format is an unknown field,
/// which it must let pass.
pub fn read_state<T: DeserializeOwned>(path: &Path, format: u32) -> Result<Option<T>> {
    Ok(open_state(path, format)?.map(|(_file, says)| says))
}

/// The same; returns the file, too, which is this one for as long as it has a name.
pub(crate) fn open_state<T: DeserializeOwned>(
    path: &Path,
    format: u32,
) -> Result<Option<(File, T)>> {
    let Some(file) = open(path)? else {
        return Ok(None);
    };
    let says = parse_state(path, format, &read_open(&file, path, MAX_STATE_BYTES)?)?;
    Ok(Some((file, says)))
}

fn parse_state<T: DeserializeOwned>(path: &Path, format: u32, bytes: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Header {
        format: u32,
    }
    let damaged = |e: serde_json::Error| {
        Error::new(ErrorKind::Corrupt, format!("{} is damaged", path.display()))
            .at(path)
            .because(e)
    };
    let header: Header = serde_json::from_slice(bytes).map_err(damaged)?;
    if header.format > format {
        return Err(newer_format(path, header.format, format));
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// The refusal of a file that a newer version wrote.
pub(crate) fn newer_format(path: &Path, found: u32, known: u32) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "{} has format {found}, this version knows formats up to {known}",
            path.display()
        ),
    )
    .at(path)
    .hint("a newer smartvm wrote it: use that version for this VM")
}

/// A file's content; `None` if there is no such file; too long a file is refused.
pub fn read_bounded(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    match open(path)? {
        Some(file) => read_open(&file, path, most).map(Some),
        None => Ok(None),
    }
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("reading", path, e)),
    }
}

fn read_open(file: &File, path: &Path, most: u64) -> Result<Vec<u8>> {
    // Room for all of it and one more, or its end takes reads of its own to find.
    let length = file.metadata().map_or(0, |found| found.len().min(most)) as usize;
    let mut file = file.take(most + 1);
    let mut bytes = vec![0; length + 1];
    let first = file.read(&mut bytes).or_else(|e| match e.kind() {
        std::io::ErrorKind::Interrupted => Ok(0),
        _ => Err(Error::io("reading", path, e)),
    })?;
    bytes.truncate(first);
    // As long as it was said to be, with room for more: that was its end. Files of the kernel's say
    // nothing of their length.
    if length == 0 || first != length {
        file.read_to_end(&mut bytes)
            .map_err(|e| Error::io("reading", path, e))?;
    }
    if bytes.len() as u64 > most {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("{} is longer than {most} bytes", path.display()),
        )
        .at(path));
    }
    Ok(bytes)
}

/// Makes a directory for this user alone, with its parents; an existing one must belong to
/// this user, and is closed to others. A symbolic link is refused.
pub fn private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let open = || {
        std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32 | O_DIRECTORY)
            .open(path)
    };
    // Nearly always it is there.
    let dir = match open() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|e| Error::io("making", path, e))?;
            open()
        }
        other => other,
    };
    let dir = dir.map_err(|e| {
        Error::io("opening", path, e)
            .hint("a data or runtime directory must be a directory, not a symbolic link")
    })?;
    let found = dir
        .metadata()
        .map_err(|e| Error::io("looking at", path, e))?;
    let me = rustix::process::geteuid().as_raw();
    if found.uid() != me {
        return Err(Error::new(
            ErrorKind::Host,
            format!(
                "{} belongs to user {}, not to user {me}",
                path.display(),
                found.uid()
            ),
        )
        .at(path)
        .hint(
            "use another directory (--data-dir, --runtime-dir), or give this one back to its user",
        ));
    }
    if found.mode() & 0o077 != 0 {
        dir.set_permissions(std::fs::Permissions::from_mode(0o700))
            .map_err(|e| Error::io("closing to others", path, e))?;
    }
    Ok(())
}

const O_DIRECTORY: i32 = rustix::fs::OFlags::DIRECTORY.bits() as i32;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct State {
        name: String,
    }

    fn state() -> State {
        State { name: "a".into() }
    }

    #[test]
    fn what_is_written_is_read_back_with_mode_0600() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        write_state(&path, 1, &state()).unwrap();
        assert_eq!(read_state::<State>(&path, 1).unwrap(), Some(state()));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary is left"
        );
    }

    #[test]
    fn a_newer_format_and_a_damaged_file_are_refused_and_a_missing_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        assert_eq!(read_state::<State>(&path, 1).unwrap(), None);
        write_state(&path, 2, &state()).unwrap();
        let newer = read_state::<State>(&path, 1).unwrap_err();
        assert_eq!(newer.kind(), ErrorKind::Corrupt);
        assert!(newer.to_string().contains("format 2"), "{newer}");
        std::fs::write(&path, b"{\"format\":1,\"na").unwrap();
        assert_eq!(
            read_state::<State>(&path, 1).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }

    #[test]
    fn a_link_in_place_of_a_private_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        private_dir(&real).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(private_dir(&link).is_err());
    }

    #[test]
    fn an_open_directory_of_ours_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        private_dir(&open).unwrap();
        assert_eq!(open.metadata().unwrap().mode() & 0o777, 0o700);
    }
}
