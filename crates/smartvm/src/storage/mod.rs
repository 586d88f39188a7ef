//! What is on disk for VMs: bundles (kernel, initramfs, root file system, manifest), the
//! tools that make them without root rights, and the staging of drives.
//!
//! Everything here is synchronous: it works on files, and belongs on a thread of its own in
//! an asynchronous program. What takes long reports [`Progress`] and can be cancelled.

pub mod copy;
pub mod initramfs;
pub mod modules;
mod progress;
pub mod space;

pub use copy::{CopyMethod, CopyOutcome, copy_sparse};
pub use progress::{Progress, Watch};
pub use space::{allocated_bytes, free_bytes, require_free};
