//! One VM's directory: its state on disk, its lock, and the record that it leaves.

mod ended;
mod known;
mod lock;
mod operation;
mod state;
pub(crate) mod timeline;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

pub use ended::{Ended, Records};
pub(crate) use known::Known;
pub use lock::Lock;
pub(crate) use lock::Unlocked;
#[cfg(feature = "network")]
pub(crate) use lock::open_shared;
pub use operation::Operation;
pub use state::{Restored, State, VmState};
pub use timeline::Moment;

use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::name::VmId;

/// Names inside a run dir.
pub mod file {
    /// The API socket.
    pub const API_SOCKET: &str = "firecracker.sock";
    /// The vsock device's socket, where the spec names none.
    pub const VSOCK: &str = "vsock.sock";
    /// What the guest prints: the newer part.
    pub const CONSOLE: &str = "console.log";
    /// What is typed to the guest.
    pub const CONSOLE_IN: &str = "console.in";
    /// What Firecracker itself prints and logs: the newer part.
    pub const VMM_LOG: &str = "vmm.log";
    /// The pipe that Firecracker logs into.
    pub const VMM_LOG_IN: &str = "vmm.log.in";
    /// The directory of drives.
    pub const DRIVES: &str = "drives";
    /// The kernel.
    pub const KERNEL: &str = "kernel";
    /// The memory of a snapshot that the VM is restored from.
    pub const MEMORY: &str = "memory";
    /// The state file of that snapshot.
    pub const SNAPSHOT: &str = "snapshot";
    /// The initramfs.
    pub const INITRD: &str = "initrd";
    /// The list of steps.
    pub const LEDGER: &str = "ledger.jsonl";
    /// The VM's state.
    pub const STATE: &str = "vm.json";
    /// When the VM came into which state.
    pub const TIMELINE: &str = "timeline.jsonl";
    /// Who asked the VM to end, and how.
    pub const STOP_REQUEST: &str = "stop.json";
    /// What operations on the VM lock.
    pub const LOCK: &str = "lock";
}

/// The type of a file system that is held in memory (`statfs(2)`).
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// The directory that holds all run dirs of one user of the library.
#[derive(Debug, Clone)]
pub struct RuntimeDir {
    path: PathBuf,
}

impl RuntimeDir {
    /// Opens it, and makes it where it is missing: mode 0700, ours, no symbolic link.
    pub fn open(path: &Path) -> Result<Self> {
        durable::private_dir(path)?;
        let path = path
            .canonicalize()
            .map_err(|e| Error::io("finding the runtime directory", path, e))?;
        Ok(Self { path })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the run dir of a VM is, or will be.
    pub fn run_dir(&self, id: &VmId) -> PathBuf {
        self.path.join(id.as_str())
    }

    /// What ended VMs left.
    pub fn records(&self) -> Records {
        Records::of(&self.path)
    }

    /// Makes the run dir of a new VM, locked. It appears whole, with its lock held.
    pub fn create(&self, id: &VmId) -> Result<(RunDir, Lock)> {
        self.require_free(id)?;
        let path = self.run_dir(id);
        let temporary = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&self.path)
            .map_err(|e| Error::io("making a run dir in", &self.path, e))?;
        let lock = Lock::acquire_new(&temporary.path().join(file::LOCK))?;
        let (from, to) = (temporary.path(), path.as_path());
        match rustix::fs::renameat_with(
            rustix::fs::CWD,
            from,
            rustix::fs::CWD,
            to,
            rustix::fs::RenameFlags::NOREPLACE,
        ) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Err(self.taken(id)),
            Err(e) => return Err(Error::io("making run dir", &path, e)),
        }
        // It has its final name now: nothing is left to clean up under the temporary one.
        let _renamed = temporary.keep();
        Ok((RunDir::open(path, id.clone())?, lock))
    }

    /// Refuses an id that a VM has.
    pub(crate) fn require_free(&self, id: &VmId) -> Result<()> {
        match self.run_dir(id).symlink_metadata() {
            Ok(_) => Err(self.taken(id)),
            Err(_) => Ok(()),
        }
    }

    fn taken(&self, id: &VmId) -> Error {
        Error::new(ErrorKind::WrongState, format!("there is a VM {id} already"))
            .at(self.run_dir(id))
            .hint(format!(
                "use another id, or end that one: smartvm rm --force {id}"
            ))
    }

    /// The run dir of a VM.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    pub fn get(&self, id: &VmId) -> Result<RunDir> {
        let path = self.run_dir(id);
        if path.symlink_metadata().is_err() {
            return Err(no_such_vm(id.as_str()));
        }
        RunDir::open(path, id.clone())
    }

    /// The ids that have a run dir.
    pub fn ids(&self) -> Result<Vec<VmId>> {
        let entries =
            std::fs::read_dir(&self.path).map_err(|e| Error::io("reading", &self.path, e))?;
        let mut ids: Vec<VmId> = entries
            .flatten()
            .filter_map(|entry| VmId::from_str(entry.file_name().to_str()?).ok())
            .collect();
        ids.sort();
        // A directory that others change while it is read may name an entry several times.
        ids.dedup();
        Ok(ids)
    }

    /// The id that begins with `prefix`, among live VMs and records of ended ones.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none, [`ErrorKind::Invalid`] if there are several.
    pub fn resolve(&self, prefix: &str) -> Result<VmId> {
        let mut ids = self.ids()?;
        ids.extend(self.records().ids()?);
        ids.sort();
        ids.dedup();
        if let Some(exact) = ids.iter().find(|id| id.as_str() == prefix) {
            return Ok(exact.clone());
        }
        let mut matching = ids.into_iter().filter(|id| id.as_str().starts_with(prefix));
        match (matching.next(), matching.next()) {
            (Some(only), None) if !prefix.is_empty() => Ok(only),
            (Some(one), Some(two)) => Err(Error::new(
                ErrorKind::Invalid,
                format!("{prefix:?} may mean {one} or {two}, or more"),
            )
            .hint("write more of the id")),
            _ => Err(no_such_vm(prefix)),
        }
    }

    /// Run dirs that were being made or removed when their process died.
    pub fn leftovers(&self) -> Result<Vec<PathBuf>> {
        let entries =
            std::fs::read_dir(&self.path).map_err(|e| Error::io("reading", &self.path, e))?;
        Ok(entries
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".new-"))
            .map(|entry| entry.path())
            .collect())
    }
}

