//! Fetching files by http and https: resumed after a break, verified while they stream, by
//! one process at a time, and never seen under their name before they are whole.
//!
//! ```text
//!  lock ─▶ there already? ─▶ GET (Range, If-Range) ─▶ write and hash ─▶ verify ─▶ rename
//!                              ▲      │ a break, 429, 5xx                 │ altered
//!                              └─ back off ◀───────────────────────────────  an error
//! ```

mod attempt;
mod client;
mod document;
mod part;
mod resolver;
mod retry;
mod settings;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use typed_builder::TypedBuilder;

pub use client::Downloader;
pub use document::Text;
pub use settings::{Patience, Proxies, Settings};
#[cfg(feature = "oci")]
pub(crate) use {client::secret_header, document::Document};

use super::checksum::{is_sha256, sha256_of_file};
use super::lock::{FileLock, Sharing};
use super::progress::Watch;
use crate::spec::Secret;
use crate::vm::blocking;
use crate::{Error, ErrorKind, Result, durable};
use part::Part;

/// A file to fetch.
#[derive(Debug, Clone, PartialEq, Eq, TypedBuilder)]
#[non_exhaustive]
pub struct Download {
    /// Where it is: http or https.
    #[builder(setter(into))]
    pub url: String,
    /// Where it is to be. What is unfinished is kept beside it, under names with a dot.
    #[builder(setter(into))]
    pub target: PathBuf,
    /// SHA-256 that it must have. Without one, its length must be known from the server.
    #[builder(default, setter(strip_option(fallback = sha256_opt), into))]
    pub sha256: Option<String>,
    /// Size in bytes that it must have.
    #[builder(default, setter(strip_option(fallback = size_opt)))]
    pub size_bytes: Option<u64>,
    /// Largest size in bytes that is taken.
    pub most_bytes: u64,
    /// What the server is told of who asks: the value of `Authorization`. Not sent on to
    /// another host by a redirect.
    #[builder(default, setter(strip_option(fallback = authorization_opt), into))]
    pub authorization: Option<Secret>,
}

/// A file that was fetched, or was there already.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Downloaded {
    /// SHA-256, in lower-case hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Whether it was there before.
    pub was_there: bool,
}

/// What happens during a download.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Another process fetches the same file; this one waits for it.
    Waiting,
    /// Data begins to come.
    Began {
        /// The URL, without what may be secret in it.
        url: String,
        /// Size of the whole in bytes, where it is known.
        total: Option<u64>,
        /// How much of it was there from before.
        resumed_at: u64,
    },
    /// So many bytes are there.
    At(u64),
    /// It failed for now and is tried again.
    Retry {
        /// Why.
        why: String,
        /// After this long.
        pause: Duration,
    },
    /// It is whole, and what it should be.
    Done,
}

/// Gets what happens.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// How long another process is waited for: downloads are long.
const LOCK_PATIENCE: Duration = Duration::from_secs(6 * 3600);

impl Downloader {
    /// Fetches a file. Several who fetch the same one, also in other processes, fetch it once.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for another size or checksum, [`ErrorKind::NotFound`] where the
    /// server says so, [`ErrorKind::Host`] without space, [`ErrorKind::Io`] where the network
    /// failed for good. What came so far is kept and resumed the next time.
    pub async fn file(&self, download: &Download, tell: &Tell) -> Result<Downloaded> {
        if let Some(sum) = download.sha256.as_deref().filter(|sum| !is_sha256(sum)) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{sum:?} isn't a SHA-256"),
            ));
        }
        let lock = Arc::new(self.lock(&beside(&download.target, "lock")?, tell).await?);
        if let Some(there) = look(download.clone()).await? {
            tell(Event::Done);
            return Ok(there);
        }
        let part = Part::of(&download.target)?;
        let mut failures = 0;
        loop {
            let fault = match self.attempt(download, &part, &lock, tell).await {
                Ok(done) => {
                    tell(Event::Done);
                    return Ok(done);
                }
                Err(fault) => fault,
            };
            if fault.progressed {
                failures = 0;
            }
            failures += 1;
            match self.patience().pause(failures, &fault) {
                Some(pause) => {
                    let why = fault.error.to_string();
                    tell(Event::Retry { why, pause });
                    tokio::time::sleep(pause).await;
                }
                None => return Err(fault.give_up(failures)),
            }
        }
    }

    async fn lock(&self, path: &Path, tell: &Tell) -> Result<FileLock> {
        let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
        let mut told = false;
        loop {
            let at = path.to_owned();
            if let Some(lock) = blocking(move || FileLock::attempt(&at, Sharing::Alone)).await? {
                return Ok(lock);
            }
            if !std::mem::replace(&mut told, true) {
                tell(Event::Waiting);
            }
            if tokio::time::Instant::now() > deadline {
                return Err(super::lock::busy(path));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What is there under the final name already, if it is what is wanted.
async fn look(download: Download) -> Result<Option<Downloaded>> {
    blocking(move || {
        let path = &download.target;
        let size_bytes = match path.symlink_metadata() {
            Ok(found) if found.is_file() => found.len(),
            Ok(_) => {
                return Err(Error::new(
                    ErrorKind::WrongState,
                    format!("{} is there and isn't a regular file", path.display()),
                )
                .at(path));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("looking at", path, e)),
        };
        let sha256 = sha256_of_file(path, &mut Watch::new(&mut |_| {}, &|| false))?;
        let fits = download.size_bytes.is_none_or(|size| size == size_bytes)
            && download
                .sha256
                .as_ref()
                .is_none_or(|sum| sum.eq_ignore_ascii_case(&sha256));
        if fits {
            return Ok(Some(Downloaded {
                sha256,
                size_bytes,
                was_there: true,
            }));
        }
        std::fs::remove_file(path).map_err(|e| Error::io("removing the altered", path, e))?;
        durable::sync_dir(path.parent().unwrap_or(Path::new("/")))?;
        Ok(None)
    })
    .await
}

/// The name of what belongs to an unfinished download, beside its target.
fn beside(target: &Path, what: &str) -> Result<PathBuf> {
    let name = target.file_name().ok_or_else(|| {
        Error::new(
            ErrorKind::Invalid,
            format!("{} can't be a file's name", target.display()),
        )
    })?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".");
    hidden.push(what);
    Ok(target.with_file_name(hidden))
}

#[cfg(test)]
pub(crate) mod tests;
