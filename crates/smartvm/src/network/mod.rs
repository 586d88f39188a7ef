//! The host's network for microVMs.

pub mod firewall;
pub mod wireguard;
