//! One attempt at a download: what is missing is asked for, written and hashed on a thread of
//! its own while the next of it comes.

use std::sync::Arc;

use reqwest::header::{
    AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::client::{secret_header, shown, too_large};
use super::part::{Origin, Part, Writer};
use super::retry::Fault;
use super::{Download, Downloaded, Downloader, Event, Tell};
use crate::storage::lock::FileLock;
use crate::storage::require_free;
use crate::vm::blocking;
use crate::{Error, ErrorKind, Result};

/// So many pieces of data may wait to be written.
const AHEAD: usize = 32;
/// The least that has to come in a second, in bytes.
const LEAST_SPEED: u64 = 1024;

impl Downloader {
    pub(super) async fn attempt(
        &self,
        download: &Download,
        part: &Part,
        lock: &Arc<FileLock>,
        tell: &Tell,
    ) -> Result<Downloaded, Fault> {
        let url = &shown(&download.url);
        let has_sum = download.sha256.is_some();
        let found = part.resumable(&download.url, has_sum);
        let mut headers = found.as_ref().map(range_headers).unwrap_or_default();
        if let Some(who) = &download.authorization {
            headers.insert(AUTHORIZATION, secret_header(who)?);
        }
        let mut response = self.get(&download.url, &headers).await?;
        let status = response.status();
        let keep = match (status, &found) {
            (StatusCode::OK, _) => 0,
            (StatusCode::PARTIAL_CONTENT, Some((origin, length)))
                if continues(&response, origin, *length) =>
            {
                *length
            }
            (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => {
                part.discard()?;
                let what = format!("downloading {url}: it changed meanwhile");
                return Err(Fault::passing(Error::new(ErrorKind::Io, what)));
            }
            _ => return Err(Fault::of_status(url, status, response.headers())),
        };
        let total = response.content_length().map(|rest| rest + keep);
        check_size(download, total)?;
        let directory = part.data.parent().unwrap_or(&part.data).to_owned();
        let rest = total.unwrap_or(0) - keep.min(total.unwrap_or(0));
        let (sender, writer) = {
            let (part, lock) = (part.clone(), Arc::clone(lock));
            let origin = Origin {
                url: download.url.clone(),
                validator: validator(response.headers()),
            };
            let (sender, mut receiver) = mpsc::channel::<bytes::Bytes>(AHEAD);
            let work = move || {
                // Nobody else may begin before the last of it is written.
                let _lock = lock;
                require_free(&directory, rest, "the download")?;
                let mut writer = part.open(keep, &origin)?;
                while let Some(bytes) = receiver.blocking_recv() {
                    if let Err(error) = writer.add(&bytes) {
                        // A full disk is not to stay full.
                        let cleanup = match error.kind() {
                            ErrorKind::Host => part.discard().err(),
                            _ => None,
                        };
                        return Err(error.with_cleanup(cleanup));
                    }
                }
                Ok(writer)
            };
            (sender, tokio::spawn(blocking(work)))
        };
        tell(Event::Began {
            url: url.clone(),
            total,
            resumed_at: keep,
        });
        let came = self
            .receive(&mut response, download, sender, keep, tell)
            .await;
        let writer = writer
            .await
            .map_err(|e| Error::new(ErrorKind::Io, "a worker failed").because(e))??;
        let progressed = writer.length > keep;
        came.map_err(|fault| fault.progressed(progressed))?;
        if let Some(total) = total.filter(|&total| total != writer.length) {
            let what = format!(
                "downloading {url}: {} bytes came, {total} were to",
                writer.length
            );
            let broken = Error::new(ErrorKind::Io, what);
            return Err(Fault::passing(broken).progressed(progressed));
        }
        finish(download.clone(), part.clone(), writer, keep > 0).await
    }

    /// Passes on what comes, until all has come.
    async fn receive(
        &self,
        response: &mut Response,
        download: &Download,
        sender: mpsc::Sender<bytes::Bytes>,
        mut at: u64,
        tell: &Tell,
    ) -> Result<(), Fault> {
        let url = shown(&download.url);
        let most = download.size_bytes.unwrap_or(download.most_bytes);
        let (mut since, mut from) = (Instant::now(), at);
        loop {
            let chunk = response.chunk().await;
            let Some(chunk) = chunk.map_err(|e| Fault::of_client(&url, e))? else {
                return Ok(());
            };
            at += chunk.len() as u64;
            if at > most {
                return Err(Fault::lasting(too_large(&url, None, most)));
            }
            if sender.send(chunk).await.is_err() {
                // The writer tells why.
                return Ok(());
            }
            tell(Event::At(at));
            let window = self.patience().window;
            if since.elapsed() >= window {
                if at - from < LEAST_SPEED * window.as_secs().max(1) {
                    let what = format!("downloading {url}: less than 1 KiB comes in a second");
                    return Err(Fault::passing(Error::new(ErrorKind::Timeout, what)));
                }
                (since, from) = (Instant::now(), at);
            }
        }
    }
}

fn range_headers((origin, length): &(Origin, u64)) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(range) = HeaderValue::from_str(&format!("bytes={length}-")) {
        headers.insert(RANGE, range);
    }
    let validator = origin.validator.as_deref().map(HeaderValue::from_str);
    if let Some(Ok(validator)) = validator {
        headers.insert(IF_RANGE, validator);
    }
    headers
}

/// Whether this is the rest of what is there: servers that ignore If-Range exist.
fn continues(response: &Response, origin: &Origin, length: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE);
    let begins = range
        .and_then(|value| value.to_str().ok()?.strip_prefix("bytes "))
        .and_then(|range| range.split_once('-')?.0.parse().ok());
    let unchanged = match (&origin.validator, validator(response.headers())) {
        (Some(before), Some(now)) => *before == now,
        _ => true,
    };
    begins == Some(length) && unchanged
}

