//! Guests' traffic through a real WireGuard peer, and the kill switch under fire: in both tiers,
//! with the kernel's WireGuard where there is one, else with a program's. Namespaces stand for
//! guests, for the Internet and for the peer.

#![allow(dead_code, unused_imports)]

mod fire;
mod peer;
mod switch;
mod way;

pub(crate) use fire::Fire;
pub(crate) use peer::{Peer, kernel_has_wireguard};
pub(crate) use way::{Way, kill, run, until};
