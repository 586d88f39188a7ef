//! Parameters of making and loading a snapshot.

use std::path::Path;

use super::report::Report;
use crate::spec::{Problems, SnapshotCreateParams, SnapshotLoadParams};

/// Checks where a snapshot goes.
pub fn validate_snapshot_create(params: &SnapshotCreateParams) -> Result<(), Problems> {
    files(&params.snapshot_path, &params.mem_file_path)
}

/// Checks which snapshot is loaded.
pub fn validate_snapshot_load(params: &SnapshotLoadParams) -> Result<(), Problems> {
    files(&params.snapshot_path, &params.mem_file_path)
}

fn files(state: &Path, memory: &Path) -> Result<(), Problems> {
    let mut report = Report::default();
    report.file("snapshotPath", state);
    report.file("memFilePath", memory);
    report.demand(
        state != memory,
        "memFilePath",
        || "is the same file as `snapshotPath`".into(),
        "a file of its own",
    );
    report.into_problems().into_result()
}
