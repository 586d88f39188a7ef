//! The rows: a file for each group.

mod death;
pub(crate) mod held;
mod image;
mod jail;
mod keeper;
mod many;
mod network;
mod pause;
mod snapshot;
mod start;
mod traffic;

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
    network::ONE,
    network::ONE_BY_COMMANDS,
    network::MANY_ROW,
    network::MANY_BY_COMMANDS,
    traffic::RULES,
    traffic::THROUGHPUT,
];
