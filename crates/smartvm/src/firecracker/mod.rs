//! Firecracker itself: its binary, its API, and what its exits mean.

mod binary;
pub mod client;
pub mod exit;
pub mod jailer;
pub mod model;
#[cfg(feature = "download")]
pub mod release;
pub(crate) mod socket;
mod version;

pub use binary::Binary;
pub use client::Client;
pub use version::Version;
