//! Bridges, TAP devices and routes of this network namespace, by netlink and ioctl.

mod device;
mod glance;
mod route;
mod settings;
mod tap;
mod tunnel;

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoKind, InfoPortData, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

pub(crate) use device::Device;
use device::Message;
pub(crate) use route::{DefaultRoute, Route};
use settings::{Setting, ipv4};

use super::Subnet;
use super::namespace::Namespace;
use super::netlink::{Socket, is_missing};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{IfName, MacAddress};

/// The links of this thread's network namespace.
#[derive(Debug)]
pub(crate) struct Links(Socket);

impl Links {
    pub(crate) fn open() -> Result<Self> {
        Socket::open(NETLINK_ROUTE).map(Self).map_err(unopened)
    }

    /// The same, over a socket that was used before in this namespace, if there is one.
    pub(crate) fn again(namespace: Namespace) -> Result<Self> {
        let socket = Socket::again(namespace);
        socket.map(Self).map_err(unopened)
    }

    /// Keeps the socket for the next who needs it, when all is well.
    pub(crate) fn keep(self, namespace: Namespace) {
        self.0.keep(namespace);
    }

    /// The device of this name.
    pub(crate) fn find(&mut self, name: &str) -> Result<Option<Device>> {
        let asks = Message::Asks {
            name: Some(name.to_owned()),
            index: 0,
        };
        self.get(asks).map_err(|e| failed("looking for", name, e))
    }

    /// The device of this index.
    fn of_index(&mut self, index: u32) -> Result<Option<Device>> {
        self.get(Message::Asks { name: None, index })
            .map_err(|e| failed("looking for", &format!("interface {index}"), e))
    }

    fn get(&mut self, asks: Message) -> io::Result<Option<Device>> {
        Ok(match self.0.get(asks)? {
            Some(Message::Tells(device)) => Some(device),
            _ => None,
        })
    }

    /// All devices.
    pub(crate) fn all(&mut self) -> Result<Vec<Device>> {
        let asks = Message::Asks {
            name: None,
            index: 0,
        };
        let found = self.0.dump(asks);
        let found = found.map_err(|e| failed("listing", "the network interfaces", e))?;
        let devices = found.into_iter().filter_map(|one| match one {
            Message::Tells(device) => Some(device),
            _ => None,
        });
        Ok(devices.collect())
    }

