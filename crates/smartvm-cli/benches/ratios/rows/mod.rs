//! The rows: a file for each group.

<<<<<<< HEAD
mod image;
=======
mod death;
pub(crate) mod held;
>>>>>>> main
mod keeper;
mod many;
mod pause;
mod snapshot;
mod start;

use crate::row::Row;

/// All rows, in the order in which they are measured.
pub(crate) const ALL: &[Row] = &[
    start::ONE,
<<<<<<< HEAD
    snapshot::RESTORE,
    image::CACHED,
    image::UNPACK,
    image::EXT4,
    image::LAYERS,
=======
    many::START,
    many::END,
    pause::PAUSE_RESUME,
    snapshot::RESTORE,
    death::EVENT,
    held::MEMORY,
    held::IDLE,
>>>>>>> main
    keeper::MEMORY,
    keeper::START,
];
