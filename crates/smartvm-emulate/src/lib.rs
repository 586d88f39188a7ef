//! The emulated host: QEMU with nested virtualization, for developing and testing smartvm on
//! machines without hardware virtualization.

pub mod tiny_guest;
