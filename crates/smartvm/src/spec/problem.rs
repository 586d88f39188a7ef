//! What is wrong with a spec: everything, each with its place.

use std::fmt;

use serde::Serialize;

use crate::{Error, ErrorKind};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Problem {
    /// Where: the path of the field, such as `drives[1].pathOnHost`. Empty: the whole.
    pub path: String,
    /// What is wrong.
    pub problem: String,
    /// What is allowed instead, or what to do about it.
    pub allowed: String,
    /// What sort of failure it is; [`ErrorKind::Invalid`] where the spec itself is wrong.
    pub kind: ErrorKind,
}

impl Problem {
    /// Something wrong with the spec itself.
    pub fn new(
        path: impl Into<String>,
        problem: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            problem: problem.into(),
            allowed: allowed.into(),
            kind: ErrorKind::Invalid,
        }
    }

    /// The same, of another kind.
    #[must_use]
    pub fn kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(out, "{}: ", self.path)?;
        }
        out.write_str(&self.problem)?;
        if !self.allowed.is_empty() {
            write!(out, " (allowed: {})", self.allowed)?;
        }
        Ok(())
    }
}

/// Everything that is wrong; one per line when displayed. Never empty inside an `Err`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds one.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// `Ok` if nothing is wrong.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    /// The kind of failure that all of this is together: what it is for each if they agree,
    /// [`ErrorKind::Invalid`] if the spec itself is wrong somewhere, else the host's.
    pub fn kind(&self) -> ErrorKind {
        let first = self
            .0
            .first()
            .map_or(ErrorKind::Invalid, |problem| problem.kind);
        if self.0.iter().all(|problem| problem.kind == first) {
            first
        } else if self
            .0
            .iter()
            .any(|problem| problem.kind == ErrorKind::Invalid)
        {
            ErrorKind::Invalid
        } else {
            ErrorKind::Host
        }
    }

    /// As an error about `what`, such as "the spec vm.json".
    pub fn about(self, what: &str) -> Error {
        let kind = self.kind();
        let problems = match self.0.len() {
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        let message = match kind {
            // The spec may be as good as it is on another host.
            ErrorKind::Host => format!("{problems}: this host can't run {what}"),
            _ => format!("{problems} in {what}"),
        };
        Error::new(kind, message).because(self)
    }
}

impl std::ops::Deref for Problems {
    type Target = [Problem];

    fn deref(&self) -> &[Problem] {
        &self.0
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Extend<Problem> for Problems {
    fn extend<I: IntoIterator<Item = Problem>>(&mut self, more: I) {
        self.0.extend(more);
    }
}

impl FromIterator<Problem> for Problems {
    fn from_iter<I: IntoIterator<Item = Problem>>(problems: I) -> Self {
        Self(problems.into_iter().collect())
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                out.write_str("\n")?;
            }
            write!(out, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problems> for Error {
    fn from(problems: Problems) -> Self {
        problems.about("the spec")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kinds: &[ErrorKind]) -> Problems {
        kinds
            .iter()
            .map(|kind| Problem::new("a.b", "is wrong", "right").kind(*kind))
            .collect()
    }

    #[test]
    fn each_problem_is_a_line_with_its_place_and_what_is_allowed() {
        let problems = of(&[ErrorKind::Invalid, ErrorKind::Invalid]);
        assert_eq!(
            problems.to_string(),
            "a.b: is wrong (allowed: right)\na.b: is wrong (allowed: right)"
        );
    }

    #[test]
    fn the_kind_of_many_is_theirs_if_they_agree() {
        use ErrorKind::{Host, Invalid, NotFound};
        assert_eq!(of(&[NotFound, NotFound]).kind(), NotFound);
        assert_eq!(of(&[NotFound, Invalid]).kind(), Invalid);
        assert_eq!(of(&[NotFound, Host]).kind(), Host);
        assert_eq!(Error::from(of(&[NotFound])).kind(), NotFound);
    }

    #[test]
    fn an_unfit_host_is_not_told_as_a_problem_in_the_spec() {
        let told = |kind| Error::from(of(&[kind])).to_string();
        assert!(told(ErrorKind::Invalid).starts_with("1 problem in the spec"));
        let unfit = told(ErrorKind::Host);
        assert!(unfit.starts_with("1 problem: this host can't run the spec"));
    }
}
