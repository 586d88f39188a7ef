//! The manifest of a bundle: what it holds, for which machine, and how to tell that it is
//! whole.

use std::fs::File;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

use super::checksum::is_sha256;
use crate::spec::{Arch, Problem, Problems, RootfsType};
use crate::{Error, ErrorKind, Result};

/// The one version of the format there is.
pub const SCHEMA_VERSION: u32 = 1;

/// Longest boot arguments that Firecracker takes, in bytes.
const MAX_BOOT_ARGS: usize = 2048;

/// Longest name of a bundle: also a directory's.
const MAX_BUNDLE_ID: usize = 128;

/// One file of a bundle. It is at `url` or at `path`, not both.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct ArtifactManifest {
    /// Where it can be downloaded, by http or https. Needs `sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub url: Option<String>,
    /// Where it is on disk, relative to the manifest's directory and inside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub path: Option<PathBuf>,
    /// Name of the file once it is downloaded, without a directory. Default: the last part of
    /// `url` or `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub file_name: Option<String>,
    /// SHA-256 of the file: 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-fA-F]{64}$"))]
    #[builder(default, setter(into, strip_option))]
    pub sha256: Option<String>,
    /// Size of the file in bytes, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[builder(default, setter(strip_option))]
    pub size_bytes: Option<u64>,
}

/// What a bundle is made of: a kernel, an optional initramfs and a root file system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct BundleManifest {
    /// Version of this format: 1.
    #[schemars(range(min = 1, max = 1))]
    #[builder(default = SCHEMA_VERSION)]
    pub schema_version: u32,
    /// Name of the bundle: letters, digits, `.`, `_` and `-`, at most 128.
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{1,128}$"))]
    #[builder(setter(into))]
    pub bundle_id: String,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub name: Option<String>,
    /// Architecture of the kernel and of the programs.
    pub arch: Arch,
    /// Version of Firecracker it was made for, such as `1.12.1`.
    #[builder(setter(into))]
    pub firecracker_version: String,
    /// Type of the root file system.
    pub rootfs_type: RootfsType,
    /// Whether the root file system must not be written. Default: true for squashfs, which
    /// can't be written, false for ext4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub rootfs_is_read_only: Option<bool>,
    /// Boot arguments of the kernel, at most 2048 bytes; without `root=`, which Firecracker
    /// adds. Default: [`BundleManifest::default_boot_args`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub boot_args: Option<String>,
    /// The kernel, uncompressed.
    pub kernel: ArtifactManifest,
    /// The initramfs: the guest agent and the modules that the kernel needs to boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub initrd: Option<ArtifactManifest>,
    /// The root file system.
    pub rootfs: ArtifactManifest,
}

impl BundleManifest {
    /// Everything that is wrong, each with the path of its field.
    pub fn validate(&self) -> Result<(), Problems> {
        let mut problems = Problems::default();
        let mut wrong = |path: &str, problem: &str, allowed: &str| {
            problems.push(Problem::new(path, problem, allowed));
        };
        if self.schema_version != SCHEMA_VERSION {
            let what = format!("is {}", self.schema_version);
            wrong("schemaVersion", &what, "1");
        }
        if !is_bundle_id(&self.bundle_id) {
            wrong(
                "bundleId",
                &format!("is {:?}", self.bundle_id),
                "1 to 128 letters, digits, `.`, `_` and `-`, but not `.` or `..`",
            );
        }
        if !is_firecracker_version(&self.firecracker_version) {
            wrong(
                "firecrackerVersion",
                &format!("is {:?}", self.firecracker_version),
                "a version such as 1.12.1, or `latest`",
            );
        }
        if self.rootfs_type == RootfsType::Squashfs && self.rootfs_is_read_only == Some(false) {
            wrong(
                "rootfsIsReadOnly",
                "is false for squashfs",
                "true, or nothing",
            );
        }
        if let Some(args) = &self.boot_args {
            if args.len() > MAX_BOOT_ARGS {
                let what = format!("is {} bytes long", args.len());
                wrong("bootArgs", &what, "at most 2048 bytes");
            }
            if args.chars().any(char::is_control) {
                wrong(
                    "bootArgs",
                    "contains a control character",
                    "one line of text",
                );
            }
        }
        for (field, artifact) in self.artifacts() {
            artifact.validate(field, &mut problems);
        }
        problems.into_result()
    }

