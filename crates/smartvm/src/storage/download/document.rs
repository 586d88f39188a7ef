//! Documents: small, fetched into memory, bounded.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};

use super::Downloader;
use super::client::{parsed, shown, too_large};
use super::retry::Fault;
use crate::{Error, ErrorKind, Result};

/// How long a document may take as a whole.
const PATIENCE: Duration = Duration::from_secs(120);

/// A document that was fetched.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Text {
    /// Where it was in the end, after redirects.
    pub url: String,
    /// What it says.
    pub text: String,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Document {
    /// Where it was in the end, after redirects.
    pub(crate) url: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Document {
    /// The error that the status is, where it is one.
    pub(crate) fn success(self) -> Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(Fault::of_status(&shown(&self.url), self.status, &self.headers).error)
    }
}

impl Downloader {
    /// Fetches a document of at most `most_bytes`, trying again where that may help.
    ///
    /// # Errors
    /// As for [`Downloader::file`].
    pub async fn text(&self, url: &str, most_bytes: u64) -> Result<Text> {
        let request = self.client().get(parsed(url)?);
        let document = self.document(url, request, most_bytes).await?.success()?;
        let text = String::from_utf8(document.bytes).map_err(|e| {
            let what = format!("{} is no text", shown(url));
            Error::new(ErrorKind::Corrupt, what).because(e.utf8_error())
        })?;
        Ok(Text {
            url: document.url,
            text,
        })
    }

    /// Sends a request, and again where that may help. Statuses that don't pass by themselves
    /// are the caller's business.
    pub(crate) async fn document(
        &self,
        url: &str,
        request: RequestBuilder,
        most_bytes: u64,
    ) -> Result<Document> {
        let mut failures = 0;
        loop {
            let request = request.try_clone().ok_or_else(|| {
                Error::new(ErrorKind::Invalid, "a request that can't be sent twice")
            })?;
            let once = tokio::time::timeout(PATIENCE, once(url, request, most_bytes));
            let fault = match once.await {
                Ok(Ok(document)) => return Ok(document),
                Ok(Err(fault)) => fault,
                Err(_) => Fault::passing(Error::new(
                    ErrorKind::Timeout,
                    format!("downloading {}: it takes too long", shown(url)),
                )),
            };
            failures += 1;
            match self.patience().pause(failures, &fault) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(fault.give_up(failures)),
            }
        }
    }
}

async fn once(url: &str, request: RequestBuilder, most_bytes: u64) -> Result<Document, Fault> {
    let failed = |e| Fault::of_client(&shown(url), e);
    let mut response = request.send().await.map_err(failed)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let fault = Fault::of_status(&shown(url), status, &headers);
    if !status.is_success() && fault.transient {
        return Err(fault);
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if (bytes.len() + chunk.len()) as u64 > most_bytes {
            return Err(Fault::lasting(too_large(url, None, most_bytes)));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Document {
        url: response.url().to_string(),
        status,
        headers,
        bytes,
    })
}
