//! Host tier: the real Firecracker with the tiny guest. Needs a /dev/kvm that opens, and
//! Firecracker's path in SMARTVM_TEST_FIRECRACKER; `cargo xtask test` provides both.

// A helper of a test may fail as loudly as the test itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod anothers_tunnel;
mod bad_input;
mod bridge_deleted;
mod changes;
mod chaos;
mod command_line;
mod console;
mod crash_under_fire;
mod docker_registry;
mod downloads;
mod dropped;
mod emulate;
mod faults;
mod firewall;
mod full_disk;
mod images;
mod import;
mod jail;
mod keeper;
#[path = "../lab/mod.rs"]
mod lab;
mod lifecycle;
mod mirror;
mod network;
#[path = "../shared/pty.rs"]
mod pty;
mod recovery;
mod registry;
mod run;
mod snapshots;
mod states;
mod support;
// What it hides, only a guest can tell.
#[allow(dead_code)]
#[path = "../shared/template.rs"]
mod template;
#[path = "../tunnel/mod.rs"]
mod tunnel;
mod tunnel_text;
mod tunnel_ways;
mod update;
