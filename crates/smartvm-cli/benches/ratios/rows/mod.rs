//! The rows: a file for each group.

mod image;
mod keeper;
mod snapshot;
mod start;

use crate::row::Row;

/// All rows, in the order in which they are measured.
pub(crate) const ALL: &[Row] = &[
    start::ONE,
    snapshot::RESTORE,
    image::CACHED,
    image::UNPACK,
    image::EXT4,
    image::LAYERS,
    keeper::MEMORY,
    keeper::START,
];
