//! What happens to VMs, as it happens, told to any process: each state that a VM comes into,
//! and its end with the reason.
//!
//! Nothing is polled: the kernel tells (inotify) when a VM's timeline or a record is written.
//! Events are told in the order in which they happened to a VM. None is lost while somebody
//! listens, unless a record is dropped before it was read.

use std::collections::{HashMap, VecDeque};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use serde::Serialize;
use tokio::io::unix::AsyncFd;

use crate::descriptor;
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::exit;
use crate::name::VmId;
use crate::rundir::{Ended, Moment, RuntimeDir, State, file};

/// Something that happened to a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Event {
    /// The VM.
    pub id: VmId,
    /// The state that it came into.
    pub state: State,
    /// When (RFC 3339).
    pub at: String,
    /// Why it ended, and how Firecracker did: for the last event of a VM.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// How a VM ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct End {
    /// Why.
    pub reason: exit::Reason,
    /// How Firecracker ended; absent if it never ran.
    pub vmm: Option<exit::Ended>,
}

/// The events of all VMs of one runtime directory, from the moment it was made.
///
/// ```no_run
/// # async fn example(smartvm: smartvm::SmartVm) -> smartvm::Result<()> {
/// let mut events = smartvm.events()?;
/// loop {
///     let event = events.next().await?;
///     if let Some(end) = event.end {
///         println!("{} ended at {}: {}", event.id, event.at, end.reason);
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Events {
    runtime: RuntimeDir,
    inotify: AsyncFd<OwnedFd>,
    watched: HashMap<i32, Watched>,
    /// How many moments of each live VM were told, or were over before.
    told: HashMap<VmId, u64>,
    ready: VecDeque<Event>,
}

#[derive(Debug, Clone)]
enum Watched {
    RunDirs,
    Records,
    Vm(VmId),
}

/// What the kernel told.
struct Notice {
    watch: i32,
    flags: ReadFlags,
    name: String,
}

