//! The host's memory, and what of it leaks between guests.

use serde::{Deserialize, Serialize};

/// Memory and swap, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Memory {
    /// All memory.
    pub total_kib: u64,
    /// What can be had without swapping.
    pub available_kib: u64,
    /// All swap; guests' secrets may end up there.
    pub swap_kib: u64,
}

/// Huge pages of 2 MiB, in pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HugePagePool {
    /// All in the pool.
    pub total: u64,
    /// Those that are free.
    pub free: u64,
}

impl Memory {
    /// From the text of /proc/meminfo.
    pub(super) fn parse(meminfo: &str) -> Self {
        let value = |name: &str| {
            meminfo
                .lines()
                .find_map(|line| {
                    let number = line.strip_prefix(name)?.strip_prefix(':')?;
                    number.split_whitespace().next()?.parse().ok()
                })
                .unwrap_or(0)
        };
        Self {
            total_kib: value("MemTotal"),
            available_kib: value("MemAvailable"),
            swap_kib: value("SwapTotal"),
        }
    }
}
