//! Which base image, and where base images are kept.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

use super::Arch;

/// A source of base images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum BaseImagePreset {
    /// The newest of Firecracker's CI images.
    #[default]
    Latest,
    /// Firecracker's CI images of version 1.7.
    Lts,
    /// A manifest of one's own, by URL or by path.
    Hosted,
}

/// Type of a root file system image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum RootfsType {
    /// ext4: can be writable.
    Ext4,
    /// squashfs: compressed, read-only.
    Squashfs,
}

/// Options of the store of base images.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct BaseImageManagerOptions {
    /// Architecture. Default: `x86_64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub arch: Option<Arch>,
    /// Directory for bundles. Default: `/tmp/.smartvm/base-images`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub cache_dir: Option<PathBuf>,
    /// Largest number of bundles kept, at least 1. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[builder(default, setter(strip_option))]
    pub max_stored_base_images: Option<u32>,
    /// URL of a hosted manifest. Excludes `hostedManifestPath`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub hosted_manifest_url: Option<String>,
    /// Path of a hosted manifest, for development and tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub hosted_manifest_path: Option<PathBuf>,
}

/// Which bundle to make available.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct EnsureBaseImageOptions {
    /// Source. Default: `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub preset: Option<BaseImagePreset>,
    /// Architecture. Default: the store's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub arch: Option<Arch>,
    /// Whether to download a bundle that is already there. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub force_download: Option<bool>,
    /// URL of a hosted manifest, instead of `preset`. Excludes `manifestPath`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub manifest_url: Option<String>,
    /// Path of a hosted manifest, instead of `preset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub manifest_path: Option<PathBuf>,
}
