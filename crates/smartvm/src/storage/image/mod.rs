//! Base images: Firecracker's own from its CI, or those of a hosted manifest, in the store.

mod assemble;
mod hosted;
mod listing;
mod preset;

use std::path::PathBuf;
use std::sync::Arc;

pub use preset::BUCKET;

use super::download::{self, Downloader};
use super::store::{self, Held, Store};
use crate::spec::options::{DEFAULT_DATA_DIR, DEFAULT_MAX_STORED_BASE_IMAGES};
use crate::spec::{Arch, BaseImageManagerOptions, BaseImagePreset, EnsureBaseImageOptions};
use crate::vm::blocking;
use crate::{Error, ErrorKind, Result};

/// What happens while an image is made available.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Something of the image is being downloaded.
    Download(download::Event),
    /// The store made room, or couldn't.
    Store(store::Event),
    /// Something that the user should know.
    Warning(String),
}

/// Gets what happens.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// Makes base images available.
#[derive(Debug, Clone)]
pub struct BaseImages {
    store: Store,
    options: BaseImageManagerOptions,
    downloader: Downloader,
    bucket: String,
    /// Where it is noted that an image is verified.
    verified: PathBuf,
}

impl BaseImages {
    /// Opens the store. The CI's bucket is [`BUCKET`], unless `bucket` is another.
    pub fn open(
        options: BaseImageManagerOptions,
        verified: PathBuf,
        downloader: Downloader,
        bucket: Option<&str>,
    ) -> Result<Self> {
        let default = || PathBuf::from(DEFAULT_DATA_DIR).join("base-images");
        let dir = options.cache_dir.clone().unwrap_or_else(default);
        Ok(Self {
            store: Store::open(&dir)?,
            options,
            downloader,
            bucket: bucket.unwrap_or(BUCKET).trim_end_matches('/').to_owned(),
            verified,
        })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Makes an image available: what is in the store already is taken from there. Images that
    /// can be fetched again then go until at most `maxStoredBaseImages` are left, but never
    /// one in use.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where the options exclude each other or the manifest is wrong;
    /// otherwise as for [`Downloader::file`].
    pub async fn ensure(&self, options: &EnsureBaseImageOptions, tell: &Tell) -> Result<Held> {
        let arch = options.arch.or(self.options.arch).unwrap_or_default();
        let force = options.force_download.unwrap_or(false);
        let held = match self.source(options)? {
            Source::Url(url) => self.hosted_by_url(&url, arch, force, tell).await?,
            Source::Path(path) => self.hosted_by_path(path, arch, force, tell).await?,
            Source::Ci(preset) => self.preset(preset, arch, force, tell).await?,
        };
        let most = self
            .options
            .max_stored_base_images
            .unwrap_or(DEFAULT_MAX_STORED_BASE_IMAGES);
        let (store, verified) = (self.store.clone(), self.verified.clone());
        let (held, events) = blocking(move || {
            held.bundle().mark_verified(&verified)?;
            store.drop_stale_downloads()?;
            store.sweep()?;
            let name = held.bundle().dir().file_name().unwrap_or_default();
            let events = store.evict(most, &name.to_string_lossy())?;
            Ok((held, events))
        })
        .await?;
        for event in events {
            tell(Event::Store(event));
        }
        Ok(held)
    }

    fn source(&self, options: &EnsureBaseImageOptions) -> Result<Source> {
        let usage = |what: &str, hint: &str| Error::new(ErrorKind::Invalid, what).hint(hint);
        let one = |url: &Option<String>, path: &Option<PathBuf>| match (url, path) {
            (Some(_), Some(_)) => Err(usage(
                "a hosted manifest is given by URL and by path",
                "give one of them",
            )),
            (Some(url), None) => Ok(Some(Source::Url(url.clone()))),
            (None, Some(path)) => Ok(Some(Source::Path(path.clone()))),
            (None, None) => Ok(None),
        };
        if let Some(own) = one(&options.manifest_url, &options.manifest_path)? {
            return Ok(own);
        }
        let preset = options.preset.unwrap_or_default();
        if preset != BaseImagePreset::Hosted {
            return Ok(Source::Ci(preset));
        }
        one(
            &self.options.hosted_manifest_url,
            &self.options.hosted_manifest_path,
        )?
        .ok_or_else(|| {
            usage(
                "the preset `hosted` needs a manifest",
                "give its URL or its path (--manifest-url, --manifest-path, \
                 baseImageManifestUrl, baseImageManifestPath)",
            )
        })
    }
}

enum Source {
    Url(String),
    Path(PathBuf),
    Ci(BaseImagePreset),
}

fn other_arch(what: &str, is: Arch, wanted: Arch) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("{what} is for {is}, {wanted} is wanted"),
    )
}

#[cfg(test)]
mod tests;
