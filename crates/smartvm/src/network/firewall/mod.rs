//! What guests may reach and what may reach them: one nftables table of ours for IP and one
//! for the bridge, named after the bridge, swapped in one transaction.
//!
//! A [`Ruleset`] is pure data, [`render`] a pure function of it. Every packet of a conversation,
//! in either direction, is judged by the policy, so that a new policy ends what it denies at
//! once and leaves alone what it allows.

mod closed;
mod compile;
mod counters;
mod elements;
mod fingerprint;
mod in_force;
mod nft;
mod policy;
mod render;
#[cfg(test)]
mod tests;

pub use closed::is_closed;
pub use compile::{Compiled, compile};
pub use counters::{Counters, Tally, counters};
pub(super) use fingerprint::{admitted, fingerprint};
pub use in_force::InForce;
pub(super) use nft::admit;
pub use nft::{add_vm, apply, is_there, remove, remove_vm, replace_policy, replace_vm_policy};
pub use policy::{Packet, Policy, Protocol};
pub use render::render;

pub use crate::spec::{HostService, Transport};
pub use crate::wiring::firewall::{Ruleset, Tunnel, VmPort};
