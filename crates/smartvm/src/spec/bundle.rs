//! A base image bundle that is in the store.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

use super::{Arch, BaseImagePreset, RootfsType};

/// What the store knows of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct BaseImageBundle {
    /// Preset it was asked for by.
    pub preset: BaseImagePreset,
    /// Architecture.
    pub arch: Arch,
    /// Version of the CI images it is from, such as `v1.12`.
    #[builder(setter(into))]
    pub ci_version: String,
    /// Version of Firecracker it is meant for.
    #[builder(setter(into))]
    pub firecracker_version: String,
    /// Name of the bundle: letters, digits, `.`, `_` and `-`.
    #[builder(setter(into))]
    pub bundle_id: String,
    /// Its directory.
    #[builder(setter(into))]
    pub bundle_dir: PathBuf,
    /// Its kernel.
    #[builder(setter(into))]
    pub kernel_image_path: PathBuf,
    /// Its root file system.
    #[builder(setter(into))]
    pub rootfs_path: PathBuf,
    /// Type of its root file system.
    pub rootfs_type: RootfsType,
    /// Whether its root file system must not be written.
    pub rootfs_is_read_only: bool,
    /// Kernel boot arguments.
    #[builder(setter(into))]
    pub boot_args: String,
    /// Where it came from.
    #[builder(default, setter(into))]
    pub source: BaseImageSource,
    /// Checksums of what it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub checksums: Option<BaseImageChecksums>,
    /// Sizes of what it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub sizes: Option<BaseImageSizes>,
    /// When it was made, as in RFC 3339: `2026-11-24T04:10:05Z`.
    #[builder(setter(into))]
    pub created_at: String,
    /// When it was last used, as in RFC 3339.
    #[builder(setter(into))]
    pub last_accessed_at: String,
}

/// Where a bundle came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct BaseImageSource {
    /// What kind of place.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub kind: Option<BaseImageSourceKind>,
    /// URL of the CI bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub bucket_url: Option<String>,
    /// Key of the kernel in the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub kernel_key: Option<String>,
    /// Key of the root file system in the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub rootfs_key: Option<String>,
    /// URL of the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub manifest_url: Option<String>,
    /// Path of the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub manifest_path: Option<PathBuf>,
    /// URL of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub kernel_url: Option<String>,
    /// URL of the root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub rootfs_url: Option<String>,
    /// Path that the kernel was copied from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub kernel_source_path: Option<PathBuf>,
    /// Path that the root file system was copied from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub rootfs_source_path: Option<PathBuf>,
}

/// A kind of place that bundles come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BaseImageSourceKind {
    /// The bucket of Firecracker's CI.
    FirecrackerCi,
    /// A hosted manifest.
    HostedManifest,
}

/// SHA-256 checksums, in lower-case hexadecimal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct BaseImageChecksums {
    /// Of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub kernel_sha256: Option<String>,
    /// Of the root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub rootfs_sha256: Option<String>,
}

/// Sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct BaseImageSizes {
    /// Of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub kernel_bytes: Option<u64>,
    /// Of the root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub rootfs_bytes: Option<u64>,
}
