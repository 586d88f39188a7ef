//! Run Firecracker microVMs on a Linux host: isolated, crash-safe, without leaks.
//!
//! A typed description of a microVM (the [`spec`]) is validated, checked against this
//! host, turned into a plan of steps, and carried out through a durable ledger, so that
//! whatever was taken from the host is given back: on failure, on stop, after a crash.

pub mod agent;
pub mod durable;
pub mod error;
pub mod events;
pub mod firecracker;
pub mod host;
pub mod keeper;
pub mod ledger;
pub mod name;
pub mod network;
pub mod orchestrator;
pub mod plan;
pub mod process;
pub mod rundir;
pub mod snapshot;
pub mod spec;
pub mod step;
pub mod storage;
pub mod teardown;
pub mod validate;
pub mod vm;

pub use error::{Error, ErrorKind, Result};
pub use orchestrator::{Parts, SmartVm};
pub use vm::MicroVm;
