//! The guest side of smartvm, and the wire protocol that both sides speak.
//!
//! [`protocol`] is pure: frames and messages on byte slices, used by the host's async client
//! and by the guest's synchronous service alike. [`service`] is what runs inside the guest;
//! it is part of the library so that it can be tested as an ordinary process, without a VM.

pub mod interface;
pub mod protocol;
pub mod service;
