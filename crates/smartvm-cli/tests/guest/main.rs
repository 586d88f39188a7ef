//! Guest tier: real Linux guests under the real Firecracker. Needs hardware virtualization, or
//! the emulated host; `cargo xtask test` provides it, with Firecracker and an image.

// A helper of a test may fail as loudly as the test itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// What a guest said is shown where its test fails.
#![allow(clippy::print_stderr)]

mod commands;
mod devices;
// The host tier needs all of it.
#[allow(dead_code)]
#[path = "../host/docker_registry.rs"]
mod docker_registry;
mod ends;
mod jail;
#[path = "../lab/mod.rs"]
mod lab;
mod network;
mod oci;
#[path = "../shared/pty.rs"]
mod pty;
mod readme;
mod snapshots;
mod support;
mod systemd;
#[path = "../shared/template.rs"]
mod template;
mod terminal;
#[path = "../tunnel/mod.rs"]
mod tunnel;
mod tunnelled;
