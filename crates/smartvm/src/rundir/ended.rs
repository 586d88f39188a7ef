//! The small record that stays of a VM: why it ended and what it last printed.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
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
/// How many records stay, the newest: more than may end at once, as each of them is asked how it
/// ended.
const KEPT_RECORDS: usize = 448;
/// After so many new ones it is looked how many there are: not everyone who ends shall have to
/// look at all.
const LOOK_AFTER: u64 = 64;
/// The file among the records that has a byte for each new one since then.
const NEW_SINCE: &str = ".new";

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
    pub labels: BTreeMap<String, String>,
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
    /// Those in this runtime directory.
    pub(super) fn of(runtime_dir: &Path) -> Self {
        Self {
            dir: runtime_dir.join(".ended"),
        }
    }

    /// Where they are.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Keeps a record. The newest 448 stay; of older ones some 64 do at most.
    pub fn keep(&self, ended: &Ended) -> Result<()> {
        // The runtime directory is closed to others: whose this is has been looked at with that.
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("making", &self.dir, e));
            }
            _ => {}
        }
        durable::write_passing_state(&self.file(&ended.id), FORMAT, ended)?;
        let new = self.dir.join(NEW_SINCE);
        // On a full disk there is no room for a byte: then everyone looks.
        if count_one(&new).is_ok_and(|many| many < LOOK_AFTER) {
            return Ok(());
        }
        std::fs::write(&new, "").map_err(|e| Error::io("counting records anew in", new, e))?;
        let all = self.by_age()?;
        let too_many = all.len().saturating_sub(KEPT_RECORDS);
        for (_, id) in &all[..too_many] {
            self.remove(id)?;
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

    /// All there are, the oldest first.
    fn by_age(&self) -> Result<Vec<(SystemTime, VmId)>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("reading", &self.dir, e)),
        };
        // A directory that others change while it is read may name an entry several times.
        let found: BTreeMap<_, _> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let id = VmId::from_str(name.to_str()?.strip_suffix(".json")?).ok()?;
                Some((id, entry.metadata().and_then(|m| m.modified()).ok()?))
            })
            .collect();
        let mut all: Vec<_> = found.into_iter().map(|(id, age)| (age, id)).collect();
        all.sort();
        Ok(all)
    }
}

/// Counts one more in a file of a byte each; returns how many there are.
fn count_one(file: &Path) -> std::io::Result<u64> {
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).mode(0o600).open(file)?;
    file.write_all(b".")?;
    Ok(file.metadata()?.len())
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
            exit::Reason::GuestPanic | exit::Reason::GuestReset | exit::Reason::CommandEnded(_) => {
                guest.or(vmm)
            }
            _ => vmm.or(guest),
        };
        if let Some(tail) = tail {
            message.push_str(&format!("; last lines: {tail}"));
        }
        let kind = match self.reason {
            exit::Reason::LifetimeReached => ErrorKind::Timeout,
            _ => ErrorKind::Vmm,
        };
        Error::new(kind, message).hint(format!("`smartvm logs {}` shows what it printed", self.id))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(id: VmId) -> Ended {
        Ended {
            id,
            state: State::Stopped,
            reason: exit::Reason::Stopped,
            vmm: None,
            created_at: String::new(),
            ended_at: String::new(),
            timeline: Vec::new(),
            labels: BTreeMap::new(),
            console: String::new(),
            vmm_log: String::new(),
            cleanup: Vec::new(),
        }
    }

    fn named(number: usize) -> VmId {
        // As long as an id that nobody chose, so that the directory takes several reads.
        format!("{number:036}").parse().unwrap()
    }

    #[test]
    fn of_many_records_the_newest_448_stay_and_few_older_ones() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::of(dir.path());
        let most = KEPT_RECORDS + LOOK_AFTER as usize;
        for number in 0..2 * most {
            records.keep(&ended(named(number))).unwrap();
            if number % 37 == 0 || number == most {
                let ids = records.ids().unwrap();
                assert!(ids.len() <= most, "{}", ids.len());
                let newest: Vec<_> = (0..=number).rev().take(KEPT_RECORDS).map(named).collect();
                assert!(ids.iter().rev().take(KEPT_RECORDS).eq(&newest));
            }
        }
        assert!(records.get(&named(0)).is_err());
    }

    #[test]
    fn records_that_others_kept_count_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::of(dir.path());
        let new = records.path().join(NEW_SINCE);
        std::fs::create_dir(records.path()).unwrap();
        for number in 0..KEPT_RECORDS + 1 {
            let one = ended(named(number));
            durable::write_state(&records.file(&one.id), FORMAT, &one).unwrap();
        }
        // As another one counted.
        std::fs::write(&new, vec![b'.'; LOOK_AFTER as usize - 1]).unwrap();
        records.keep(&ended(named(9999))).unwrap();
        assert_eq!(records.ids().unwrap().len(), KEPT_RECORDS);
        assert_eq!(new.metadata().unwrap().len(), 0);
    }

    #[test]
    fn records_that_change_while_they_are_counted_count_once() {
        // A tmpfs, where most runtime directories are.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let records = Records::of(dir.path());
        std::fs::create_dir(records.path()).unwrap();
        let write = |number| {
            let one = ended(named(number));
            durable::write_state(&records.file(&one.id), FORMAT, &one).unwrap();
        };
        (0..600).for_each(write);
        std::thread::scope(|scope| {
            let change = |from: usize| {
                for number in (from..6000).step_by(16) {
                    records.remove(&named(number)).unwrap();
                    write(number + 600);
                }
            };
            let writers: Vec<_> = (0..16)
                .map(|from| scope.spawn(move || change(from)))
                .collect();
            while !writers.iter().all(|writer| writer.is_finished()) {
                let mut ids = records.ids().unwrap();
                let counted = ids.len();
                ids.sort();
                ids.dedup();
                assert_eq!(counted, ids.len());
            }
        });
    }
}
