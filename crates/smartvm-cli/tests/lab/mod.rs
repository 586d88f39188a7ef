//! Made-up networks for the tiers that need some: everything is in namespaces of a test's own,
//! and goes with its processes. Each tier uses a part of it.

#![allow(dead_code, unused_imports)]

mod capture;
mod internet;
mod keeper;
mod remains;
mod space;
mod wire;

pub(crate) use capture::Capture;
pub(crate) use internet::{Internet, answer_all};
pub(crate) use keeper::{network_keeper, pause_network_keeper, resume_network_keeper};
pub(crate) use remains::end_all_of;
pub(crate) use space::{Space, move_in, wait};
pub(crate) use wire::Wire;
