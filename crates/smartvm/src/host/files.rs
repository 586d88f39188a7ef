//! Files, directories and sockets that a spec names.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind as Io};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::ErrorKind;
use crate::spec::Problem;

/// An input: a regular file (or block device, where allowed) that can be read, and written
/// where asked.
pub(super) fn input(field: &str, path: &Path, block: bool, write: bool) -> Result<(), Problem> {
    let found = fs::metadata(path).map_err(|error| unreachable_file(field, path, &error))?;
    let kind = found.file_type();
    let fits = kind.is_file() || (block && kind.is_block_device());
    if !fits {
        let what = match block {
            true => "a regular file or a block device",
            false => "a regular file",
        };
        let found = if kind.is_dir() {
            "is a directory"
        } else {
            "is a special file"
        };
        return Err(Problem::new(field, told(path, found), what));
    }
    if kind.is_file() && found.len() == 0 {
        return Err(Problem::new(
            field,
            told(path, "is empty"),
            "a file with content",
        ));
    }
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map(drop)
        .map_err(|error| match error.kind() {
            Io::PermissionDenied | Io::ReadOnlyFilesystem if write => Problem::new(
                field,
                told(path, &format!("can't be written: {error}")),
                "a writable file, `isReadOnly`, or `ephemeral` for a copy",
            )
            .kind(ErrorKind::Host),
            _ => unreachable_file(field, path, &error),
        })
}

/// An output: a file that can be written, or made.
pub(super) fn output(field: &str, path: &Path) -> Result<(), Problem> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(Problem::new(
            field,
            told(path, "is a directory"),
            "the path of a file or FIFO",
        )),
        Ok(_) => writable(path, false).map_err(|error| {
            let problem = told(path, &format!("can't be written: {error}"));
            Problem::new(field, problem, "a writable file").kind(ErrorKind::Host)
        }),
        Err(error) if error.kind() == Io::NotFound => directory(field, parent(path)),
        Err(error) => Err(unreachable_file(field, path, &error)),
    }
}

/// A directory in which files can be made.
pub(super) fn directory(field: &str, dir: &Path) -> Result<(), Problem> {
    match fs::metadata(dir) {
        Err(error) => Err(unreachable_file(field, dir, &error)),
        Ok(found) if !found.is_dir() => Err(Problem::new(
            field,
            told(dir, "isn't a directory"),
            "a directory",
        )),
        Ok(_) => writable(dir, true).map_err(|error| {
            let problem = told(dir, &format!("takes no new files: {error}"));
            Problem::new(field, problem, "a writable directory").kind(ErrorKind::Host)
        }),
    }
}

/// A path at which a socket can be made: nothing is there, and its directory is writable.
pub(super) fn new_socket(field: &str, path: &Path) -> Result<(), Problem> {
    let state = |what: &str, advice: &str| {
        Err(Problem::new(field, told(path, what), advice).kind(ErrorKind::WrongState))
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == Io::NotFound => directory(field, parent(path)),
        Err(error) => Err(unreachable_file(field, path, &error)),
        Ok(found) if !found.file_type().is_socket() => {
            state("exists and isn't a socket", "a path where nothing is")
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == Io::ConnectionRefused => state(
                "is a socket that nobody listens on",
                "another path, or remove what was left behind",
            ),
            _ => state("is a socket in use", "a path of its own for each microVM"),
        },
    }
}

/// A socket that someone serves.
pub(super) fn served_socket(field: &str, path: &Path) -> Result<(), Problem> {
    let found = fs::metadata(path).map_err(|error| unreachable_file(field, path, &error))?;
    if found.file_type().is_socket() {
        return Ok(());
    }
    let advice = "the socket of a vhost-user block device";
    Err(Problem::new(field, told(path, "isn't a socket"), advice))
}

/// A block device of this host's.
pub(super) fn block_device(field: &str, path: &Path) -> Result<(), Problem> {
    let found = fs::metadata(path).map_err(|error| unreachable_file(field, path, &error))?;
    if found.file_type().is_block_device() {
        return Ok(());
    }
    let problem = told(path, "isn't a block device");
    Err(Problem::new(
        field,
        problem,
        "a whole disk such as /dev/nvme0n1",
    ))
}

/// Whether this process may write to the file, or make files in the directory.
fn writable(path: &Path, is_dir: bool) -> io::Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let wanted = match is_dir {
        true => Access::WRITE_OK | Access::EXEC_OK,
        false => Access::WRITE_OK,
    };
    Ok(accessat(CWD, path, wanted, AtFlags::EACCESS)?)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn unreachable_file(field: &str, path: &Path, error: &io::Error) -> Problem {
    match error.kind() {
        Io::NotFound => Problem::new(field, format!("{} doesn't exist", path.display()), "")
            .kind(ErrorKind::NotFound),
        _ => Problem::new(field, told(path, &format!("can't be read: {error}")), "")
            .kind(ErrorKind::Host),
    }
}

fn told(path: &Path, what: &str) -> String {
    format!("{} {what}", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn kind(result: Result<(), Problem>) -> Option<ErrorKind> {
        result.err().map(|problem| problem.kind)
    }

    #[test]
    fn an_input_is_a_file_with_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image");
        let judge = || kind(input("f", &file, false, false));
        assert_eq!(judge(), Some(ErrorKind::NotFound));
        fs::write(&file, "").unwrap();
        assert_eq!(judge(), Some(ErrorKind::Invalid));
        fs::write(&file, "x").unwrap();
        assert_eq!(judge(), None);
        assert_eq!(
            kind(input("f", dir.path(), true, false)),
            Some(ErrorKind::Invalid)
        );
        let null = input("f", Path::new("/dev/null"), true, false);
        assert_eq!(kind(null), Some(ErrorKind::Invalid));
    }

    #[test]
    fn an_output_needs_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(kind(output("f", &dir.path().join("log"))), None);
        assert_eq!(
            kind(output("f", &dir.path().join("no/log"))),
            Some(ErrorKind::NotFound)
        );
        assert_eq!(kind(output("f", dir.path())), Some(ErrorKind::Invalid));
    }

    #[test]
    fn a_new_socket_must_not_be_there_yet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.sock");
        assert!(new_socket("f", &path).is_ok());
        let listener = UnixListener::bind(&path).unwrap();
        assert!(served_socket("f", &path).is_ok());
        let used = new_socket("f", &path).unwrap_err();
        assert!(used.problem.contains("in use"), "{used}");
        drop(listener);
        let stale = new_socket("f", &path).unwrap_err();
        assert!(stale.problem.contains("nobody listens"), "{stale}");
        assert_eq!(stale.kind, ErrorKind::WrongState);
    }
}
