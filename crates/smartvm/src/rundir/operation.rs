//! What may be done to a VM in which state, and what it is then: the one table that every
//! operation is checked against.

use super::State;
use crate::error::{Error, ErrorKind, Result};

/// Something that is done to a VM. `wait`, `inspect` and `logs` only look, and are always
/// allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Take what it needs from the host, start Firecracker, configure it.
    Start,
    /// The last part of a start: the guest runs from here on.
    Boot,
    /// Stop its guest's processors.
    Pause,
    /// Let its guest go on.
    Resume,
    /// End it.
    Stop,
    /// Change a device of its.
    Update,
    /// Read or write its metadata (MMDS).
    Metadata,
    /// Make a snapshot of it.
    Snapshot,
    /// Ask for its figures.
    Stats,
    /// Work in its guest, through the agent.
    Exec,
}

impl Operation {
    /// All there are.
    pub const ALL: [Self; 10] = [
        Self::Start,
        Self::Boot,
        Self::Pause,
        Self::Resume,
        Self::Stop,
        Self::Update,
        Self::Metadata,
        Self::Snapshot,
        Self::Stats,
        Self::Exec,
    ];

    /// The states in which it is allowed. A VM that has ended has no run dir any more, and
    /// every operation says so.
    pub fn allowed(self) -> &'static [State] {
        use State::{Created, Failed, Paused, Running, Starting, Stopping};
        match self {
            Self::Start => &[Created],
            Self::Boot => &[Starting],
            Self::Pause | Self::Resume => &[Running, Paused],
            Self::Update | Self::Metadata | Self::Snapshot | Self::Stats => &[Running, Paused],
            Self::Exec => &[Running],
            // What failed to be given back is tried again.
            Self::Stop => &[Created, Starting, Running, Paused, Stopping, Failed],
        }
    }

    /// What the VM is then; `None` where it stays what it was.
    pub fn leads_to(self) -> Option<State> {
        match self {
            Self::Start => Some(State::Starting),
            Self::Boot | Self::Resume => Some(State::Running),
            Self::Pause => Some(State::Paused),
            Self::Stop => Some(State::Stopping),
            Self::Update | Self::Metadata | Self::Snapshot | Self::Stats | Self::Exec => None,
        }
    }

    /// What whoever does it is doing, as in "pausing VM a".
    pub fn doing(self) -> &'static str {
        match self {
            Self::Start | Self::Boot => "starting",
            Self::Pause => "pausing",
            Self::Resume => "resuming",
            Self::Stop => "stopping",
            Self::Update => "updating",
            Self::Metadata => "working on the metadata of",
            Self::Snapshot => "making a snapshot of",
            Self::Stats => "reading the figures of",
            Self::Exec => "running a command in",
        }
    }

    /// The same for those who wait for its end. Pausing and resuming take turns without saying
    /// each time which of the two it is.
    pub(crate) fn holds_for(self) -> &'static str {
        match self {
            Self::Pause | Self::Resume => "pausing or resuming",
            other => other.doing(),
        }
    }

    /// Refuses it in a state that doesn't allow it.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`], which names the state, and those that would do.
    pub fn require(self, state: State, vm: &str) -> Result<()> {
        let allowed = self.allowed();
        if allowed.contains(&state) {
            return Ok(());
        }
        let names: Vec<_> = allowed.iter().map(State::to_string).collect();
        Err(Error::new(
            ErrorKind::WrongState,
            format!("{} VM {vm}: it is {state}", self.doing()),
        )
        .hint(format!(
            "this can be done to a VM that is {}",
            names.join(" or ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of `docs/lifecycle.md`, as this code has it.
    fn table() -> String {
        let states = State::ALL.map(|state| state.to_string());
        let mut table = format!("| operation | {} | becomes |\n", states.join(" | "));
        table.push_str(&"|---".repeat(states.len() + 2));
        table.push_str("|\n");
        for operation in Operation::ALL {
            let marks = State::ALL.map(|state| match operation.require(state, "x") {
                Ok(()) => "yes",
                Err(_) => "-",
            });
            let becomes = operation
                .leads_to()
                .map_or_else(|| "the same".into(), |state| state.to_string());
            let name = format!("{operation:?}").to_lowercase();
            table.push_str(&format!("| {name} | {} | {becomes} |\n", marks.join(" | ")));
        }
        table
    }

    #[test]
    fn the_documentation_has_the_table_that_the_code_has() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lifecycle.md");
        let page = std::fs::read_to_string(page).unwrap();
        assert!(
            page.contains(&table()),
            "docs/lifecycle.md lacks:\n{}",
            table()
        );
    }

    #[test]
    fn a_refusal_names_state_and_way_out() {
        let refused = Operation::Pause.require(State::Created, "a").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WrongState);
        assert_eq!(refused.to_string(), "pausing VM a: it is created");
        assert!(refused.way_out().unwrap().contains("running or paused"));
    }
}
