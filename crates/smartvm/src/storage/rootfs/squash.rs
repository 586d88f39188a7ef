//! The image as squashfs: mksquashfs makes it of a tar archive, which it reads from a pipe.
//! Owners and device nodes need no rights then, and nothing is unpacked.

use std::io::{self, BufWriter};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::script::{Failure, newest};
use super::tarball::{self, seconds};
use super::tree::{ROOT, Tree};
use super::{Notes, entry_error};
use crate::storage::program;
use crate::storage::progress::{Progress, Watch};
use crate::{Error, ErrorKind, Result};

/// Debian package that has the program.
const PACKAGE: &str = "squashfs-tools";
/// No image takes longer than this.
const DEADLINE: Duration = Duration::from_secs(3600);

/// Makes the image `target`, which must not exist, from the tree.
pub(super) fn make(tree: &Tree, target: &Path, watch: &mut Watch<'_>) -> Result<()> {
    let program = program::find("mksquashfs", PACKAGE)?;
    watch.tell(Progress::Stage("making the file system image"));
    let newest = newest(tree);
    let root = &tree.get(ROOT).attributes;
    let mut command = Command::new(&program);
    command
        .env_clear()
        .env("LC_ALL", "C")
        // No later than the newest file is then what mksquashfs would have be of now: the
        // image, and the root itself.
        .env("SOURCE_DATE_EPOCH", seconds(newest).to_string())
        .arg("-")
        .arg(target)
        .args([
            "-tar",
            "-noappend",
            "-no-progress",
            "-quiet",
            "-exit-on-error",
        ])
        // Debian's kernels and those of Firecracker's CI read it.
        .args(["-comp", "zstd", "-Xcompression-level", "3"])
        .args(["-root-mode", &format!("{:o}", root.mode)]);
    let mut notes = Notes::default();
    if let Some(name) = root.xattrs.keys().next() {
        notes.add("an extended attribute of the root was left out", name);
    }
    // Of a tar archive mksquashfs takes no owner of the root, whatever its options say.
    let own = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if (root.uid, root.gid) != own {
        let owner = format!("{}:{}, now {}:{}", root.uid, root.gid, own.0, own.1);
        notes.add(
            "the owner of the root itself was left out",
            owner.as_bytes(),
        );
    }
    let (output, input) =
        io::pipe().map_err(|cause| Error::io("making a pipe for", &program, cause))?;
    let cancelled = watch.cancelled();
    let (ended, written) = std::thread::scope(|scope| {
        let archive = scope.spawn(|| {
            let input = BufWriter::with_capacity(256 << 10, input);
            tarball::write(tree, input, newest, &mut notes)
        });
        // The pipe's other end is gone with the program, and so the archive ends.
        let ended = program::run_fed(command, Stdio::from(output), DEADLINE, cancelled);
        let written = archive.join();
        let written = written.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (ended, written)
    });
    let ended = ended?;
    match written {
        Ok(()) if ended.status == Some(0) => {
            for note in notes.told() {
                watch.tell(Progress::Note(note));
            }
            return Ok(());
        }
        Err(Failure::Refused(path, what)) => return Err(entry_error(&path, target, &what)),
        // A program that has ended itself tells why.
        Err(Failure::Io(cause)) if cause.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Error::io("reading what goes into", target, cause));
        }
        _ => {}
    }
    let said = match ended.stderr.trim() {
        "" => &ended.stdout,
        _ => &ended.stderr,
    };
    let error = program::refused(&program, "making the squashfs image", &ended, said);
    let hint = if ["No space left", "File too large", "quota"]
        .iter()
        .any(|why| said.contains(why))
    {
        "the disk is full: free some space"
    } else if said.contains("invalid option") || said.contains("zstd") {
        "mksquashfs is too old: squashfs-tools 4.5 or newer is needed"
    } else {
        return Err(error);
    };
    Err(Error::new(ErrorKind::Host, error.to_string()).hint(hint))
}
