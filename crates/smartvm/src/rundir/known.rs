//! What is known of a live VM, on disk: in which state it is, and everything else.
//!
//! Everything else is in the state file, which is replaced as a whole when something of it
//! changes. States change more often than that: the VM's timeline tells them, of which each is one
//! line more. The file has the state too, and the number of the moment since which it was that: a
//! newer moment has the last word. So whoever reads looks at the timeline first: what isn't in it
//! yet, the file tells.

use std::fs::File;

use serde::Serialize;

use super::timeline::{self, Moment, Timeline};
use super::{RunDir, State, VmState, file};
use crate::durable::{self, Staged};
use crate::error::Result;

/// The format of the state file that this version writes. In the first, the file alone had the
/// state.
const FORMAT: u32 = 2;

/// A state file's content.
#[derive(Serialize)]
struct Content<'a> {
    since: u64,
    #[serde(flatten)]
    state: &'a VmState,
}

/// What is known of a VM, for those who only look; `None` if there is no state file.
pub(super) fn look(run_dir: &RunDir) -> Result<Option<VmState>> {
    let last = timeline::last(&run_dir.file(file::TIMELINE))?;
    look_since(run_dir, last.as_ref())
}

/// The same where its last moment was looked up.
pub(super) fn look_since(run_dir: &RunDir, last: Option<&Moment>) -> Result<Option<VmState>> {
    let state: Option<VmState> = durable::read_state(&run_dir.file(file::STATE), FORMAT)?;
    Ok(state.map(|state| state.at(last)))
}

/// Writes all of it. The caller holds the VM's lock.
pub(super) fn write(run_dir: &RunDir, state: &VmState) -> Result<()> {
    let mut timeline = Timeline::open(run_dir.file(file::TIMELINE))?;
    let (number, is_new) = number(&timeline, state.since, state.state);
    replace(run_dir, state, number)?;
    match is_new {
        true => timeline.add(number, state.state),
        false => Ok(()),
    }
}

/// The number of the moment at which a VM comes to a state, and whether that is yet to be noted.
fn number(timeline: &Timeline, since: Option<u64>, to: State) -> (u64, bool) {
    match timeline.last() {
        Some(last) if last.state == to && Some(last.number) >= since => (last.number, false),
        last => {
            let before = last.map(|last| last.number).max(since);
            (before.map_or(0, |before| before + 1), true)
        }
    }
}

/// Puts another state file in the place of the one that is there; returns it.
fn replace(run_dir: &RunDir, state: &VmState, since: u64) -> Result<File> {
    let content = Content { since, state };
    Staged::state(&run_dir.file(file::STATE), FORMAT, &content)?.publish_open()
}

/// What is known of a VM, for whoever holds its lock.
#[derive(Debug)]
pub(crate) struct Known {
    state: Box<VmState>,
    /// The state file that says so.
    file: File,
    /// Whether something else than the state was changed since.
    changed: bool,
    timeline: Timeline,
}

impl Known {
    /// Reads it.
    pub(crate) fn read(run_dir: &RunDir) -> Result<Self> {
        let found = durable::open_state(&run_dir.file(file::STATE), FORMAT)?;
        let (file, state): (File, VmState) = found.ok_or_else(|| run_dir.stateless())?;
        let timeline = Timeline::open(run_dir.file(file::TIMELINE))?;
        Ok(Self {
            state: Box::new(state.at(timeline.last())),
            file,
            changed: false,
            timeline,
        })
    }

    /// Whether it is what another would read now, who took the lock.
    pub(crate) fn is_current(&self) -> bool {
        // What was replaced has no name any more.
        let state_file = rustix::fs::fstat(&self.file);
        state_file.is_ok_and(|found| found.st_nlink > 0) && self.timeline.is_unchanged()
    }

    /// The VM's state, with what was changed.
    pub(crate) fn state(&self) -> &VmState {
        &self.state
    }

    /// The same, to change something else than in which state it is.
    pub(crate) fn change(&mut self) -> &mut VmState {
        self.changed = true;
        &mut self.state
    }

