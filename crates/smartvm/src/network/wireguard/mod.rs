//! WireGuard tunnels for guests' traffic.
//!
//! A device is the kernel's or, where the kernel has no WireGuard, that of a userspace
//! implementation; both are told apart here and nowhere else.

mod device;
mod endpoint;
mod facts;
mod kernel;
mod uapi;
mod userspace;

use std::net::SocketAddr;

pub(super) use device::{NewTunnel, make, read, remove, taken};
pub(super) use facts::{DeviceFacts, PeerFacts};

use crate::error::{Error, ErrorKind, Result};
use crate::name::IfName;
use crate::spec::WireGuardConfig;
pub(super) use crate::spec::wg_quick::base64;
pub use crate::spec::wg_quick::{Config, ConfigError, Endpoint, Key, Peer};
pub use crate::wiring::Maker;

/// MTU of a tunnel whose text names none, in bytes.
pub(super) const DEFAULT_MTU: u16 = 1420;

/// What the options ask for, read.
#[derive(Debug, Clone)]
pub(super) struct Tunnel {
    pub(super) interface: IfName,
    pub(super) table: u32,
    pub(super) route_all: bool,
    pub(super) fail_closed: bool,
    /// `None`: the interface exists, and stays its owner's.
    pub(super) config: Option<Config>,
}

impl Tunnel {
    pub(super) fn of(options: &WireGuardConfig) -> Result<Self> {
        let config = match options {
            WireGuardConfig::Managed(managed) => {
                Some(Config::parse(managed.config.reveal()).map_err(|e| {
                    Error::new(ErrorKind::Invalid, "reading the option `wireguard.config`")
                        .hint(e.allowed)
                        .because(e)
                })?)
            }
            WireGuardConfig::Existing(_) => None,
        };
        Ok(Self {
            interface: options.interface().parse()?,
            table: options.route_table(),
            route_all: options.route_all_vm_traffic(),
            fail_closed: options.fail_closed(),
            config,
        })
    }
}

/// A configuration with the addresses of its peers, in their order.
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) endpoints: Vec<Option<SocketAddr>>,
}

impl Settings {
    /// # Errors
    /// An endpoint's name that doesn't resolve.
    pub(super) fn resolve(config: &Config) -> Result<Self> {
        Ok(Self {
            endpoints: endpoint::resolve(config)?,
            config: config.clone(),
        })
    }
}
