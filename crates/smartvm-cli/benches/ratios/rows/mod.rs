//! The rows: a file for each group.

mod jail;
mod keeper;
mod snapshot;
mod start;

use crate::row::Row;

/// All rows, in the order in which they are measured.
pub(crate) const ALL: &[Row] = &[start::ONE, jail::START, snapshot::RESTORE, keeper::MEMORY, keeper::START];
