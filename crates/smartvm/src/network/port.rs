//! A guest's port of the bridge: its TAP device, and what the firewall admits there.

use std::fs::File;
use std::net::Ipv4Addr;

use super::link::{Links, NewTap};
use super::making::Care;
use super::namespace::Namespace;
use super::{Network, firewall, lease, preflight};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{IfName, MacAddress};

/// A port to be made.
pub(super) struct NewPort<'a> {
    pub(super) tap: NewTap<'a>,
    /// The bridge.
    pub(super) bridge: &'a IfName,
    /// The guest's address: no other passes.
    pub(super) ip: Ipv4Addr,
}

impl Network {
    /// Makes it. Whoever joins a network that is kept looks at nothing: what this port needs is
    /// looked at here, where it has to be asked for anyway, and mended if it isn't there.
    /// Returns the TAP device's file, to be closed before somebody attaches to that.
    pub(super) fn make_port(&self, new: &NewPort<'_>) -> Result<File> {
        let here = Namespace::here()?;
        let mut links = Links::again(here)?;
        let looks_ours = self.instance()?.bridge_mac();
        let glance = links.glance(new.bridge)?;
        let bridge = glance.filter(|bridge| bridge.up && bridge.mac == looks_ours);
        let bridge = match bridge {
            Some(bridge) if self.admit(here, new)? => bridge.index,
            _ => self.mended(&mut links, here, new)?,
        };
        let tap = links.make_tap(&new.tap, bridge)?;
        links.keep(here);
        Ok(tap)
    }

    /// Mends what is missing, and has the port admitted. Returns the bridge.
    fn mended(&self, links: &mut Links, here: Namespace, new: &NewPort<'_>) -> Result<u32> {
        let lock = self.lock()?;
        if let Some(state) = self.settled()? {
            self.mend(state, Care::Thorough)?;
        }
        drop(lock);
        let bridge = links.find(new.bridge.as_str())?;
        match bridge {
            Some(bridge) if !bridge.is_ours(new.tap.mark, None) => {
                Err(preflight::taken(new.bridge, bridge.alias.as_deref()))
            }
            Some(bridge) if self.admit(here, new)? => Ok(bridge.index),
            _ => {
                let message = format!("the bridge {} or our nftables tables", new.bridge);
                Err(Error::new(ErrorKind::NotFound, message + " are gone")
                    .hint("another program removes them: smartvm network status"))
            }
        }
    }

    /// Has the firewall judge the port, before it can send. False if the tables are gone.
    fn admit(&self, here: Namespace, new: &NewPort<'_>) -> Result<bool> {
        let port = self.port(new.tap.name, new.tap.mac, new.ip)?;
        firewall::admit(here, new.bridge, &port)
    }

    /// What the firewall admits at a TAP device, with the policy that its lease says.
    fn port(&self, tap: &IfName, mac: MacAddress, ip: Ipv4Addr) -> Result<firewall::VmPort> {
        let lease = lease::Leases::in_dir(&self.dir).known(&self.known.lease, ip)?;
        // A file that is open when it is removed takes its time to go.
        self.known.lease.forget();
        let lease = lease.filter(|lease| lease.tap == *tap).ok_or_else(|| {
            let message = format!("the address {ip} of {tap} isn't leased any more");
            Error::new(ErrorKind::Corrupt, message)
        })?;
        Ok(firewall::VmPort {
            mac,
            ..super::port(lease)
        })
    }
}