    /// Writes it as the manifest of a new bundle in `dir`.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        self.validate()
            .map_err(|problems| problems.about("the new bundle's manifest"))?;
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|cause| Error::new(ErrorKind::Invalid, "writing a manifest").because(cause))?;
        text.push('\n');
        let path = dir.join(super::bundle::MANIFEST);
        File::create_new(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|cause| Error::io("writing", path, cause))
    }

    /// The files, each with the name of its field.
    pub fn artifacts(&self) -> impl Iterator<Item = (&'static str, &ArtifactManifest)> {
        [
            ("kernel", Some(&self.kernel)),
            ("initrd", self.initrd.as_ref()),
            ("rootfs", Some(&self.rootfs)),
        ]
        .into_iter()
        .filter_map(|(field, artifact)| Some((field, artifact?)))
    }

    /// Boot arguments for a kernel whose drivers come as modules: a console on the serial
    /// port, a panic ends the VM, and nothing is searched for that Firecracker doesn't have.
    pub fn default_boot_args(arch: Arch) -> &'static str {
        match arch {
            Arch::Aarch64 => {
                "console=ttyS0 reboot=k panic=1 pci=off 8250.nr_uarts=1 quiet loglevel=1"
            }
            _ => {
                "console=ttyS0 reboot=k panic=1 pci=off 8250.nr_uarts=1 i8042.noaux i8042.nomux \
                 i8042.dumbkbd quiet loglevel=1"
            }
        }
    }
}

impl ArtifactManifest {
    fn validate(&self, field: &str, problems: &mut Problems) {
        let mut wrong = |name: &str, problem: String, allowed: &str| {
            let path = match name {
                "" => field.to_owned(),
                name => format!("{field}.{name}"),
            };
            problems.push(Problem::new(path, problem, allowed));
        };
        match (&self.url, &self.path) {
            (Some(_), Some(_)) => wrong("", "has both url and path".into(), "one of them"),
            (None, None) => wrong("", "has neither url nor path".into(), "one of them"),
            _ => {}
        }
        if let Some(url) = &self.url {
            let host = ["https://", "http://"]
                .iter()
                .find_map(|scheme| url.strip_prefix(scheme));
            if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
                wrong("url", format!("is {url:?}"), "an http or https URL");
            }
            if self.sha256.is_none() {
                wrong("sha256", "is missing".into(), "needed for what has a url");
            }
            if self.file_name.is_none() && self.local_path().is_none() {
                wrong(
                    "fileName",
                    "is missing".into(),
                    "needed where the url doesn't end in a name",
                );
            }
        }
        if let Some(path) = &self.path
            && !is_inside(path)
        {
            wrong(
                "path",
                format!("is {:?}", path.display().to_string()),
                "a path relative to the manifest, without `..`",
            );
        }
        if let Some(name) = &self.file_name
            && !is_file_name(name)
        {
            wrong(
                "fileName",
                format!("is {name:?}"),
                "a name without a directory",
            );
        }
        if let Some(sha256) = &self.sha256
            && !is_sha256(sha256)
        {
            wrong("sha256", format!("is {sha256:?}"), "64 hexadecimal digits");
        }
        if self.size_bytes == Some(0) {
            wrong("sizeBytes", "is 0".into(), "at least 1");
        }
    }

    /// Where the file is, relative to the manifest: its path, or where a download puts it.
    /// `None` if neither can be told.
    pub fn local_path(&self) -> Option<PathBuf> {
        if let Some(path) = &self.path {
            return is_inside(path).then(|| path.clone());
        }
        let name = match (&self.file_name, &self.url) {
            (Some(name), _) => name.as_str(),
            (None, Some(url)) => {
                let path = url.split(['?', '#']).next().unwrap_or(url);
                let (_, after_scheme) = path.split_once("://")?;
                after_scheme.split_once('/')?.1.rsplit('/').next()?
            }
            (None, None) => return None,
        };
        is_file_name(name).then(|| PathBuf::from(name))
    }
}

fn is_firecracker_version(text: &str) -> bool {
    let numbers = text.strip_prefix('v').unwrap_or(text);
    // Releases are named by two numbers where any patch of them will do.
    text == "latest"
        || [numbers, &format!("{numbers}.0")]
            .iter()
            .any(|version| version.parse::<crate::firecracker::Version>().is_ok())
}

/// Whether this can name a bundle.
pub fn is_bundle_id(id: &str) -> bool {
    (1..=MAX_BUNDLE_ID).contains(&id.len())
        && id != "."
        && id != ".."
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn is_file_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\', '\0'])
}

/// Whether a path stays in the directory that it is joined to.
fn is_inside(path: &Path) -> bool {
    let mut normal = false;
    path.components().all(|part| match part {
        Component::Normal(_) => {
            normal = true;
            true
        }
        Component::CurDir => true,
        _ => false,
    }) && normal
        && !path.as_os_str().as_encoded_bytes().contains(&0)
}

#[cfg(test)]
#[path = "manifest/tests.rs"]
mod tests;
