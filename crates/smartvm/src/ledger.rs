//! The durable list of steps: each step's intent is on disk before its effect, and the
//! list played backwards gives everything back.
//!
//! The file has a line of JSON for the header and one for each record. A line that a crash
//! cut short is the last one, and is passed over: its effect was not begun.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable::{newer_format, read_bounded};
use crate::error::{Error, ErrorKind, Result};
use crate::step::{Outcome, Step};

/// The format of the file that this version writes.
pub const FORMAT: u32 = 1;
/// What a ledger may hold at most, in bytes.
const MOST_BYTES: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Record {
    /// The step is about to be done.
    Begin { step: Step },
    /// The step with this number is done, and came to this.
    Done { number: usize, outcome: Outcome },
    /// The step with this number is undone.
    Undone { number: usize },
}

/// One step in the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What was begun.
    pub step: Step,
    /// What it came to, once it was done.
    pub outcome: Option<Outcome>,
    /// Whether it has been undone.
    pub undone: bool,
}

/// The steps done for one VM, on disk.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    entries: Vec<Entry>,
}

impl Ledger {
    /// A new, empty ledger at `path`.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| Error::io("making the ledger", path, e))?;
        let mut ledger = Self {
            path: path.to_owned(),
            file,
            entries: Vec::new(),
        };
        ledger.append(&Header { format: FORMAT })?;
        Ok(ledger)
    }

    /// The ledger at `path`; `None` if there is none.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let Some(bytes) = read_bounded(path, MOST_BYTES)? else {
            return Ok(None);
        };
        let (entries, sound) = parse(path, &bytes)?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(|e| Error::io("opening the ledger", path, e))?;
        if sound < bytes.len() {
            file.set_len(sound as u64)
                .map_err(|e| Error::io("mending the ledger", path, e))?;
        }
        Ok(Some(Self {
            path: path.to_owned(),
            file,
            entries,
        }))
    }

    /// The steps, in the order in which they were begun.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Does a step: intent to disk, effect, result to disk. If the effect fails, the step
    /// stays begun: part of it may be there, and undoing it is harmless where none is.
    pub fn run(&mut self, step: &Step, apply: impl FnOnce(&Step) -> Result<Outcome>) -> Result<()> {
        self.append(&Record::Begin { step: step.clone() })?;
        self.entries.push(Entry {
            step: step.clone(),
            outcome: None,
            undone: false,
        });
        let number = self.entries.len() - 1;
        let outcome = apply(step)?;
        self.append(&Record::Done {
            number,
            outcome: outcome.clone(),
        })?;
        self.entries[number].outcome = Some(outcome);
        Ok(())
    }

    /// Undoes every step that isn't undone, the last first, going on past failures, and
    /// returns these. A step that failed to be undone is tried again the next time.
    pub fn undo_all(&mut self, undo: impl FnMut(&Entry) -> Result<()>) -> Vec<Error> {
        self.undo_some(|_, _| true, undo)
    }

    /// The same for those steps, by number and entry, that `which` chooses.
    pub fn undo_some(
        &mut self,
        which: impl Fn(usize, &Entry) -> bool,
        mut undo: impl FnMut(&Entry) -> Result<()>,
    ) -> Vec<Error> {
        let mut failures = Vec::new();
        for number in (0..self.entries.len()).rev() {
            let entry = &self.entries[number];
            if entry.undone || !which(number, entry) {
                continue;
            }
            match undo(entry) {
                Ok(()) => {
                    self.entries[number].undone = true;
                    // Undoing is idempotent, so a record that can't be written (the disk may
                    // be full) costs no more than undoing once more.
                    if let Err(e) = self.append(&Record::Undone { number }) {
                        tracing::warn!(ledger = %self.path.display(), "recording an undo: {e}");
                    }
                }
                Err(e) => failures.push(e),
            }
        }
        failures
    }

    /// Undoes one step, if it isn't undone; for work that ended while its VM lives on.
    pub fn undo_one(
        &mut self,
        number: usize,
        undo: impl FnOnce(&Entry) -> Result<()>,
    ) -> Result<()> {
        let Some(entry) = self.entries.get(number).filter(|entry| !entry.undone) else {
            return Ok(());
        };
        undo(entry)?;
        self.append(&Record::Undone { number })?;
        self.entries[number].undone = true;
        Ok(())
    }

    fn append(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(record).map_err(|e| {
            Error::new(
                ErrorKind::Io,
                format!("encoding for {}", self.path.display()),
            )
            .because(e)
        })?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .and_then(|()| self.file.sync_data())
            .map_err(|e| Error::io("writing to the ledger", &self.path, e))
    }
}

