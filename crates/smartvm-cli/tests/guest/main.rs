//! Guest tier: real Linux guests under the real Firecracker. Needs hardware virtualization, or
//! the emulated host; `cargo xtask test` provides it, with Firecracker and an image.

// A helper of a test may fail as loudly as the test itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod commands;
mod ends;
mod jail;
#[path = "../lab/mod.rs"]
mod lab;
mod network;
mod oci;
mod readme;
mod snapshots;
mod support;
#[path = "../tunnel/mod.rs"]
mod tunnel;
mod tunnelled;
