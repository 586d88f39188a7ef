//! The requests about snapshots, for the version that runs.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Version;
use crate::firecracker::client::{Method, Request};
use crate::spec::SnapshotType;

#[derive(Serialize)]
struct CreateBody<'a> {
    snapshot_path: &'a str,
    mem_file_path: &'a str,
    snapshot_type: SnapshotType,
}

#[derive(Serialize)]
struct LoadBody<'a> {
    snapshot_path: &'a str,
    mem_backend: MemBackend<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enable_diff_snapshots: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    track_dirty_pages: Option<bool>,
    resume_vm: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    network_overrides: Vec<NetworkOverride<'a>>,
}

#[derive(Serialize)]
struct MemBackend<'a> {
    backend_type: &'static str,
    backend_path: &'a str,
}

#[derive(Serialize)]
struct NetworkOverride<'a> {
    iface_id: &'a str,
    host_dev_name: &'a str,
}

/// What is loaded, seen from Firecracker's working directory.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// The state file.
    pub state: &'a str,
    /// The memory file.
    pub memory: &'a str,
    /// Whether what changes from now on is tracked.
    pub track: bool,
    /// Whether the guest runs on at once.
    pub resume: bool,
    /// The TAP of each interface, by its id.
    pub taps: &'a BTreeMap<String, String>,
}

/// Writes state and memory of a paused VM.
pub fn create(state: &Path, memory: &Path, kind: SnapshotType) -> Result<Request> {
    fn text(path: &Path) -> Result<&str> {
        path.to_str().ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "the snapshot's path is not UTF-8").at(path)
        })
    }
    let body = CreateBody {
        snapshot_path: text(state)?,
        mem_file_path: text(memory)?,
        snapshot_type: kind,
    };
    Request::new(Method::Put, "/snapshot/create", &body)
}

/// Loads state and memory into a fresh Firecracker.
///
/// # Errors
/// Other TAPs than those of the snapshot with a Firecracker before 1.12.
pub fn load(what: Load<'_>, version: Version) -> Result<Request> {
    let overrides_since = Version::new(1, 12, 0);
    if !what.taps.is_empty() && version < overrides_since {
        let message = format!("Firecracker {version} can't give a restored VM its TAPs");
        return Err(Error::new(ErrorKind::Host, message)
            .hint(format!("use Firecracker {overrides_since} or newer")));
    }
    let renamed = version >= Version::new(1, 13, 0);
    let body = LoadBody {
        snapshot_path: what.state,
        mem_backend: MemBackend {
            backend_type: "File",
            backend_path: what.memory,
        },
        enable_diff_snapshots: (!renamed).then_some(what.track),
        track_dirty_pages: renamed.then_some(what.track),
        resume_vm: what.resume,
        network_overrides: what
            .taps
            .iter()
            .map(|(iface_id, host_dev_name)| NetworkOverride {
                iface_id,
                host_dev_name,
            })
            .collect(),
    };
    Request::new(Method::Put, "/snapshot/load", &body)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body(version: Version, track: bool, resume: bool, taps: &[(&str, &str)]) -> Result<Value> {
        let taps = taps
            .iter()
            .map(|(iface, tap)| ((*iface).to_owned(), (*tap).to_owned()))
            .collect();
        let what = Load {
            state: "s",
            memory: "m",
            track,
            resume,
            taps: &taps,
        };
        Ok(serde_json::from_slice(load(what, version)?.body()).unwrap())
    }

    #[test]
    fn tracking_has_the_name_that_the_version_knows() {
        let old = body(Version::new(1, 12, 1), true, false, &[]).unwrap();
        let backend = json!({ "backend_type": "File", "backend_path": "m" });
        let expected = json!({
            "snapshot_path": "s", "mem_backend": backend,
            "enable_diff_snapshots": true, "resume_vm": false,
        });
        assert_eq!(old, expected);
        let new = body(Version::new(1, 13, 0), true, true, &[]).unwrap();
        let expected = json!({
            "snapshot_path": "s", "mem_backend": backend,
            "track_dirty_pages": true, "resume_vm": true,
        });
        assert_eq!(new, expected);
    }

    #[test]
    fn taps_are_overridden_from_1_12_on() {
        let taps = [("eth0", "tap7")];
        let body_now = body(Version::new(1, 12, 0), false, false, &taps).unwrap();
        let expected = json!([{ "iface_id": "eth0", "host_dev_name": "tap7" }]);
        assert_eq!(body_now["network_overrides"], expected);
        let refused = body(Version::new(1, 11, 0), false, false, &taps).unwrap_err();
        assert!(refused.way_out().unwrap().contains("1.12.0"));
    }
}
