//! When a VM came into which state: a bounded list beside its state file, which others may
//! follow (see [`crate::events`]) and which its record keeps.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::State;
use crate::durable;
use crate::error::{Error, Result};

/// What the file may hold at most, in bytes; beyond that the older half goes.
const MOST_BYTES: u64 = 16 << 10;
/// What its last moments fit into, in bytes.
const END_BYTES: u64 = 1 << 10;
/// What of it is kept in a record.
const MOST_KEPT: usize = 32;

/// A VM came into a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Moment {
    /// Counts the VM's moments, from 0.
    pub number: u64,
    /// The state.
    pub state: State,
    /// When (RFC 3339).
    pub at: String,
}

/// The list in this file; empty if there is none. A line that a crash cut short is passed
/// over.
pub(crate) fn read(path: &Path) -> Result<Vec<Moment>> {
    let bytes = durable::read_bounded(path, 2 * MOST_BYTES)?.unwrap_or_default();
    let lines = bytes.split(|&byte| byte == b'\n');
    Ok(lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}

/// The last moment in this file; none if there is no file.
pub(super) fn last(path: &Path) -> Result<Option<Moment>> {
    match File::open(path).and_then(|file| End::of(&file)) {
        Ok(end) => Ok(end.last),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("reading", path, e)),
    }
}

/// The list, open for whoever holds the VM's lock.
#[derive(Debug)]
pub(super) struct Timeline {
    path: PathBuf,
    file: File,
    end: End,
}

/// How a list ended when it was looked at.
#[derive(Debug)]
struct End {
    /// How long it was, in bytes.
    length: u64,
    last: Option<Moment>,
    /// Whether a crash cut short a line after that.
    cut_short: bool,
}

impl Timeline {
    /// Opens it, and makes it where it is missing.
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let opened = options.open(&path).and_then(|file| {
            let end = End::of(&file)?;
            Ok((file, end))
        });
        let (file, end) = opened.map_err(|e| Error::io("opening", &path, e))?;
        Ok(Self { path, file, end })
    }

    /// Whether nobody else changed it since it was looked at.
    pub(super) fn is_unchanged(&self) -> bool {
        let found = rustix::fs::fstat(&self.file);
        found.is_ok_and(|found| found.st_nlink > 0 && found.st_size as u64 == self.end.length)
    }

    /// Its last moment.
    pub(super) fn last(&self) -> Option<&Moment> {
        self.end.last.as_ref()
    }

    /// Adds a moment. A list that has become too long loses its older half.
    pub(super) fn add(&mut self, number: u64, state: State) -> Result<()> {
        let failed = |path: &Path, e| Error::io("writing", path, e);
        self.append(number, state)
            .map_err(|e| failed(&self.path, e))?;
        if self.end.length <= MOST_BYTES {
            return Ok(());
        }
        let moments = read(&self.path)?;
        let mut newer = Vec::new();
        for moment in &moments[moments.len() / 2..] {
            newer.extend(line_of(moment).map_err(|e| failed(&self.path, e))?);
        }
        durable::write_whole(&self.path, &newer)?;
        *self = Self::open(std::mem::take(&mut self.path))?;
        Ok(())
    }

    fn append(&mut self, number: u64, state: State) -> std::io::Result<()> {
        let moment = Moment {
            number,
            state,
            at: crate::teardown::now(),
        };
        let mut line = line_of(&moment)?;
        if self.end.cut_short {
            line.insert(0, b'\n');
        }
        self.file.write_all(&line)?;
        self.end = End {
            length: self.end.length + line.len() as u64,
            last: Some(moment),
            cut_short: false,
        };
        Ok(())
    }
}

impl End {
    /// Of this file, of which only the end is read.
    fn of(file: &File) -> std::io::Result<Self> {
        let length = file.metadata()?.len();
        let begin = length.saturating_sub(END_BYTES);
        let mut end = vec![0; (length - begin) as usize];
        file.read_exact_at(&mut end, begin)?;
        let mut lines = end.rsplit(|&byte| byte == b'\n');
        Ok(Self {
            length,
            last: lines.find_map(|line| serde_json::from_slice(line).ok()),
            cut_short: end.last().is_some_and(|&byte| byte != b'\n'),
        })
    }
}

fn line_of(moment: &Moment) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(moment).map_err(std::io::Error::other)?;
    line.push(b'\n');
    Ok(line)
}

/// What a record keeps of these, ended by the state that the VM came to.
pub(crate) fn for_record(mut moments: Vec<Moment>, ended: State, at: &str) -> Vec<Moment> {
    let number = moments.last().map_or(0, |last| last.number + 1);
    moments.push(Moment {
        number,
        state: ended,
        at: at.to_owned(),
    });
    let older = moments.len().saturating_sub(MOST_KEPT);
    moments.split_off(older)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_stays_bounded_and_its_end_is_known_without_reading_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timeline");
        let mut timeline = Timeline::open(path.clone()).unwrap();
        for number in 0..=1000 {
            timeline.add(number, State::Paused).unwrap();
            assert!(timeline.is_unchanged());
            assert_eq!(last(&path).unwrap().unwrap().number, number);
        }
        let moments = read(&path).unwrap();
        assert_eq!(moments.last(), timeline.last());
        assert!(path.metadata().unwrap().len() < 2 * MOST_BYTES);
        assert!(
            moments
                .windows(2)
                .all(|two| two[0].number + 1 == two[1].number)
        );
        let kept = for_record(moments, State::Stopped, "now");
        assert_eq!((kept.len(), kept[31].number), (32, 1001));
    }

    #[test]
    fn a_line_cut_short_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timeline");
        let mut timeline = Timeline::open(path.clone()).unwrap();
        timeline.add(0, State::Created).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"number\":1,\"sta").unwrap();
        assert!(!timeline.is_unchanged());
        assert_eq!(read(&path).unwrap().len(), 1);
        assert_eq!(last(&path).unwrap().unwrap().number, 0);
        let mut timeline = Timeline::open(path.clone()).unwrap();
        timeline.add(1, State::Starting).unwrap();
        let states: Vec<_> = read(&path).unwrap().iter().map(|it| it.state).collect();
        assert_eq!(states, [State::Created, State::Starting]);
    }
}
