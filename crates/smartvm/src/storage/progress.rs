//! How long work tells of itself, and how it is told to stop.

use crate::{Error, ErrorKind, Result};

/// What is going on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A stage began, such as "reading the root file system".
    Stage(&'static str),
    /// So many bytes of the stage's input are done.
    Bytes(u64),
    /// Something worth knowing that doesn't stop the work, such as a socket left out.
    Note(String),
}

/// The two ends of a long piece of work: where its progress goes, and whether to go on.
pub struct Watch<'a> {
    progress: &'a mut dyn FnMut(Progress),
    cancelled: &'a dyn Fn() -> bool,
}

impl<'a> Watch<'a> {
    /// Reports to `progress`; stops soon after `cancelled` says so.
    pub fn new(progress: &'a mut dyn FnMut(Progress), cancelled: &'a dyn Fn() -> bool) -> Self {
        Self {
            progress,
            cancelled,
        }
    }

    /// Tells what is going on.
    pub fn tell(&mut self, progress: Progress) {
        (self.progress)(progress);
    }

    /// An error of kind [`ErrorKind::Cancelled`] if the work is to stop.
    pub fn go_on(&self, doing: &str) -> Result<()> {
        go_on(self.cancelled, doing)
    }

    /// The question alone, for what has no progress.
    pub fn cancelled(&self) -> &'a dyn Fn() -> bool {
        self.cancelled
    }
}

/// An error of kind [`ErrorKind::Cancelled`] if `cancelled` says so.
pub(crate) fn go_on(cancelled: &dyn Fn() -> bool, doing: &str) -> Result<()> {
    if cancelled() {
        return Err(Error::new(
            ErrorKind::Cancelled,
            format!("{doing}: cancelled"),
        ));
    }
    Ok(())
}
