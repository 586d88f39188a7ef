//! `/balloon` and `/balloon/statistics`.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::firecracker::client::{Method, Request};
use crate::spec::Balloon;

/// The balloon, before boot.
#[derive(Debug, Serialize)]
pub struct BalloonBody {
    amount_mib: u64,
    deflate_on_oom: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats_polling_interval_s: Option<u64>,
    // Both since 1.14.
    #[serde(skip_serializing_if = "Option::is_none")]
    free_page_hinting: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    free_page_reporting: Option<bool>,
}

impl From<&Balloon> for BalloonBody {
    fn from(balloon: &Balloon) -> Self {
        Self {
            amount_mib: balloon.amount_mib,
            deflate_on_oom: balloon.deflate_on_oom,
            stats_polling_interval_s: balloon.stats_polling_interval_s,
            free_page_hinting: balloon.free_page_hinting,
            free_page_reporting: balloon.free_page_reporting,
        }
    }
}

impl BalloonBody {
    pub(super) fn request(&self) -> Result<Request> {
        Request::new(Method::Put, "/balloon", self)
    }
}

/// A new size, while the guest runs.
#[derive(Debug, Serialize)]
pub struct BalloonUpdate {
    /// In MiB.
    pub amount_mib: u64,
}

impl BalloonUpdate {
    /// The request.
    pub fn request(&self) -> Result<Request> {
        Request::new(Method::Patch, "/balloon", self)
    }
}

/// Another time between two statistics, while the guest runs; neither from nor to 0.
#[derive(Debug, Serialize)]
pub struct BalloonStatsUpdate {
    /// In seconds.
    pub stats_polling_interval_s: u64,
}

impl BalloonStatsUpdate {
    /// The request.
    pub fn request(&self) -> Result<Request> {
        Request::new(Method::Patch, "/balloon/statistics", self)
    }
}

/// What the guest last told of its memory. A guest's driver tells only some of it, and none
/// before the first time between two statistics is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all(serialize = "camelCase"))]
#[non_exhaustive]
pub struct BalloonStats {
    /// The size asked for, in pages of 4 KiB.
    pub target_pages: u64,
    /// The size that it has, in pages of 4 KiB.
    pub actual_pages: u64,
    /// The size asked for, in MiB.
    pub target_mib: u64,
    /// The size that it has, in MiB.
    pub actual_mib: u64,
    /// Memory swapped in, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_in: Option<u64>,
    /// Memory swapped out, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_out: Option<u64>,
    /// Major page faults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major_faults: Option<u64>,
    /// Minor page faults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor_faults: Option<u64>,
    /// Memory not used for anything, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_memory: Option<u64>,
    /// Memory of the guest, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_memory: Option<u64>,
    /// Memory that new programs could have, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_memory: Option<u64>,
    /// Memory that can be had back without writing, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_caches: Option<u64>,
    /// Huge pages given out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugetlb_allocations: Option<u64>,
    /// Huge pages that could not be given out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugetlb_failures: Option<u64>,
    /// Processes killed for lack of memory (Firecracker 1.14, guest 6.12).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill: Option<u64>,
}

impl BalloonStats {
    /// The question.
    pub fn request() -> Request {
        Request::get("/balloon/statistics")
    }
}
