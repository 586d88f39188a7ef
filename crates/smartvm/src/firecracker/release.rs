//! Firecracker's releases: fetched, verified before they are unpacked, kept by version and
//! architecture under `<dataDir>/bin/<version>/<arch>/`.

mod unpack;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::Version;
use crate::snapshot::Shelf;
use crate::spec::Arch;
use crate::storage::download::{Download, Downloader, Tell};
use crate::storage::lock::{FileLock, Sharing};
use crate::storage::store::Users;
use crate::vm::blocking;
use crate::{Error, ErrorKind, Result, durable};

/// Where the project publishes its releases. A mirror has the same paths below it.
pub const RELEASES: &str = "https://github.com/firecracker-microvm/firecracker/releases";

const MOST_ARCHIVE_BYTES: u64 = 256 << 20;
const MOST_DOCUMENT_BYTES: u64 = 1 << 20;
const LOCK_PATIENCE: Duration = Duration::from_secs(600);

/// A version of Firecracker that is installed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Installed {
    /// Its version.
    pub version: Version,
    /// Its architecture.
    pub arch: String,
    /// Its directory, with `firecracker` and usually `jailer` and `snapshot-editor`.
    pub dir: PathBuf,
}

/// The releases under one data directory.
#[derive(Debug, Clone)]
pub struct Releases {
    bin: PathBuf,
    from: String,
}

impl Releases {
    /// Those under `data_dir`, fetched from `mirror` or [`RELEASES`].
    pub fn new(data_dir: &Path, mirror: Option<&str>) -> Self {
        let from = mirror.unwrap_or(RELEASES).trim_end_matches('/').to_owned();
        Self {
            bin: data_dir.join("bin"),
            from,
        }
    }

    /// VMs of this runtime directory and snapshots on this shelf may use what is installed.
    pub fn serve(&self, runtime_dir: &Path, shelf: &Shelf) -> Result<()> {
        durable::private_dir(&self.bin)?;
        Users::of(&self.bin).serve(runtime_dir, shelf)
    }

    /// What is installed, the oldest first.
    pub fn installed(&self) -> Result<Vec<Installed>> {
        let mut found = Vec::new();
        for version in subdirectories(&self.bin)? {
            let Some(number) = named(&version) else {
                continue;
            };
            for arch in [Arch::X86_64, Arch::Aarch64] {
                let dir = version.join(arch.to_string());
                if dir.join("firecracker").is_file() {
                    found.push(Installed {
                        version: number,
                        arch: arch.to_string(),
                        dir,
                    });
                }
            }
            // As put there by hand.
            if version.join("firecracker").is_file() {
                found.push(Installed {
                    version: number,
                    arch: Arch::default().to_string(),
                    dir: version,
                });
            }
        }
        found.sort();
        Ok(found)
    }

