//! The terminal that the user sits at.

use std::io::IsTerminal;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use smartvm::{Error, Result};

/// Standard input passed on byte by byte, until dropped.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Sets it up; `None` if standard input is no terminal.
    pub(crate) fn enter() -> Result<Option<Self>> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let failed = |e| Error::io("setting up", "the terminal", e);
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The user sees a terminal that is left raw, and nothing else could be done about it.
        let _left_raw = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The terminal's lines and columns; `None` if standard input is no terminal.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdin()).ok()?;
    Some((size.ws_row, size.ws_col))
}