impl Events {
    /// Listens to the VMs under this runtime directory. What happened before isn't told.
    ///
    /// # Errors
    /// [`ErrorKind::Host`] if the kernel refuses another watch.
    pub(crate) fn open(runtime: &RuntimeDir) -> Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(|e| refused(runtime.path(), e))?;
        let inotify = descriptor::readable(inotify)
            .map_err(|e| Error::new(ErrorKind::Io, "listening for events").because(e))?;
        let mut events = Self {
            runtime: runtime.clone(),
            inotify,
            watched: HashMap::new(),
            told: HashMap::new(),
            ready: VecDeque::new(),
        };
        let records = runtime.records().path().to_owned();
        durable::private_dir(&records)?;
        events.watch(&records, WatchFlags::MOVED_TO, Watched::Records)?;
        let made = WatchFlags::MOVED_TO | WatchFlags::CREATE;
        events.watch(runtime.path(), made, Watched::RunDirs)?;
        for id in runtime.ids()? {
            events.watch_vm(&id)?;
            let over = events.moments(&id).last().map_or(0, |last| last.number + 1);
            events.told.insert(id, over);
        }
        Ok(events)
    }

    /// The next event; waits for it as long as it takes. Dropping the future loses nothing.
    ///
    /// # Errors
    /// If the kernel can't be asked any more.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let failed = |e| Error::new(ErrorKind::Io, "waiting for events").because(e);
            let mut ready = self.inotify.readable().await.map_err(failed)?;
            let notices = read(self.inotify.get_ref()).map_err(|e| failed(e.into()))?;
            if notices.is_empty() {
                ready.clear_ready();
            }
            for notice in notices {
                self.take(&notice)?;
            }
        }
    }

    fn take(&mut self, notice: &Notice) -> Result<()> {
        if notice.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.look_at_all();
        }
        if notice.flags.contains(ReadFlags::IGNORED) {
            self.watched.remove(&notice.watch);
            return Ok(());
        }
        match self.watched.get(&notice.watch).cloned() {
            Some(Watched::RunDirs) => {
                if let Ok(id) = notice.name.parse::<VmId>() {
                    self.watch_vm(&id)?;
                    self.catch_up(&id);
                }
            }
            Some(Watched::Vm(id)) if notice.name == file::TIMELINE => self.catch_up(&id),
            Some(Watched::Records) => {
                let id = notice.name.strip_suffix(".json").map(str::parse::<VmId>);
                if let Some(Ok(id)) = id
                    && let Ok(ended) = self.runtime.records().get(&id)
                {
                    self.ended(ended);
                }
            }
            Some(Watched::Vm(_)) | None => {}
        }
        Ok(())
    }

    /// After notices were lost: everything is looked at.
    fn look_at_all(&mut self) -> Result<()> {
        for id in self.runtime.ids()? {
            self.watch_vm(&id)?;
            self.catch_up(&id);
        }
        let gone: Vec<VmId> = self.told.keys().cloned().collect();
        for id in gone {
            if !self.runtime.run_dir(&id).exists()
                && let Ok(ended) = self.runtime.records().get(&id)
            {
                self.ended(ended);
            }
        }
        Ok(())
    }

    fn moments(&self, id: &VmId) -> Vec<Moment> {
        let path = self.runtime.run_dir(id).join(file::TIMELINE);
        crate::rundir::timeline::read(&path).unwrap_or_default()
    }

    fn catch_up(&mut self, id: &VmId) {
        let moments = self.moments(id);
        self.tell(id, moments);
    }

    /// Tells the moments that weren't told yet.
    fn tell(&mut self, id: &VmId, moments: Vec<Moment>) {
        let told = self.told.entry(id.clone()).or_insert(0);
        for moment in moments {
            if moment.number >= *told {
                *told = moment.number + 1;
                self.ready.push_back(Event {
                    id: id.clone(),
                    state: moment.state,
                    at: moment.at,
                    end: None,
                });
            }
        }
    }

    fn ended(&mut self, mut ended: Ended) {
        // The last moment is the end itself.
        ended.timeline.pop();
        self.tell(&ended.id, ended.timeline);
        self.told.remove(&ended.id);
        self.ready.push_back(Event {
            id: ended.id,
            state: ended.state,
            at: ended.ended_at,
            end: Some(End {
                reason: ended.reason,
                vmm: ended.vmm,
            }),
        });
    }

    fn watch_vm(&mut self, id: &VmId) -> Result<()> {
        let changed = WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::MOVED_TO;
        let dir = self.runtime.run_dir(id);
        self.watch(&dir, changed, Watched::Vm(id.clone()))
    }

    /// Watches a directory; one that is gone already is none to watch.
    fn watch(&mut self, dir: &Path, flags: WatchFlags, what: Watched) -> Result<()> {
        let flags = flags | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        match inotify::add_watch(self.inotify.get_ref(), dir, flags) {
            Ok(watch) => {
                self.watched.insert(watch, what);
                Ok(())
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(e) => Err(refused(dir, e)),
        }
    }
}

/// What there is to read now.
fn read(inotify: &OwnedFd) -> rustix::io::Result<Vec<Notice>> {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut reader = Reader::new(inotify, &mut buffer);
    let mut notices = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => notices.push(Notice {
                watch: event.wd(),
                flags: event.events(),
                name: event
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default(),
            }),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(notices),
            Err(e) => return Err(e),
        }
        if reader.is_buffer_empty() {
            return Ok(notices);
        }
    }
}

fn refused(path: &Path, cause: Errno) -> Error {
    let path: PathBuf = path.to_owned();
    Error::new(
        ErrorKind::Host,
        format!("listening for events in {}", path.display()),
    )
    .at(path)
    .because(std::io::Error::from(cause))
    .hint("raise fs.inotify.max_user_instances or fs.inotify.max_user_watches (sysctl)")
}