    /// The newest release, as the release page tells.
    pub async fn latest(&self, downloader: &Downloader) -> Result<Version> {
        let url = format!("{}/latest", self.from);
        let page = downloader.text(&url, MOST_DOCUMENT_BYTES).await?;
        let by_tag = |text: &str| text.parse::<Version>().ok();
        // The page leads to `…/tag/vX.Y.Z`; a mirror may say it in a file.
        let last = page.url.rsplit('/').next().and_then(by_tag);
        let in_json = || {
            let value: serde_json::Value = serde_json::from_str(&page.text).ok()?;
            by_tag(value.get("tag_name")?.as_str()?)
        };
        last.or_else(in_json)
            .or_else(|| by_tag(page.text.trim()))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Corrupt,
                    format!("{url} doesn't tell which release is the latest"),
                )
                .hint("name the version, such as 1.12.1")
            })
    }

    /// Makes a version available: `latest`, or a number. What is there already needs no
    /// network; without one, `latest` is the newest there, which `warn` is told.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for an archive that isn't what its checksum says, or holds what
    /// a release doesn't; otherwise as for [`Downloader::file`].
    pub async fn install(
        &self,
        wanted: &str,
        arch: Arch,
        downloader: &Downloader,
        tell: &Tell,
        warn: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Installed> {
        let version = match wanted {
            "latest" => match self.latest(downloader).await {
                Ok(version) => version,
                Err(e) => {
                    let there = self.installed()?;
                    let newest = there.into_iter().rfind(|one| one.arch == arch.to_string());
                    let Some(newest) = newest else {
                        let what = "finding the latest release of Firecracker, none being there";
                        return Err(Error::new(e.kind(), what).because(e).hint(
                            "without a network, put one at <data dir>/bin/<version>/firecracker",
                        ));
                    };
                    warn(format!(
                        "Firecracker {} is used, the newest that is there: {e}",
                        newest.version
                    ));
                    return Ok(newest);
                }
            },
            number => number.parse()?,
        };
        let here = |one: &Installed| one.version == version && one.arch == arch.to_string();
        if let Some(there) = self.installed()?.into_iter().find(here) {
            return Ok(there);
        }
        self.fetch(version, arch, downloader, tell).await
    }

    async fn fetch(
        &self,
        version: Version,
        arch: Arch,
        downloader: &Downloader,
        tell: &Tell,
    ) -> Result<Installed> {
        let downloads = self.bin.join(".downloads");
        let (bin, made) = (self.bin.clone(), downloads.clone());
        blocking(move || {
            durable::private_dir(&bin)?;
            durable::private_dir(&made)
        })
        .await?;
        let name = format!("firecracker-v{version}-{arch}.tgz");
        let url = format!("{}/download/v{version}/{name}", self.from);
        let sums = downloader
            .text(&format!("{url}.sha256.txt"), MOST_DOCUMENT_BYTES)
            .await?;
        let sha256 = sums
            .text
            .split_whitespace()
            .next()
            .filter(|sum| crate::storage::checksum::is_sha256(sum))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Corrupt,
                    format!("{url}.sha256.txt holds no SHA-256"),
                )
            })?
            .to_owned();
        let archive = downloads.join(&name);
        let download = Download::builder()
            .url(url)
            .target(&archive)
            .sha256(sha256)
            .most_bytes(MOST_ARCHIVE_BYTES)
            .build();
        downloader.file(&download, tell).await?;
        let this = self.clone();
        blocking(move || {
            let lock = this.lock()?;
            let dir = this.place(version, arch);
            if !dir.exists() {
                unpack::release(&archive, version, arch, &dir)?;
            }
            match std::fs::remove_file(&archive) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("removing", &archive, e));
                }
                _ => {}
            }
            drop(lock);
            Ok(Installed {
                version,
                arch: arch.to_string(),
                dir,
            })
        })
        .await
    }

    /// Removes a version, for one architecture.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`] while a VM or a snapshot needs it, [`ErrorKind::NotFound`] if it isn't there.
    pub fn remove(&self, version: Version, arch: Arch) -> Result<()> {
        let here = |one: &Installed| one.version == version && one.arch == arch.to_string();
        let found = self.installed()?.into_iter().find(here).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("Firecracker {version} for {arch} isn't installed"),
            )
            .hint("`smartvm firecracker ls` lists what is")
        })?;
        let _lock = self.lock()?;
        if let Some(user) = Users::of(&self.bin).first(&|_, runs| runs == version)? {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("Firecracker {version} is in use by {user}"),
            )
            .hint("end the VM, or remove the snapshot, first"));
        }
        let failed = |e| Error::io("removing", &found.dir, e);
        let trash = tempfile::Builder::new()
            .prefix(".old-")
            .tempdir_in(&self.bin)
            .map_err(failed)?;
        std::fs::rename(&found.dir, trash.path().join("release")).map_err(failed)?;
        if let Some(parent) = found.dir.parent().filter(|&parent| parent != self.bin) {
            // Other architectures may be left there.
            let _not_empty = std::fs::remove_dir(parent);
        }
        trash.close().map_err(failed)
    }

    fn place(&self, version: Version, arch: Arch) -> PathBuf {
        self.bin.join(version.to_string()).join(arch.to_string())
    }

    fn lock(&self) -> Result<FileLock> {
        let path = self.bin.join(".lock");
        FileLock::wait(&path, Sharing::Alone, LOCK_PATIENCE, &|| false)
    }
}

/// The version that a directory is named after, as it is written.
fn named(dir: &Path) -> Option<Version> {
    let name = dir.file_name()?.to_str()?;
    let version: Version = name.parse().ok()?;
    (version.to_string() == name).then_some(version)
}

fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io("reading", dir, e)),
    }
}

#[cfg(test)]
mod tests;
