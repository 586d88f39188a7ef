//! How downloads go through the network. Nothing here reads the environment.

use std::path::PathBuf;
use std::time::Duration;

use super::retry::Fault;
use crate::spec::Secret;

/// How downloads go through the network.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Settings {
    /// The proxies.
    pub proxies: Proxies,
    /// Files of certificates (PEM) to trust besides the system's.
    pub certificates: Vec<PathBuf>,
    /// How long, and how often.
    pub patience: Patience,
}

/// The proxies. Their URLs may hold a password.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Proxies {
    /// URL of the proxy for http.
    pub http: Option<Secret>,
    /// URL of the proxy for https.
    pub https: Option<Secret>,
    /// Hosts that are reached without one, as in `NO_PROXY`: names, `.suffixes`, addresses,
    /// networks, with commas.
    pub none_for: Option<String>,
}

/// How long a download may stand still, and how often it is tried.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// Without any data.
    pub idle: Duration,
    /// Over this time at least one KiB a second has to come.
    pub window: Duration,
    /// Failures in a row, without progress between them.
    pub attempts: u32,
    /// Pause after the first failure; it doubles with each further one.
    pub first_pause: Duration,
    /// Longest pause, also when the server asks for a longer one: then it is given up.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            idle: Duration::from_secs(30),
            window: Duration::from_secs(60),
            attempts: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(120),
        }
    }
}

impl Patience {
    /// How long to wait after the `failures`th failure in a row; `None` to give up.
    pub(super) fn pause(&self, failures: u32, fault: &Fault) -> Option<Duration> {
        if !fault.transient || failures >= self.attempts {
            return None;
        }
        let doubled = self
            .first_pause
            .saturating_mul(1 << (failures - 1).min(16))
            .min(self.longest_pause);
        match fault.retry_after {
            Some(asked) if asked > self.longest_pause => None,
            Some(asked) => Some(asked.max(doubled)),
            None => Some(doubled),
        }
    }
}
