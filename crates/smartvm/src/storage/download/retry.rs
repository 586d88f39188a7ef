//! Which failures pass by themselves.

use std::error::Error as _;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::{Error, ErrorKind};

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: Error,
    /// Whether it may go well the next time.
    pub(super) transient: bool,
    /// How long the server asks to wait.
    pub(super) retry_after: Option<Duration>,
    /// Whether data came that is kept.
    pub(super) progressed: bool,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::lasting(error)
    }
}

impl Fault {
    pub(super) fn lasting(error: Error) -> Self {
        Self {
            error,
            transient: false,
            retry_after: None,
            progressed: false,
        }
    }

    pub(super) fn passing(error: Error) -> Self {
        Self {
            transient: true,
            ..Self::lasting(error)
        }
    }

    /// What the HTTP client says. Its own words repeat the URL, which may hold a secret.
    pub(super) fn of_client(url: &str, error: reqwest::Error) -> Self {
        let transient = !(error.is_builder() || error.is_redirect() || is_certificate(&error));
        let hint = if is_certificate(&error) {
            "if a proxy of your own stands between, name its certificate (SSL_CERT_FILE)"
        } else {
            "is there a network, and does it need a proxy (HTTPS_PROXY)? What came so far is kept"
        };
        let told = Error::new(ErrorKind::Io, format!("downloading {url}"))
            .because(error.without_url())
            .hint(hint);
        if transient {
            Self::passing(told)
        } else {
            Self::lasting(told)
        }
    }

    /// A status that is no success.
    pub(super) fn of_status(url: &str, status: StatusCode, headers: &HeaderMap) -> Self {
        let kind = match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => ErrorKind::NotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
            _ => ErrorKind::Io,
        };
        let error = Error::new(kind, format!("downloading {url}: the server says {status}"));
        let transient = matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504);
        Self {
            transient,
            retry_after: retry_after(headers, SystemTime::now()).filter(|_| transient),
            ..Self::lasting(error)
        }
    }

    pub(super) fn progressed(mut self, progressed: bool) -> Self {
        self.progressed = progressed;
        self
    }

    /// The error for whoever waits, after so many attempts.
    pub(super) fn give_up(self, failures: u32) -> Error {
        let Some(asked) = self.retry_after else {
            return match failures {
                1 => self.error,
                _ => {
                    let hint = self.error.way_out().unwrap_or("try again later").to_owned();
                    let what = format!("given up after {failures} attempts");
                    Error::new(self.error.kind(), what)
                        .because(self.error)
                        .hint(hint)
                }
            };
        };
        let hint = format!(
            "the server asks to wait for {} s: try again then",
            asked.as_secs()
        );
        self.error.hint(hint)
    }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Whether TLS refused the other side: that doesn't pass.
fn is_certificate(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        let inside = inner.is_some_and(|inner| inner.is::<rustls::Error>());
        if inside || error.is::<rustls::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_that_a_server_asks_for_is_seconds_or_a_date() {
        let asked = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
            retry_after(&headers, now)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        let later = asked("Sun, 06 Nov 1994 08:49:47 GMT");
        assert_eq!(later, Some(Duration::from_secs(10)));
        let past = asked("Sun, 06 Nov 1994 08:49:27 GMT");
        assert_eq!(past, Some(Duration::ZERO));
        assert_eq!(asked("soon"), None);
    }
}