    /// Writes that the VM is in a state now, and what was changed.
    pub(crate) fn come_to(&mut self, run_dir: &RunDir, to: State) -> Result<()> {
        let (number, is_new) = number(&self.timeline, self.state.since, to);
        let told_by_timeline = self.state.since.replace(number).is_some();
        self.state.state = to;
        if self.changed || !told_by_timeline {
            self.file = replace(run_dir, &self.state, number)?;
            self.changed = false;
        }
        match is_new {
            true => self.timeline.add(number, to),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::rundir::{Lock, RuntimeDir};

    /// What the first version wrote of a VM that ran.
    const FORMAT_1: &str = r#"{"format":1,"state":"running","createdAt":"2026-11-29T02:08:52.235Z",
        "spec":{"id":"web","bootSource":{"kernelImagePath":"/k"},"machineConfig":{"vcpuCount":1,
        "memSizeMib":128}},"lifetime":"detached","owner":{"pid":9276,"startTime":5016671,
        "bootId":"0ac4ec6d-9fcd-486a-ad5d-8e10e5021836"},"keeper":null,"vmm":null,
        "firecracker":"1.12.1","paths":{"kernel":"kernel","initrd":null,"drives":[],
        "vsock":null}}"#;
    /// What this one writes of it since it was paused.
    const FORMAT_2: &str = r#"{"format":2,"since":2,"state":"paused","createdAt":"2026-11-29T02:08:52.235Z","spec":{"id":"web","bootSource":{"kernelImagePath":"/k"},"machineConfig":{"vcpuCount":1,"memSizeMib":128}},"lifetime":"detached","owner":{"pid":9276,"startTime":5016671,"bootId":"0ac4ec6d-9fcd-486a-ad5d-8e10e5021836"},"keeper":null,"vmm":null,"firecracker":"1.12.1","paths":{"kernel":"kernel","initrd":null,"drives":[],"vsock":null}}"#;
    const TIMELINE: &str = "{\"number\":0,\"state\":\"created\",\"at\":\"then\"}\n\
                            {\"number\":1,\"state\":\"running\",\"at\":\"then\"}\n";

    struct Corner {
        _dir: tempfile::TempDir,
        run_dir: RunDir,
        _lock: Lock,
    }

    impl Corner {
        fn with(state_file: &str, timeline: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let runtime = RuntimeDir::open(dir.path()).unwrap();
            let (run_dir, lock) = runtime.create(&"web".parse().unwrap()).unwrap();
            std::fs::write(run_dir.file(file::STATE), state_file).unwrap();
            std::fs::write(run_dir.file(file::TIMELINE), timeline).unwrap();
            Self {
                _dir: dir,
                run_dir,
                _lock: lock,
            }
        }

        fn state_file(&self) -> String {
            std::fs::read_to_string(self.run_dir.file(file::STATE)).unwrap()
        }

        /// What those who look see, which is what the next holder of the lock reads.
        fn seen(&self) -> State {
            let seen = self.run_dir.state().unwrap();
            let read = Known::read(&self.run_dir).unwrap();
            assert_eq!(*read.state(), seen);
            seen.state
        }
    }

    #[test]
    fn a_file_of_the_first_format_has_the_last_word_until_it_is_replaced() {
        let behind = &TIMELINE[..TIMELINE.find('\n').unwrap() + 1];
        for timeline in [TIMELINE, behind, ""] {
            let corner = Corner::with(FORMAT_1, timeline);
            assert_eq!(corner.seen(), State::Running);
        }
        let corner = Corner::with(FORMAT_1, TIMELINE);
        let mut known = Known::read(&corner.run_dir).unwrap();
        known.come_to(&corner.run_dir, State::Paused).unwrap();
        assert_eq!(corner.state_file(), FORMAT_2);
        assert_eq!(corner.seen(), State::Paused);
    }

    #[test]
    fn a_newer_moment_has_the_last_word_and_the_file_stays_as_it_is() {
        let corner = Corner::with(FORMAT_2, TIMELINE);
        assert_eq!(corner.seen(), State::Paused, "the file is newer");
        let mut known = Known::read(&corner.run_dir).unwrap();
        for state in [
            State::Running,
            State::Paused,
            State::Paused,
            State::Stopping,
        ] {
            known.come_to(&corner.run_dir, state).unwrap();
            assert_eq!(corner.seen(), state);
            assert!(known.is_current());
        }
        assert_eq!(corner.state_file(), FORMAT_2);
        let timeline = corner.run_dir.timeline().unwrap();
        let numbers: Vec<_> = timeline.iter().map(|moment| moment.number).collect();
        assert_eq!(numbers, [0, 1, 3, 4, 5]);
    }

    #[test]
    fn what_else_is_changed_is_in_the_file_with_its_state() {
        let corner = Corner::with(FORMAT_2, TIMELINE);
        let mut known = Known::read(&corner.run_dir).unwrap();
        known.change().agent = Some(7);
        known.come_to(&corner.run_dir, State::Running).unwrap();
        assert!(
            corner
                .state_file()
                .contains("\"since\":3,\"state\":\"running\"")
        );
        assert_eq!(corner.seen(), State::Running);
        let mut seen = corner.run_dir.state().unwrap();
        assert_eq!(seen.agent, Some(7));
        seen.state = State::Failed;
        corner.run_dir.write_state(&seen).unwrap();
        assert_eq!(corner.seen(), State::Failed);
        assert!(!known.is_current(), "another one wrote it");
    }

    #[test]
    fn a_moment_of_anothers_makes_it_old() {
        let corner = Corner::with(FORMAT_2, TIMELINE);
        let known = Known::read(&corner.run_dir).unwrap();
        let mut another = Known::read(&corner.run_dir).unwrap();
        assert!(known.is_current());
        another.come_to(&corner.run_dir, State::Running).unwrap();
        assert!(!known.is_current());
        assert!(another.is_current());
        std::fs::remove_dir_all(corner.run_dir.path()).unwrap();
        assert!(!another.is_current());
    }

    #[test]
    fn a_newer_format_is_refused() {
        let corner = Corner::with(&FORMAT_2.replace("\"format\":2", "\"format\":3"), TIMELINE);
        let looked = corner.run_dir.state().unwrap_err();
        let read = Known::read(&corner.run_dir).unwrap_err();
        assert_eq!(
            (looked.kind(), read.kind()),
            (ErrorKind::Corrupt, ErrorKind::Corrupt)
        );
    }
}
