//! The small record that stays of a VM: why it ended and what it last printed.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::State;
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::exit;
use crate::name::VmId;

/// The format of a record that this version writes.
const FORMAT: u32 = 1;
/// How many records are kept: the oldest go first. More than may end at once, as each of them is
/// asked how it ended.
const MOST_RECORDS: usize = 512;

/// What stays of a VM when it has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Ended {
    /// Its id.
    pub id: VmId,
    /// `stopped` or `failed`.
    pub state: State,
    /// Why it ended.
    pub reason: exit::Reason,
    /// How Firecracker ended; absent if it never ran.
    pub vmm: Option<exit::Ended>,
    /// When it was made (RFC 3339); empty if its state could not be read.
    pub created_at: String,
    /// When it had ended (RFC 3339).
    pub ended_at: String,
    /// When it came into which state, at most the last 32 moments.
    #[serde(default)]
    pub timeline: Vec<super::Moment>,
    /// Its labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// The last that the guest printed: at most 16 KiB.
    pub console: String,
    /// The last that Firecracker printed and logged: at most 8 KiB.
    pub vmm_log: String,
    /// What could not be given back.
    pub cleanup: Vec<String>,
}

/// The records of ended VMs.
///
/// ```no_run
/// # fn example(smartvm: smartvm::SmartVm) -> smartvm::Result<()> {
/// for ended in smartvm.ended()? {
///     println!("{} {}: {}", ended.id, ended.state, ended.reason);
/// }
/// let web = smartvm.runtime().records().get(&"web".parse()?)?;
/// println!("its last words: {}", web.console);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where they are.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.dir
    }

    /// Keeps a record; the oldest beyond the number kept are dropped.
    pub fn keep(&self, ended: &Ended) -> Result<()> {
        durable::private_dir(&self.dir)?;
        durable::write_state(&self.file(&ended.id), FORMAT, ended)?;
        // Counting them costs less than looking at each one's age.
        let few = |entries: std::fs::ReadDir| entries.count() <= MOST_RECORDS;
        if std::fs::read_dir(&self.dir).is_ok_and(few) {
            return Ok(());
        }
        let mut all = self.by_age()?;
        while all.len() > MOST_RECORDS {
            let (_, id) = all.remove(0);
            self.remove(&id)?;
        }
        Ok(())
    }

    /// The record of a VM.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    pub fn get(&self, id: &VmId) -> Result<Ended> {
        durable::read_state(&self.file(id), FORMAT)?.ok_or_else(|| super::no_such_vm(id.as_str()))
    }

    /// The ids that have a record.
    pub fn ids(&self) -> Result<Vec<VmId>> {
        Ok(self.by_age()?.into_iter().map(|(_, id)| id).collect())
    }

    /// Drops a record; `false` if there is none.
    pub fn remove(&self, id: &VmId) -> Result<bool> {
        let path = self.file(id);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("removing", path, e)),
        }
    }

    fn file(&self, id: &VmId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn by_age(&self) -> Result<Vec<(SystemTime, VmId)>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("reading", &self.dir, e)),
        };
        let mut all: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let id = VmId::from_str(name.to_str()?.strip_suffix(".json")?).ok()?;
                Some((entry.metadata().and_then(|m| m.modified()).ok()?, id))
            })
            .collect();
        all.sort();
        Ok(all)
    }
}

impl Ended {
    /// What could not be given back, as a failure; `None` if all was.
    pub fn cleanup_failure(&self) -> Option<Error> {
        let (first, others) = self.cleanup.split_first()?;
        let message = format!("VM {} ended, but not all was given back: {first}", self.id);
        let others = others.iter().map(|text| Error::new(ErrorKind::Io, text));
        Some(
            Error::new(ErrorKind::Io, message)
                .with_cleanup(others)
                .hint("`smartvm gc` tries again"),
        )
    }

    /// The failure that this end is, for whoever waited for the VM to run.
    pub fn to_error(&self) -> Error {
        let mut message = format!("VM {} ended: {}", self.id, self.reason);
        if let Some(vmm) = self.vmm {
            message.push_str(&format!(" ({vmm})"));
        }
        let (vmm, guest) = (last_lines(&self.vmm_log, 3), last_lines(&self.console, 5));
        let tail = match self.reason {
            // It is the guest that has something to say.
            exit::Reason::GuestPanic | exit::Reason::GuestReset => guest.or(vmm),
            _ => vmm.or(guest),
        };
        if let Some(tail) = tail {
            message.push_str(&format!("; last lines: {tail}"));
        }
        Error::new(ErrorKind::Vmm, message)
            .hint(format!("`smartvm logs {}` shows what it printed", self.id))
    }
}

fn last_lines(text: &str, most: usize) -> Option<String> {
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines.get(lines.len().saturating_sub(most)..)?;
    (!last.is_empty()).then(|| last.join(" | "))
}
