//! The one error of all tasks.

use std::fmt::Display;
use std::io;
use std::path::Path;

/// What could not be done, and what to do about it.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    what: String,
    hint: Option<String>,
}

/// What all fallible functions here return.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// What could not be done, and why.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: None,
        }
    }

    /// Adds a way out.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An operation on a file that failed, for `map_err`.
    pub(crate) fn io<'a>(doing: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |cause| Self::new(format!("{doing} {}: {cause}", path.display()))
    }

    /// On one line, without the way out.
    pub(crate) fn line(&self) -> &str {
        self.what.lines().next().unwrap_or_default()
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n{hint}"),
            None => Ok(()),
        }
    }
}
