//! The links of tunnels.

use std::io;
use std::net::IpAddr;

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Links, failed};
use crate::error::Result;
use crate::name::IfName;

impl Links {
    /// Makes a WireGuard device of the kernel's.
    pub(crate) fn make_wireguard(&mut self, name: &IfName) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_string()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]),
        ];
        let request = RouteNetlinkMessage::NewLink(message);
        self.0
            .request(request, NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|e| failed("making the tunnel", name.as_str(), e))
    }

    /// Marks a tunnel as ours, and sets its MTU in bytes.
    pub(crate) fn mark_tunnel(&mut self, name: &IfName, mark: &str, mtu: u16) -> Result<()> {
        let index = self.require(name)?.index;
        let attributes = vec![
            LinkAttribute::IfAlias(mark.to_owned()),
            LinkAttribute::Mtu(mtu.into()),
        ];
        self.change(index, attributes, false)
            .map_err(|e| failed("setting up the tunnel", name.as_str(), e))
    }

    /// Gives a device that is off another name.
    pub(crate) fn rename(&mut self, from: &IfName, to: &IfName) -> Result<()> {
        let index = self.require(from)?.index;
        let name = LinkAttribute::IfName(to.to_string());
        self.change(index, vec![name], false)
            .map_err(|e| failed("naming the tunnel", to.as_str(), e))
    }

    /// Gives a device an address. That it has it already is fine.
    pub(crate) fn add_address(&mut self, name: &IfName, address: Ipv4Net) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = address.prefix_len();
        message.header.index = self.require(name)?.index;
        let local = IpAddr::V4(address.addr());
        message.attributes = vec![
            AddressAttribute::Local(local),
            AddressAttribute::Address(local),
        ];
        let request = RouteNetlinkMessage::NewAddress(message);
        match self.0.request(request, NLM_F_CREATE | NLM_F_EXCL) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(failed("giving an address to", name.as_str(), e))
            }
            _ => Ok(()),
        }
    }
}
