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

/// A moment that is to be noted.
#[derive(Debug)]
pub(crate) struct Noting {
    path: PathBuf,
    /// The list, and what to add to it; `None` if it has this moment already.
    pending: Option<(File, Vec<u8>)>,
}

impl Noting {
    /// That the VM is now in a state, if the last one was another. The caller holds the VM's
    /// lock until it is written.
    pub(super) fn prepare(path: PathBuf, state: State) -> Result<Self> {
        let pending = pending(&path, state).map_err(|e| Error::io("writing", &path, e))?;
        Ok(Self { path, pending })
    }

    /// Writes it. A list that has become too long loses its older half.
    pub(super) fn write(self) -> Result<()> {
        let Self { path, pending } = self;
        let Some((mut file, line)) = pending else {
            return Ok(());
        };
        let failed = |e| Error::io("writing", &path, e);
        file.write_all(&line).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() <= MOST_BYTES {
            return Ok(());
        }
        let moments = read(&path)?;
        let mut newer = Vec::new();
        for moment in &moments[moments.len() / 2..] {
            newer.extend(line_of(moment).map_err(failed)?);
        }
        durable::write_whole(&path, &newer)
    }
}

fn pending(path: &Path, state: State) -> std::io::Result<Option<(File, Vec<u8>)>> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let length = file.metadata()?.len();
    let (last, cut_short) = end(&file, length)?;
    if last.as_ref().is_some_and(|last| last.state == state) {
        return Ok(None);
    }
    let mut line = line_of(&Moment {
        number: last.map_or(0, |last| last.number + 1),
        state,
        at: crate::teardown::now(),
    })?;
    if cut_short {
        line.insert(0, b'\n');
    }
    Ok(Some((file, line)))
}

fn line_of(moment: &Moment) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(moment).map_err(std::io::Error::other)?;
    line.push(b'\n');
    Ok(line)
}

/// The last moment of a file so long, of which only the end is read, and whether a crash cut
/// short a line after it.
fn end(file: &File, length: u64) -> std::io::Result<(Option<Moment>, bool)> {
    let begin = length.saturating_sub(END_BYTES);
    let mut end = vec![0; (length - begin) as usize];
    file.read_exact_at(&mut end, begin)?;
    let mut lines = end.rsplit(|&byte| byte == b'\n');
    let last = lines.find_map(|line| serde_json::from_slice(line).ok());
    Ok((last, end.last().is_some_and(|&byte| byte != b'\n')))
}

/// What a record keeps of it, ended by the state that the VM came to.
pub(crate) fn for_record(path: &Path, ended: State, at: &str) -> Vec<Moment> {
    let mut moments = read(path).unwrap_or_default();
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

    fn note(path: &Path, state: State) -> Result<()> {
        Noting::prepare(path.to_owned(), state)?.write()
    }

    #[test]
    fn states_are_noted_once_each_and_the_list_stays_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timeline");
        note(&path, State::Running).unwrap();
        note(&path, State::Running).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
        for _ in 0..500 {
            note(&path, State::Paused).unwrap();
            note(&path, State::Running).unwrap();
        }
        let moments = read(&path).unwrap();
        assert_eq!(moments.last().unwrap().number, 1000);
        assert!(path.metadata().unwrap().len() < 2 * MOST_BYTES);
        assert!(
            moments
                .windows(2)
                .all(|two| two[0].number + 1 == two[1].number)
        );
        let kept = for_record(&path, State::Stopped, "now");
        assert_eq!((kept.len(), kept[31].number), (32, 1001));
    }

    #[test]
    fn a_line_cut_short_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timeline");
        note(&path, State::Created).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"number\":1,\"sta").unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
        note(&path, State::Starting).unwrap();
        let states: Vec<_> = read(&path).unwrap().iter().map(|it| it.state).collect();
        assert_eq!(states, [State::Created, State::Starting]);
    }
}
