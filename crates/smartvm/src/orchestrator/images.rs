//! Binaries and base images, as the options say.

use std::sync::Arc;

use super::SmartVm;
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Binary;
use crate::firecracker::release::{Installed, Releases};
use crate::spec::{BaseImageManagerOptions, EnsureBaseImageOptions, SmartVmOptions};
use crate::storage::download::{Downloader, Settings, Tell};
use crate::storage::image::{self, BaseImages};
#[cfg(feature = "oci")]
use crate::storage::oci::registry::Credentials;
use crate::storage::store::Held;

/// How binaries and images come from the network.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Sources {
    /// Proxies, certificates, patience.
    pub downloads: Settings,
    /// A mirror of Firecracker's releases.
    pub releases: Option<String>,
    /// A mirror of the bucket of Firecracker's CI.
    pub bucket: Option<String>,
    /// Who asks registries for images.
    #[cfg(feature = "oci")]
    pub credentials: Credentials,
}

/// The options of base images that are part of the orchestrator's.
pub fn base_image_options(options: &SmartVmOptions) -> BaseImageManagerOptions {
    BaseImageManagerOptions {
        arch: Some(options.arch()),
        cache_dir: Some(options.base_image_cache_dir()),
        max_stored_base_images: Some(options.max_stored_base_images()),
        hosted_manifest_url: options.base_image_manifest_url.clone(),
        hosted_manifest_path: options.base_image_manifest_path.clone(),
    }
}

impl SmartVm {
    /// Firecracker's releases in the data directory.
    pub fn releases(&self) -> Result<Releases> {
        let mirror = self.parts.sources.releases.as_deref();
        let releases = Releases::new(self.options.data_dir(), mirror);
        releases.serve(self.runtime.path(), &self.shelf())?;
        Ok(releases)
    }

    /// What fetches things.
    pub fn downloader(&self) -> Result<Downloader> {
        Downloader::new(&self.parts.sources.downloads)
    }

    /// The base images, in the directory that the options name.
    pub fn base_images(&self) -> Result<BaseImages> {
        let images = BaseImages::open(
            base_image_options(&self.options),
            self.options.data_dir().join("verified"),
            self.downloader()?,
            self.parts.sources.bucket.as_deref(),
        )?;
        images.store().serve(self.runtime.path(), &self.shelf())?;
        Ok(images)
    }

    /// Makes Firecracker available: the executable that the options name, else the version
    /// that they name, else the newest that is there, else the latest release.
    ///
    /// # Errors
    /// As for [`Releases::install`].
    pub async fn ensure_binary(&self, tell: &Tell) -> Result<&Binary> {
        let missing = match self.binary() {
            Err(missing)
                if missing.kind() == ErrorKind::Host
                    && self.options.firecracker_binary_path.is_none() =>
            {
                missing
            }
            found => return found,
        };
        let wanted = self.options.firecracker_version.as_deref();
        if let Err(failed) = self.install(wanted.unwrap_or("latest"), tell).await {
            let hint = missing.way_out().unwrap_or_default().to_owned();
            let what = format!("{missing}, and it can't be fetched");
            return Err(Error::new(ErrorKind::Host, what).because(failed).hint(hint));
        }
        self.binary()
    }

    /// Installs a release of Firecracker, by number or `latest`.
    ///
    /// # Errors
    /// As for [`Releases::install`].
    pub async fn install(&self, version: &str, tell: &Tell) -> Result<Installed> {
        let (releases, downloader) = (self.releases()?, self.downloader()?);
        let warn = |what: String| tracing::warn!("{what}");
        releases
            .install(version, self.options.arch(), &downloader, tell, &warn)
            .await
    }

    /// Makes a base image available, see [`BaseImages::ensure`].
    ///
    /// # Errors
    /// As there.
    pub async fn ensure_base_image(
        &self,
        options: &EnsureBaseImageOptions,
        tell: &image::Tell,
    ) -> Result<Held> {
        let images = self.base_images()?;
        let passed = Arc::clone(tell);
        let tell: image::Tell = Arc::new(move |event| {
            match &event {
                image::Event::Warning(what) => tracing::warn!("{what}"),
                image::Event::Store(event) => tracing::warn!("base images: {event}"),
                image::Event::Download(_) => {}
            }
            passed(event);
        });
        images.ensure(options, &tell).await
    }
}
