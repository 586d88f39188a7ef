//! What is on disk for VMs: bundles (kernel, initramfs, root file system, manifest), the
//! tools that make them without root rights, and the staging of drives.

pub mod initramfs;
pub mod modules;
