//! Routes of one table.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{GuestTable, OURS, Routing, TunnelRoutes, failed, unless};
use crate::error::Result;
use crate::network::netlink::is_missing;

/// The worst metric: every other route to the same place comes first.
const LAST: u32 = u32::MAX;

/// A route of one of our tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) to: Ipv4Net,
    pub(super) kind: RouteType,
    pub(super) out: Option<u32>,
    pub(super) metric: u32,
    pub(super) protocol: RouteProtocol,
}

impl Routing {
    /// All routes of a table, of whatever kind.
    pub(super) fn routes(&mut self, table: u32) -> Result<Vec<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let found = self
            .0
            .dump(RouteNetlinkMessage::GetRoute(message))
            .map_err(|e| failed("listing", table, e))?;
        let routes = found.iter().filter_map(|one| match one {
            RouteNetlinkMessage::NewRoute(one) => Some(one),
            _ => None,
        });
        Ok(routes.filter_map(|one| parse(one, table)).collect())
    }

    pub(super) fn add(&mut self, table: u32, route: &Route) -> io::Result<()> {
        self.0
            .request(
                RouteNetlinkMessage::NewRoute(route.message(table)),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .or_else(unless(io::ErrorKind::AlreadyExists))
    }

    pub(super) fn delete(&mut self, table: u32, route: &Route) -> Result<()> {
        let mut message = route.message(table);
        // Of whatever scope it is: another's may lead to a gateway.
        message.header.scope = RouteScope::NoWhere;
        match self.0.request(RouteNetlinkMessage::DelRoute(message), 0) {
            Err(e) if !is_missing(&e) => Err(failed("emptying", table, e)),
            _ => Ok(()),
        }
    }
}

impl GuestTable {
    /// The routes that don't need the tunnel.
    pub(super) fn routes(&self) -> Vec<Route> {
        let route = |to, kind, metric| Route {
            to,
            kind,
            out: None,
            metric,
            protocol: OURS,
        };
        let mut routes = vec![route(self.subnet, RouteType::Throw, 0)];
        if self.fail_closed {
            routes.push(route(Ipv4Net::default(), RouteType::Unreachable, LAST));
        }
        routes
    }
}

impl TunnelRoutes {
    pub(super) fn routes(&self, index: u32) -> Vec<Route> {
        let route = |to: &Ipv4Net| Route {
            to: *to,
            kind: RouteType::Unicast,
            out: Some(index),
            metric: 0,
            protocol: OURS,
        };
        self.to.iter().map(route).collect()
    }
}

impl Route {
    fn message(&self, table: u32) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = self.to.prefix_len();
        message.header.protocol = self.protocol;
        message.header.kind = self.kind;
        message.header.scope = match self.kind {
            RouteType::Unicast => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        message.attributes = vec![
            RouteAttribute::Table(table),
            RouteAttribute::Destination(RouteAddress::Inet(self.to.network())),
            RouteAttribute::Priority(self.metric),
        ];
        message.attributes.extend(self.out.map(RouteAttribute::Oif));
        message
    }
}

fn parse(message: &RouteMessage, wanted: u32) -> Option<Route> {
    let mut table = u32::from(message.header.table);
    let mut to = Ipv4Addr::UNSPECIFIED;
    let mut route = Route {
        to: Ipv4Net::default(),
        kind: message.header.kind,
        out: None,
        metric: 0,
        protocol: message.header.protocol,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = *address,
            RouteAttribute::Oif(index) => route.out = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            _ => {}
        }
    }
    route.to = Ipv4Net::new(to, message.header.destination_prefix_length).ok()?;
    (table == wanted).then_some(route)
}
