//! The image itself: mke2fs makes it empty, debugfs fills it, e2fsck looks it over.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::layout::Layout;
use super::script::{self, Failure};
use super::tree::{Time, Tree};
use super::{BLOCK, entry_error};
use crate::storage::program::{self, Ended};
use crate::storage::progress::{Progress, Watch};
use crate::{Error, ErrorKind, Result};

/// Debian package that has the programs.
const PACKAGE: &str = "e2fsprogs";

/// No image takes longer than this to fill.
const DEADLINE: Duration = Duration::from_secs(3600);

/// The features of the image, whatever the host's own /etc/mke2fs.conf says: those that every
/// kernel since 4.x knows. The types by size are named since mke2fs looks for them.
const CONFIGURATION: &str = "\
[defaults]
\tbase_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
\tdefault_mntopts = acl,user_xattr
\tenable_periodic_fsck = 0
\tblocksize = 4096
\tinode_size = 256
[fs_types]
\text4 = {
\t\tfeatures = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
\t}
\tfloppy = {
\t\tblocksize = 4096
\t}
\tsmall = {
\t\tblocksize = 4096
\t}
\tdefault = {
\t\tblocksize = 4096
\t}
\tbig = {
\t\tblocksize = 4096
\t}
\thuge = {
\t\tblocksize = 4096
\t}
";

/// Makes the image `target`, which must not exist, from the tree; `work` is a private
/// directory for what is needed meanwhile. Returns the image's UUID.
pub(super) fn make(
    tree: &Tree,
    layout: Layout,
    target: &Path,
    work: &Path,
    watch: &mut Watch<'_>,
) -> Result<String> {
    watch.tell(Progress::Stage("making the file system image"));
    let newest = script::newest(tree);
    let script = work.join("script");
    let fingerprint = write_script(tree, newest, &script, work)?;
    let configuration = work.join("mke2fs.conf");
    fs::write(&configuration, CONFIGURATION)
        .map_err(|cause| Error::io("writing", &configuration, cause))?;
    let tools = Tools {
        configuration: &configuration,
        work,
        newest,
    };
    File::create_new(target)
        .and_then(|file| file.set_len(layout.size))
        .map_err(|cause| Error::io("creating", target, cause))?;

    let uuid = uuid(&fingerprint[..16]);
    let mut mke2fs = tools.command("mke2fs")?;
    mke2fs
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-b"])
        .arg(BLOCK.to_string())
        .args(["-N", &layout.inodes.to_string()])
        .args(["-J", &format!("size={}", layout.journal_mib)])
        .args(["-U", &uuid])
        .arg("-E")
        // The file is new, so it is all zero: nothing needs to be written to make it so.
        .arg(format!(
            "hash_seed={},root_owner=0:0,nodiscard,lazy_itable_init=0,lazy_journal_init=0,\
             assume_storage_prezeroed=1",
            self::uuid(&fingerprint[16..])
        ))
        .arg(target);
    tools.run(mke2fs, "making an empty file system", watch)?;

    let mut debugfs = tools.command("debugfs")?;
    debugfs.arg("-w").arg("-f").arg(&script).arg(target);
    tools.run(debugfs, "filling the file system", watch)?;

    let mut e2fsck = tools.command("e2fsck")?;
    e2fsck.arg("-fn").arg(target);
    tools.run(e2fsck, "checking the file system", watch)?;
    Ok(uuid)
}

fn write_script(tree: &Tree, newest: Time, script: &Path, work: &Path) -> Result<[u8; 32]> {
    let failed = |cause| Error::io("writing", script, cause);
    let output = BufWriter::new(File::create_new(script).map_err(failed)?);
    let mut values = std::collections::HashMap::new();
    let mut store = |value: &[u8]| {
        let next = values.len();
        let name = values
            .entry(value.to_vec())
            .or_insert_with(|| format!("xattr-{next}"));
        let path = work.join(&*name);
        if !path.exists() {
            fs::write(path, value)?;
        }
        Ok(name.clone())
    };
    script::write(tree, output, newest, &mut store).map_err(|failure| match failure {
        Failure::Io(cause) => failed(cause),
        Failure::Refused(path, what) => entry_error(&path, Path::new("/"), &what),
    })
}

struct Tools<'a> {
    configuration: &'a Path,
    work: &'a Path,
    newest: Time,
}

impl Tools<'_> {
    /// A program that takes its time and its settings from us alone, and runs in the private
    /// directory, where the attributes' values are.
    fn command(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(program::find(name, PACKAGE)?);
        command
            .current_dir(self.work)
            .env_clear()
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("MKE2FS_CONFIG", self.configuration)
            .env("E2FSPROGS_FAKE_TIME", self.newest.seconds.to_string())
            .env("SOURCE_DATE_EPOCH", self.newest.seconds.to_string());
        Ok(command)
    }

    /// Runs it; anything it says on standard error, besides its own name, is a failure:
    /// debugfs goes on after errors and ends with status 0.
    fn run(&self, command: Command, doing: &str, watch: &mut Watch<'_>) -> Result<()> {
        let program = command.get_program().to_owned();
        let program = Path::new(&program);
        let ended = program::run(command, DEADLINE, watch.cancelled())?;
        let complaints = complaints(&ended, program);
        if ended.status == Some(0) && complaints.is_empty() {
            return Ok(());
        }
        // e2fsck tells its findings on standard output.
        let said = if complaints.is_empty() {
            &ended.stdout
        } else {
            &complaints
        };
        let mut error = program::refused(program, doing, &ended, said);
        if said.contains("No space left") {
            error = Error::new(ErrorKind::Host, error.to_string())
                .hint("the disk is full: free some space");
        } else if said.contains("allocate block") {
            error = Error::new(ErrorKind::Invalid, error.to_string())
                .hint("the image is full: ask for a larger size");
        } else if said.contains("assume_storage_prezeroed") {
            error = Error::new(ErrorKind::Host, error.to_string())
                .hint("mke2fs is too old: e2fsprogs 1.47.0 or newer is needed");
        }
        Err(error)
    }
}

fn complaints(ended: &Ended, program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let banner = format!("{name} 1.");
    ended
        .stderr
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with(&banner))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// A UUID out of 16 bytes: version 8, which is for makers' own schemes.
fn uuid(bytes: &[u8]) -> String {
    let mut fixed = [0; 16];
    fixed.copy_from_slice(bytes);
    uuid::Builder::from_custom_bytes(fixed)
        .into_uuid()
        .to_string()
}
