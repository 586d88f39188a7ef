//! The rows: a file for each group.

mod death;
pub(crate) mod held;
mod image;
mod jail;
mod keeper;
mod many;
mod pause;
mod snapshot;
mod start;

use crate::row::Row;

/// All rows, in the order in which they are measured.
pub(crate) const ALL: &[Row] = &[
    start::ONE,
    jail::START,
    many::START,
    many::END,
    pause::PAUSE_RESUME,
    snapshot::RESTORE,
    image::CACHED,
    image::UNPACK,
    image::EXT4,
    image::LAYERS,
    death::EVENT,
    held::MEMORY,
    held::IDLE,
    keeper::MEMORY,
    keeper::START,
];