    /// Makes a bridge, marked from its first moment by its MAC address, then by its alias. What
    /// comes in by it has to be from where it leads: a false source address is none that this
    /// host answers to, whatever the firewall says.
    pub(crate) fn make_bridge(&mut self, name: &IfName, mac: MacAddress, mark: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_string()),
            LinkAttribute::Address(mac.bytes().to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        self.0
            .request(
                RouteNetlinkMessage::NewLink(message),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .map_err(|e| failed("making the bridge", name.as_str(), e))?;
        let device = self.require(name)?;
        let attributes = vec![
            LinkAttribute::IfAlias(mark.to_owned()),
            ipv4(&[(Setting::ReturnPathFilter, 1)]),
        ];
        self.change(device.index, attributes, false)
            .map_err(|e| failed("marking the bridge", name.as_str(), e))
    }

    /// Gives a device the gateway's address. That it has it already is fine.
    pub(crate) fn set_address(&mut self, name: &IfName, subnet: Subnet) -> Result<()> {
        let index = self.require(name)?.index;
        self.set_address_of(index, name, subnet)
    }

    /// The same, where its index is known.
    pub(crate) fn set_address_of(
        &mut self,
        index: u32,
        name: &IfName,
        subnet: Subnet,
    ) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = subnet.prefix();
        message.header.index = index;
        let address = IpAddr::V4(subnet.gateway());
        message.attributes = vec![
            AddressAttribute::Local(address),
            AddressAttribute::Address(address),
            AddressAttribute::Broadcast(subnet.net().broadcast()),
        ];
        let request = RouteNetlinkMessage::NewAddress(message);
        match self.0.request(request, NLM_F_CREATE | NLM_F_EXCL) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(failed("giving an address to", name.as_str(), e))
            }
            _ => Ok(()),
        }
    }

    /// The IPv4 addresses of a device.
    pub(crate) fn addresses(&mut self, index: u32) -> Result<Vec<Ipv4Addr>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let found = self
            .0
            .dump(RouteNetlinkMessage::GetAddress(message))
            .map_err(|e| failed("listing", "addresses", e))?;
        let of_device = found.into_iter().filter_map(|one| match one {
            RouteNetlinkMessage::NewAddress(one) if one.header.index == index => Some(one),
            _ => None,
        });
        let addresses = of_device.flat_map(|one| one.attributes);
        Ok(addresses
            .filter_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => Some(address),
                _ => None,
            })
            .collect())
    }

    /// Switches a device on.
    pub(crate) fn set_up(&mut self, name: &IfName) -> Result<()> {
        let index = self.require(name)?.index;
        self.change(index, Vec::new(), true)
            .map_err(|e| failed("switching on", name.as_str(), e))
    }

    /// Makes a TAP device for the user with this id, on the bridge, and switches it on. It
    /// is marked before it can outlive this process. Off the bridge, nothing that comes in by it
    /// passes: no way back leads there. Returns its file: it can be attached to when that is closed.
    pub(crate) fn make_tap(&mut self, tap: &NewTap<'_>, bridge: u32) -> Result<File> {
        let told = |what: &str, e| failed(what, tap.name.as_str(), e);
        let made = tap::Tap::make(tap.name, tap.owner).map_err(|e| {
            let taken = e.raw_os_error() == Some(libc::EBUSY);
            let error = told("making the TAP device", e);
            match taken {
                true => error.hint("another device has that name"),
                false => error.hint("TAP devices need root's rights and /dev/net/tun"),
            }
        })?;
        super::forwarding::no_ipv6(tap.name)?;
        let [_, _, rest @ ..] = tap.mac.bytes();
        // Another address than the guest's, and a high one, which no bridge takes as its own.
        let mut mac = vec![0xfe, 0x00];
        mac.extend(rest);
        let name = || LinkAttribute::IfName(tap.name.to_string());
        let attach = vec![
            name(),
            LinkAttribute::IfAlias(tap.mark.to_owned()),
            LinkAttribute::Address(mac),
            LinkAttribute::Controller(bridge),
            ipv4(&[(Setting::Forwarding, 0), (Setting::ReturnPathFilter, 1)]),
        ];
        // A port's own settings are taken only when it is one.
        let isolate = vec![name(), isolation(tap.isolated)];
        self.0
            .requests(vec![
                RouteNetlinkMessage::SetLink(change(BY_NAME, attach, false)),
                RouteNetlinkMessage::NewLink(change(BY_NAME, isolate, true)),
            ])
            .map_err(|e| told("attaching the TAP device", e))?;
        made.keep().map_err(|e| told("keeping the TAP device", e))
    }

    /// Puts a TAP device of ours on the bridge again, where it is there.
    pub(crate) fn attach(&mut self, tap: &IfName, bridge: &IfName, isolated: bool) -> Result<()> {
        let Some(device) = self.find(tap.as_str())? else {
            return Ok(());
        };
        let bridge = self.require(bridge)?.index;
        let isolated = vec![isolation(isolated)];
        self.change(device.index, vec![LinkAttribute::Controller(bridge)], false)
            .and_then(|()| self.new_link(device.index, isolated, true))
            .map_err(|e| failed("attaching", tap.as_str(), e))
    }

    /// Removes the device of this name, if it carries this mark or, having no mark yet, this
    /// address. One of others' is left alone.
    pub(crate) fn remove(
        &mut self,
        name: &IfName,
        mark: &str,
        mac: Option<MacAddress>,
    ) -> Result<()> {
        let Some(device) = self.find(name.as_str())? else {
            return Ok(());
        };
        match device.is_ours(mark, mac) {
            true => self.delete(&device),
            false => Ok(()),
        }
    }

    /// Removes a device; no matter if it is gone.
    pub(crate) fn delete(&mut self, device: &Device) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = device.index;
        match self.0.request(RouteNetlinkMessage::DelLink(message), 0) {
            Err(e) if !is_missing(&e) => Err(failed("removing", &device.name, e)),
            _ => Ok(()),
        }
    }

    /// The routes of all tables.
    pub(crate) fn routes(&mut self) -> Result<Vec<Route>> {
        route::all(&mut self.0).map_err(|e| failed("listing", "routes", e))
    }

    /// The default route, and the name of its interface.
    pub(crate) fn default_route(&mut self, not_by: &[&str]) -> Result<Option<DefaultRoute>> {
        let routes = self.routes()?;
        // Not all devices: there are as many as guests.
        let mut devices = Vec::new();
        for index in route::default_interfaces(&routes) {
            devices.extend(self.of_index(index)?);
        }
        Ok(route::default_of(&routes, &devices, not_by))
    }

    fn require(&mut self, name: &IfName) -> Result<Device> {
        self.find(name.as_str())?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("there is no network interface {name}"),
            )
        })
    }

    fn change(&mut self, index: u32, attributes: Vec<LinkAttribute>, up: bool) -> io::Result<()> {
        let message = change(index, attributes, up);
        self.0.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// A bridge port's settings are only taken with a "new" link of an index that exists.
    fn new_link(&mut self, index: u32, attributes: Vec<LinkAttribute>, up: bool) -> io::Result<()> {
        let message = change(index, attributes, up);
        self.0.request(RouteNetlinkMessage::NewLink(message), 0)
    }
}

/// A TAP device to be made.
#[derive(Debug)]
pub(crate) struct NewTap<'a> {
    pub(crate) name: &'a IfName,
    pub(crate) owner: u32,
    /// The guest's address.
    pub(crate) mac: MacAddress,
    pub(crate) mark: &'a str,
    /// Whether it reaches no other isolated port of the bridge.
    pub(crate) isolated: bool,
}

/// Whether a bridge's port reaches no other such port.
fn isolation(isolated: bool) -> LinkAttribute {
    let port = InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(isolated)]);
    LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(port),
    ])
}

/// In the place of an index, where the message names its device.
const BY_NAME: u32 = 0;

fn change(index: u32, attributes: Vec<LinkAttribute>, up: bool) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    if up {
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    message
}

fn unopened(cause: io::Error) -> Error {
    Error::new(ErrorKind::Host, "opening a netlink socket").because(cause)
}

fn failed(what: &str, name: &str, cause: io::Error) -> Error {
    let error = Error::io(what, name, cause);
    match error.kind() {
        ErrorKind::Host => error.hint("networks need root's rights (CAP_NET_ADMIN)"),
        _ => error,
    }
}
