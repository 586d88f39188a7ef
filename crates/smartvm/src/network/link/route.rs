//! Routes: what overlaps the guests' subnet, and where the default route leads.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Device;
use crate::network::netlink::Socket;

/// The table that decides where nothing else does.
const MAIN: u32 = 254;

/// A unicast IPv4 route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: Ipv4Net,
    pub(crate) table: u32,
    /// The index of the interface that it leads out of.
    pub(crate) out: Option<u32>,
    metric: u32,
}

/// Where the host's traffic leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DefaultRoute {
    pub(crate) interface: String,
}

pub(super) fn all(socket: &mut Socket) -> io::Result<Vec<Route>> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    let found = socket.dump(RouteNetlinkMessage::GetRoute(message))?;
    Ok(found
        .into_iter()
        .filter_map(|one| match one {
            RouteNetlinkMessage::NewRoute(one) => route(&one),
            _ => None,
        })
        .collect())
}

fn route(message: &RouteMessage) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut to = Ipv4Addr::UNSPECIFIED;
    let mut route = Route {
        to: Ipv4Net::default(),
        table: message.header.table.into(),
        out: None,
        metric: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = *address,
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Oif(index) => route.out = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::MultiPath(hops) if route.out.is_none() => {
                route.out = hops.first().map(|hop| hop.interface_index);
            }
            _ => {}
        }
    }
    route.to = Ipv4Net::new(to, message.header.destination_prefix_length).ok()?;
    Some(route)
}

/// The interfaces that default routes of the main table lead out of.
pub(super) fn default_interfaces(routes: &[Route]) -> impl Iterator<Item = u32> {
    let default = |route: &&Route| route.to.prefix_len() == 0 && route.table == MAIN;
    routes.iter().filter(default).filter_map(|route| route.out)
}

/// The default route of the main table with the best metric, not out of `not_by`.
pub(super) fn default_of(
    routes: &[Route],
    devices: &[Device],
    not_by: &[&str],
) -> Option<DefaultRoute> {
    let name = |route: &Route| {
        let device = devices
            .iter()
            .find(|device| Some(device.index) == route.out)?;
        (!not_by.contains(&device.name.as_str())).then(|| device.name.clone())
    };
    routes
        .iter()
        .filter(|route| route.table == MAIN && route.to.prefix_len() == 0)
        .filter_map(|route| Some((route.metric, name(route)?)))
        .min()
        .map(|(_, interface)| DefaultRoute { interface })
}