/// The entries, and how many bytes of the file are sound.
fn parse(path: &Path, bytes: &[u8]) -> Result<(Vec<Entry>, usize)> {
    let damaged = |line: usize, what: String| {
        Error::new(
            ErrorKind::Corrupt,
            format!("{} is damaged in line {}: {what}", path.display(), line + 1),
        )
        .at(path)
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut sound = 0;
    for (number, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if line.last() != Some(&b'\n') {
            break;
        }
        if number == 0 {
            let header: Header =
                serde_json::from_slice(line).map_err(|e| damaged(number, e.to_string()))?;
            if header.format > FORMAT {
                return Err(newer_format(path, header.format, FORMAT));
            }
        } else {
            let record =
                serde_json::from_slice(line).map_err(|e| damaged(number, e.to_string()))?;
            let no_such_step = |n| damaged(number, format!("there is no step {n}"));
            match record {
                Record::Begin { step } => {
                    entries.push(Entry {
                        step,
                        outcome: None,
                        undone: false,
                    });
                }
                Record::Done { number: n, outcome } => {
                    let entry = entries.get_mut(n).ok_or_else(|| no_such_step(n))?;
                    entry.outcome = Some(outcome);
                }
                Record::Undone { number: n } => {
                    entries.get_mut(n).ok_or_else(|| no_such_step(n))?.undone = true;
                }
            }
        }
        sound += line.len();
    }
    Ok((entries, sound))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step(n: usize) -> Step {
        Step::MakeDir {
            path: PathBuf::from(format!("/x/{n}")),
        }
    }

    fn refuse(n: usize) -> Error {
        Error::new(ErrorKind::Io, format!("step {n}"))
    }

    fn number(step: &Step) -> usize {
        let Step::MakeDir { path } = step else {
            panic!("another step")
        };
        path.file_name().unwrap().to_str().unwrap().parse().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Whatever fails, forwards or backwards, and however often the process dies between:
        /// the undo order is the reverse, every begun step is undone exactly once, and none
        /// that wasn't begun.
        #[test]
        fn undo_order_is_the_reverse(
            steps in 1_usize..12,
            fails_at in 0_usize..16,
            stubborn in proptest::collection::vec(0_usize..12, 0..4),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ledger");
            let mut ledger = Ledger::create(&path).unwrap();
            let mut begun = Vec::new();
            for n in 0..steps {
                begun.push(n);
                let done = ledger.run(&step(n), |_| {
                    if n == fails_at { Err(refuse(n)) } else { Ok(Outcome::default()) }
                });
                if done.is_err() { break; }
            }
            drop(ledger);
            let mut undone = Vec::new();
            let mut ledger = Ledger::open(&path).unwrap().unwrap();
            let failures = ledger.undo_all(|entry| {
                let n = number(&entry.step);
                if stubborn.contains(&n) { return Err(refuse(n)); }
                undone.push(n);
                Ok(())
            });
            let kept: Vec<_> = begun.iter().copied().filter(|n| stubborn.contains(n)).collect();
            prop_assert_eq!(failures.len(), kept.len());
            let mut expected: Vec<_> =
                begun.iter().copied().filter(|n| !stubborn.contains(n)).collect();
            expected.reverse();
            prop_assert_eq!(&undone, &expected);
            drop(ledger);
            let mut second = Vec::new();
            let mut ledger = Ledger::open(&path).unwrap().unwrap();
            let none = ledger.undo_all(|entry| { second.push(number(&entry.step)); Ok(()) });
            prop_assert!(none.is_empty());
            second.reverse();
            prop_assert_eq!(second, kept);
        }
    }

    #[test]
    fn a_record_cut_short_by_a_crash_is_passed_over_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let mut ledger = Ledger::create(&path).unwrap();
        ledger.run(&step(0), |_| Ok(Outcome::default())).unwrap();
        drop(ledger);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"begin\":{\"st").unwrap();
        let mut ledger = Ledger::open(&path).unwrap().unwrap();
        assert_eq!(ledger.entries().len(), 1);
        ledger.run(&step(1), |_| Ok(Outcome::default())).unwrap();
        assert_eq!(Ledger::open(&path).unwrap().unwrap().entries().len(), 2);
    }

    #[test]
    fn damage_in_the_middle_and_a_newer_format_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        std::fs::write(&path, b"{\"format\":1}\n{\"beg\n{}\n").unwrap();
        assert_eq!(Ledger::open(&path).unwrap_err().kind(), ErrorKind::Corrupt);
        std::fs::write(&path, b"{\"format\":2}\n").unwrap();
        assert!(
            Ledger::open(&path)
                .unwrap_err()
                .to_string()
                .contains("format 2")
        );
        std::fs::write(&path, b"{\"format\":1}\n{\"undone\":{\"number\":3}}\n").unwrap();
        assert!(
            Ledger::open(&path)
                .unwrap_err()
                .to_string()
                .contains("no step 3")
        );
    }
}
