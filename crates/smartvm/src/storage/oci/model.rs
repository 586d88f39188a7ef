//! What images are made of, as the OCI image specification and Docker's archives write it:
//! the members that matter here. Others are passed over, as the specification asks.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::spec::Arch;

/// Indexes within indexes are followed so deep.
pub(super) const MAX_DEPTH: usize = 4;
/// Largest manifest, index or configuration, in bytes.
pub(super) const MOST_JSON: u64 = 8 << 20;

/// A piece of an image, named by its content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

/// The machine that an image is for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    pub(super) architecture: String,
    pub(super) os: String,
}

impl Platform {
    pub(super) fn is(&self, arch: Arch) -> bool {
        self.os == "linux" && self.architecture == oci_name(arch)
    }
}

/// An architecture as images name it.
pub(super) fn oci_name(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
    }
}

/// A manifest of one image, or of one image for several machines.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    #[serde(default)]
    pub(super) config: Option<Descriptor>,
    #[serde(default)]
    pub(super) layers: Vec<Descriptor>,
    /// Those of an index.
    #[serde(default)]
    pub(super) manifests: Vec<Descriptor>,
}

/// One image of an archive that `docker save` made.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Vec<String>,
}

/// What an image says of itself.
#[derive(Debug, Deserialize)]
pub(super) struct ImageConfig {
    pub(super) architecture: String,
    pub(super) os: String,
    #[serde(default)]
    pub(super) config: Option<Settings>,
    pub(super) rootfs: Rootfs,
}

/// What an image says is run in it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Settings {
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) cmd: Option<Vec<String>>,
    pub(super) env: Option<Vec<String>>,
    pub(super) working_dir: Option<String>,
    pub(super) user: Option<String>,
}

/// The layers, as they are uncompressed.
#[derive(Debug, Deserialize)]
pub(super) struct Rootfs {
    pub(super) diff_ids: Vec<String>,
}

/// Whether a media type names a layer that is a tar archive, which is all that is taken.
pub(super) fn is_tar_layer(media_type: &str) -> bool {
    const PREFIXES: [&str; 3] = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
    ];
    let known = PREFIXES.iter().any(|prefix| {
        media_type
            .strip_prefix(prefix)
            .is_some_and(|rest| matches!(rest, "" | "+gzip" | "+zstd" | ".gzip" | ".zstd"))
    });
    // An archive need not say what is in it.
    known || media_type.is_empty()
}

/// Whether a media type names the configuration of an image: other things are kept in
/// registries too.
pub(super) fn is_config(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
    )
}
