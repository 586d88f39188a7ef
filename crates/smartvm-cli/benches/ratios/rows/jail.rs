//! Starting jailed VMs.

use std::path::Path;

use smartvm::spec::{Jail, JailMode};

use super::start::against_raw;
use crate::corner::Corner;
use crate::figures::Figures;
use crate::row::Row;

pub(crate) const START: Row = Row {
    name: "start-jailed",
    about: "creating and starting one jailed VM / the same by the jailer and raw API calls",
    target: Some(1.15),
    measure: start,
};

fn start(corner: &Corner, pairs: usize) -> Figures {
    // Where device nodes and execution are allowed, as /dev/shm often doesn't.
    let base = tempfile::Builder::new()
        .prefix("smartvm-bench-jail-")
        .tempdir_in(Path::new("/var/tmp"))
        .expect("a directory for chroots");
    let mut spec = corner.small();
    spec.jail = Some(
        Jail::builder()
            .mode(JailMode::Required)
            .chroot_base(base.path())
            .build(),
    );
    against_raw(corner, &spec, pairs)
}