/// What tells whether it is unchanged: a strong ETag, else the date of the last change.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|v: &HeaderValue| v.to_str().ok())
    };
    text(ETAG)
        .filter(|tag| !tag.starts_with("W/"))
        .or_else(|| text(LAST_MODIFIED))
        .map(str::to_owned)
}

fn check_size(download: &Download, total: Option<u64>) -> Result<()> {
    let url = &download.url;
    match (total, download.size_bytes) {
        (Some(total), Some(size)) if total != size => Err(Error::new(
            ErrorKind::Corrupt,
            format!("{} is {total} bytes long, {size} were expected", shown(url)),
        )),
        (Some(total), _) if total > download.most_bytes => {
            Err(too_large(url, Some(total), download.most_bytes))
        }
        (None, None) if download.sha256.is_none() => Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "the server doesn't tell how long {} is, and no checksum is known: nobody could \
                 tell whether it is whole",
                shown(url)
            ),
        )),
        _ => Ok(()),
    }
}

async fn finish(
    download: Download,
    part: Part,
    writer: Writer,
    resumed: bool,
) -> Result<Downloaded, Fault> {
    let fault = |error, passing| match passing {
        true => Fault::passing(error),
        false => Fault::lasting(error),
    };
    let finished = blocking(move || {
        let (sha256, size_bytes) = (writer.sha256(), writer.length);
        let url = shown(&download.url);
        let wrong = if download.size_bytes.is_some_and(|size| size != size_bytes) {
            Some(format!("{url} has another length: {size_bytes} bytes"))
        } else {
            download
                .sha256
                .filter(|expected| !expected.eq_ignore_ascii_case(&sha256))
                .map(|expected| format!("{url} has the SHA-256 {sha256}, {expected} was expected"))
        };
        if let Some(what) = wrong {
            part.discard()?;
            return Ok(Err(Error::new(ErrorKind::Corrupt, what).hint(
                "nothing of it is kept; if it stays so, what is offered there isn't what was \
                 meant",
            )));
        }
        part.finish(&writer)?;
        Ok(Ok(Downloaded {
            sha256,
            size_bytes,
            was_there: false,
        }))
    })
    .await?;
    // The beginning may have been of another file than the rest: once from the start, then.
    finished.map_err(|error| fault(error, resumed))
}
