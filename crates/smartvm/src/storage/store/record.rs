//! What the store knows of an image besides its manifest.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::spec::BaseImageBundle;
use crate::{Error, ErrorKind, Result, durable};

const FILE: &str = "image.json";
const FORMAT: u32 = 1;

/// Where an image came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Origin {
    /// Firecracker's CI images.
    Preset,
    /// A hosted manifest.
    Hosted,
    /// A registry.
    Pulled,
    /// An archive or a directory.
    Imported,
    /// Made from a kernel and a root file system.
    Built,
    /// A copy of another image.
    Cloned,
}

impl Origin {
    /// Whether it can be fetched again, so that it may go when there are too many. What the
    /// user brought goes only when the user says so.
    pub fn is_replaceable(self) -> bool {
        matches!(self, Self::Preset | Self::Hosted)
    }
}

/// What the store knows of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Record {
    /// Where it came from.
    pub origin: Origin,
    /// When it was made, as in RFC 3339.
    pub created_at: String,
    /// What is known of a preset's or a hosted bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_image: Option<BaseImageBundle>,
    /// What is known of an image by whoever brought it: where it was pulled from, what it
    /// runs. Its shape is theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}

impl Record {
    /// A record of now.
    pub fn new(origin: Origin) -> Self {
        Self {
            origin,
            created_at: crate::teardown::now(),
            base_image: None,
            details: None,
        }
    }

    pub(super) fn read(dir: &Path) -> Result<Self> {
        durable::read_state(&dir.join(FILE), FORMAT)?.ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                format!("{} isn't whole: it has no {FILE}", dir.display()),
            )
            .at(dir)
            .hint("remove it (smartvm image rm), and fetch or build it again")
        })
    }

    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        durable::write_state(&dir.join(FILE), FORMAT, self)
    }
}
