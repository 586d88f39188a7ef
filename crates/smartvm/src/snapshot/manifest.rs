//! What a snapshot says of itself, with a checksum over all of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::host::Origin;
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::name::VmId;
use crate::spec::{MicroVmSpec, SnapshotType};
use crate::storage::checksum::sha256_of;
use crate::wiring::Lease;

/// The format of the manifest that this version writes.
pub const FORMAT: u32 = 1;
/// What a manifest may have at most, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// All that is known of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    /// Tells this snapshot from every other.
    pub id: String,
    /// The VM that it was made of.
    pub vm: VmId,
    /// When (RFC 3339).
    pub created_at: String,
    /// Whether it holds all of the memory, or what changed since its parent.
    pub kind: SnapshotType,
    /// Where it was made: it only runs on a host like that.
    pub origin: Origin,
    /// The newest version of the agent's protocol that the guest's agent spoke; absent if no
    /// agent answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<u32>,
    /// The state of the virtual machine.
    pub state: FileSum,
    /// The memory.
    pub memory: FileSum,
    /// The drives, in the spec's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drives: Vec<DriveFile>,
    /// Where Firecracker binds the vsock device's socket, seen from its directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<String>,
    /// What the guest's interfaces had of the network: the addresses are inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<Lease>,
    /// What a diff builds on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The VM as it was asked for.
    pub spec: MicroVmSpec,
}

/// A file's size and checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSum {
    /// Size in bytes, holes included.
    pub size_bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// A drive as it was when the snapshot was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DriveFile {
    /// The drive's id.
    pub drive_id: String,
    /// Its path as Firecracker knows it, seen from its directory: `drives/NAME`. The copy
    /// in the snapshot has the same name.
    pub path: String,
    /// Whether the guest may not write it: then restored VMs share the copy.
    pub read_only: bool,
    /// Size and checksum.
    pub sum: FileSum,
}

/// The snapshot that a diff builds on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parent {
    /// Its id.
    pub id: String,
    /// Its state file.
    pub snapshot_path: PathBuf,
    /// Its memory file.
    pub mem_file_path: PathBuf,
}

impl Manifest {
    /// Writes it, whole and durable.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let encode = |e: serde_json::Error| {
            Error::new(ErrorKind::Io, format!("encoding {}", path.display())).because(e)
        };
        let body = serde_json::to_value(self).map_err(encode)?;
        let document = serde_json::json!({
            "format": FORMAT,
            "sha256": sum(&body),
            "snapshot": body,
        });
        let bytes = serde_json::to_vec_pretty(&document).map_err(encode)?;
        durable::write_whole(path, &bytes)
    }

    /// Reads and verifies it; `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for a damaged one and for a newer format.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let Some(bytes) = durable::read_bounded(path, MOST_BYTES)? else {
            return Ok(None);
        };
        Self::parse(&bytes, path).map(Some)
    }

    /// The manifest in `bytes`, verified; `path` is what errors name.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Document {
            sha256: String,
            snapshot: Value,
        }
        let damaged = |why: String| {
            let message = format!(
                "the snapshot's manifest {} is damaged: {why}",
                path.display()
            );
            Error::new(ErrorKind::Corrupt, message).at(path)
        };
        let document: Value = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        let format = document.get("format").and_then(Value::as_u64);
        let format = format.and_then(|format| u32::try_from(format).ok());
        match format {
            Some(FORMAT) => {}
            Some(newer) if newer > FORMAT => {
                return Err(durable::newer_format(path, newer, FORMAT));
            }
            _ => return Err(damaged("it has no known format".into())),
        }
        let document: Document =
            serde_json::from_value(document).map_err(|e| damaged(e.to_string()))?;
        if sum(&document.snapshot) != document.sha256 {
            return Err(damaged("its checksum is another".into()));
        }
        let manifest: Self =
            serde_json::from_value(document.snapshot).map_err(|e| damaged(e.to_string()))?;
        // Names out of a manifest are joined to paths: they may not lead elsewhere.
        for drive in &manifest.drives {
            if drive_name(&drive.path).is_none() {
                return Err(damaged(format!(
                    "drive path {:?} leads elsewhere",
                    drive.path
                )));
            }
        }
        if let Some(vsock) = &manifest.vsock
            && !is_below(vsock)
        {
            return Err(damaged(format!("vsock path {vsock:?} leads elsewhere")));
        }
        Ok(manifest)
    }
}

/// The name of a drive's file, out of the path that Firecracker knows: `drives/NAME`.
pub(crate) fn drive_name(path: &str) -> Option<&str> {
    let name = path.strip_prefix("drives/")?;
    (is_below(name) && !name.contains('/')).then_some(name)
}

/// Whether a relative path stays below where it begins.
fn is_below(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)))
}

/// The checksum of a JSON value, whatever its white space was.
fn sum(body: &Value) -> String {
    sha256_of(body.to_string().as_bytes())
}