fn no_such_vm(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no VM {id}"))
        .hint("`smartvm ps --all` lists them")
}

/// One VM's directory.
#[derive(Debug, Clone)]
pub struct RunDir {
    id: VmId,
    path: Arc<Path>,
    in_memory: bool,
}

impl RunDir {
    fn open(path: PathBuf, id: VmId) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|e| Error::io("opening run dir", &path, e))?;
        let owner = rustix::fs::fstat(&handle)
            .map_err(|e| Error::io("looking at run dir", &path, e))?
            .st_uid;
        let file_system = rustix::fs::fstatfs(&handle)
            .map_err(|e| Error::io("looking at run dir", &path, e))?
            .f_type;
        let me = rustix::process::geteuid().as_raw();
        if owner != me {
            return Err(Error::new(
                ErrorKind::Host,
                format!(
                    "the run dir {} belongs to user {owner}, not to user {me}",
                    path.display()
                ),
            )
            .at(path)
            .hint("act as that user, or use another runtime directory"));
        }
        Ok(Self {
            id,
            path: path.into(),
            in_memory: file_system == TMPFS,
        })
    }

    /// The run dir at `path`, whose last component is the VM's id.
    pub fn at(path: &Path) -> Result<Self> {
        let id = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .parse()?;
        Self::open(path.to_owned(), id)
    }

    /// The VM's id.
    pub fn id(&self) -> &VmId {
        &self.id
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that other VMs' are in as well.
    fn beside(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Where the records of its VM, and of others beside it, are.
    pub(crate) fn records(&self) -> Records {
        Records::of(self.beside())
    }

    /// The runtime directory that it is in.
    pub fn runtime_dir(&self) -> Result<RuntimeDir> {
        RuntimeDir::open(self.beside())
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The lock that operations on this VM take, taken to do something, as in "pausing": others
    /// who wait for it in vain are told.
    pub fn lock(&self, doing: &str, patience: std::time::Duration) -> Result<Lock> {
        Lock::acquire(&self.file(file::LOCK), self.id.as_str(), doing, patience)
    }

    /// The same if nobody holds it; doesn't wait.
    pub(crate) fn lock_free(&self, doing: &str) -> Result<Option<Lock>> {
        Lock::acquire_free(&self.file(file::LOCK), self.id.as_str(), doing)
    }

    /// Whether its files are held in memory, so that no work on them waits for a disk.
    pub(crate) fn in_memory(&self) -> bool {
        self.in_memory
    }

    /// The VM's state.
    pub fn state(&self) -> Result<VmState> {
        known::look(self)?.ok_or_else(|| self.stateless())
    }

    /// The same where its last moment was looked up.
    pub(crate) fn state_since(&self, last: Option<&Moment>) -> Result<VmState> {
        known::look_since(self, last)?.ok_or_else(|| self.stateless())
    }

    fn stateless(&self) -> Error {
        let message = format!("VM {} has no state file", self.id);
        Error::new(ErrorKind::Corrupt, message)
            .at(self.file(file::STATE))
            .hint("its making was interrupted: `smartvm gc` removes it")
    }

    /// Writes the VM's state. The caller holds its lock.
    pub fn write_state(&self, state: &VmState) -> Result<()> {
        known::write(self, state)
    }

    /// When the VM came into which state: the last moments of its life so far.
    pub fn timeline(&self) -> Result<Vec<Moment>> {
        timeline::read(&self.file(file::TIMELINE))
    }

    /// Removes the directory itself, with all of our own files in it. Drives, links and
    /// sockets are steps of the ledger's, and gone by now.
    pub fn remove(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.path)
            .map_err(|e| Error::io("removing run dir", &self.path, e))
    }
}
