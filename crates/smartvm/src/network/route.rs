//! Policy routing: guests' traffic has a table of its own, and what isn't led into the tunnel
//! there ends there.
//!
//! This is one of the kill switch's two layers, and needs nothing of the other, the forward
//! chain: whatever comes in by the bridge, or carries an address of the subnet, is looked up
//! in the table, in which the subnet itself is thrown back to the host's own tables, the
//! tunnel's routes follow, and the rest is unreachable. When the tunnel's interface goes, its
//! routes go with it, and what stays is unreachable. What goes to the subnet and finds no way
//! there, as the bridge is gone, is unreachable too: the default route would send answers out
//! in the clear.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use serde::{Deserialize, Serialize};

use super::link::Links;
use super::netlink::{Socket, is_missing};
use crate::error::{Error, ErrorKind, Result};
use crate::name::IfName;

/// Where our rules stand: behind the kernel's local table, before what other programs add.
const PRIORITY: u32 = 100;
/// By which routes and rules are ours (`ip` shows it as `proto 118`).
const OURS: RouteProtocol = RouteProtocol::Other(118);
/// The table that the host's own routes are in.
const MAIN: u32 = 254;
/// The worst metric: every other route to the same place comes first.
const LAST: u32 = u32::MAX;

/// Whose traffic has a table of its own, and what becomes of it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestTable {
    /// The table's number.
    pub table: u32,
    /// What comes in by it is looked up in the table.
    pub bridge: IfName,
    /// What comes from it is looked up in the table; what goes to it is not decided there.
    pub subnet: Ipv4Net,
    /// Whether what no route leads into the tunnel is unreachable; else the host's own tables
    /// decide.
    pub fail_closed: bool,
    /// Addresses of a tunnel of ours. What comes from them is guests' traffic, or what this
    /// host says about that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Ipv4Addr>,
}

/// The routes that lead into a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelRoutes {
    /// The table's number.
    pub table: u32,
    /// The tunnel's interface.
    pub interface: IfName,
    /// What is sent into it.
    pub to: Vec<Ipv4Net>,
}

/// The rules and tables of this thread's network namespace.
pub(super) struct Routing(Socket);

/// A route of one of our tables.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    to: Ipv4Net,
    kind: RouteType,
    out: Option<u32>,
    metric: u32,
    protocol: RouteProtocol,
}

impl Routing {
    pub(super) fn open() -> Result<Self> {
        Socket::open(NETLINK_ROUTE)
            .map(Self)
            .map_err(|e| Error::new(ErrorKind::Host, "opening a netlink socket").because(e))
    }

    /// Refuses a table that has routes, or that rules lead to.
    pub(super) fn require_unused(&mut self, table: u32) -> Result<()> {
        let routes = self.routes(table)?.len();
        let rules = self.rules()?;
        let rules = rules.iter().filter(|rule| table_of(rule) == table).count();
        if routes == 0 && rules == 0 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::WrongState,
            format!("the routing table {table} is in use: {routes} routes, {rules} rules"),
        )
        .hint(format!(
            "choose another number: the option `wireguard.routeTable`; \
             `ip route show table {table}` shows what it holds"
        )))
    }

    /// Closes the guests' table, then leads their traffic there. That this is so already, in
    /// part or wholly, is fine.
    pub(super) fn close(&mut self, guests: &GuestTable) -> Result<()> {
        let closing = |e| failed("closing", guests.table, e);
        for route in guests.routes() {
            self.add(guests.table, &route).map_err(closing)?;
        }
        let there = self.rules()?;
        for rule in guests.rules() {
            if !there.iter().any(|one| is_same(one, &rule)) {
                self.0
                    .request(
                        RouteNetlinkMessage::NewRule(rule),
                        NLM_F_CREATE | NLM_F_EXCL,
                    )
                    .or_else(unless(io::ErrorKind::AlreadyExists))
                    .map_err(|e| failed("leading guests' traffic to", guests.table, e))?;
            }
        }
        Ok(())
    }

    /// Leads nothing there any more, and empties the table of what is ours.
    pub(super) fn reopen(&mut self, guests: &GuestTable) -> Result<()> {
        for rule in guests.rules() {
            let request = RouteNetlinkMessage::DelRule(rule);
            match self.0.request(request, 0) {
                Err(e) if !is_missing(&e) => {
                    return Err(failed(
                        "leading guests' traffic no more to",
                        guests.table,
                        e,
                    ));
                }
                _ => {}
            }
        }
        for route in self.routes(guests.table)? {
            if route.protocol == OURS {
                self.delete(guests.table, &route)?;
            }
        }
        Ok(())
    }

    /// Adds the routes into a tunnel, in the place of those into the interface that had its
    /// name before.
    pub(super) fn lead(&mut self, routes: &TunnelRoutes) -> Result<()> {
        let index = index_of(&routes.interface)?;
        for route in routes.routes(index) {
            self.add(routes.table, &route)
                .map_err(|e| failed("leading traffic into the tunnel by", routes.table, e))?;
        }
        Ok(())
    }

    /// Removes the routes into a tunnel; no matter if they are gone.
    pub(super) fn lead_no_more(&mut self, routes: &TunnelRoutes) -> Result<()> {
        let here = self.routes(routes.table)?;
        let ours = here
            .iter()
            .filter(|one| one.protocol == OURS && one.kind == RouteType::Unicast);
        for route in ours.filter(|one| routes.to.contains(&one.to)) {
            self.delete(routes.table, route)?;
        }
        Ok(())
    }

    /// Removes what others put into the table, which would come before ours.
    pub(super) fn tidy(&mut self, guests: &GuestTable, tunnel: &TunnelRoutes) -> Result<()> {
        let index = index_of(&tunnel.interface).ok();
        let mut ours = guests.routes();
        ours.extend(index.map(|index| tunnel.routes(index)).unwrap_or_default());
        for route in self.routes(guests.table)? {
            if !ours.contains(&route) {
                self.delete(guests.table, &route)?;
            }
        }
        Ok(())
    }

    /// How rules and table differ from what they should be.
    pub(super) fn drift(
        &mut self,
        guests: &GuestTable,
        tunnel: &TunnelRoutes,
    ) -> Result<Vec<String>> {
        let mut drift = Vec::new();
        let table = guests.table;
        let rules = self.rules()?;
        if !(guests.rules().iter()).all(|rule| rules.iter().any(|one| is_same(one, rule))) {
            drift.push(format!(
                "a rule that leads guests' traffic to table {table} is gone"
            ));
        }
        let here = self.routes(table)?;
        let closing = guests.routes();
        for route in closing.iter().filter(|route| !here.contains(route)) {
            drift.push(match route.kind {
                RouteType::Throw => format!("table {table} has lost its way back to the guests"),
                _ => format!("table {table} isn't closed behind the tunnel"),
            });
        }
        // Without its interface there can be no route; that is told of the interface.
        let index = index_of(&tunnel.interface).ok();
        let leading = index.map(|index| tunnel.routes(index)).unwrap_or_default();
        for route in leading.iter().filter(|route| !here.contains(route)) {
            drift.push(format!(
                "table {table} has lost its route to {} by {}",
                route.to, tunnel.interface
            ));
        }
        for other in here
            .iter()
            .filter(|one| !closing.contains(one) && !leading.contains(one))
        {
            drift.push(format!("table {table} has another's route to {}", other.to));
        }
        Ok(drift)
    }

    /// All routes of a table, of whatever kind.
    fn routes(&mut self, table: u32) -> Result<Vec<Route>> {
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

    fn rules(&mut self) -> Result<Vec<RuleMessage>> {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        let found = self
            .0
            .dump(RouteNetlinkMessage::GetRule(message))
            .map_err(|e| {
                Error::new(ErrorKind::Host, "listing the rules of routing")
                    .because(e)
                    .hint("WireGuard for guests needs a kernel with policy routing")
            })?;
        Ok(found
            .into_iter()
            .filter_map(|one| match one {
                RouteNetlinkMessage::NewRule(one) => Some(one),
                _ => None,
            })
            .collect())
    }

    fn add(&mut self, table: u32, route: &Route) -> io::Result<()> {
        self.0
            .request(
                RouteNetlinkMessage::NewRoute(route.message(table)),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .or_else(unless(io::ErrorKind::AlreadyExists))
    }

    fn delete(&mut self, table: u32, route: &Route) -> Result<()> {
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
    fn routes(&self) -> Vec<Route> {
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

    /// By the bridge, so that a false source address is no way out; by the subnet, so that
    /// answers from the tunnel pass the check of their way back.
    fn rules(&self) -> Vec<RuleMessage> {
        let rule = |priority: u32, action: RuleAction, more: RuleAttribute| {
            let mut rule = RuleMessage::default();
            rule.header.family = AddressFamily::Inet;
            rule.header.action = action;
            let priority = RuleAttribute::Priority(PRIORITY + priority);
            rule.attributes = vec![more, priority, RuleAttribute::Protocol(OURS)];
            rule
        };
        let (address, length) = (self.subnet.network().into(), self.subnet.prefix_len());
        let table = RuleAttribute::Table(self.table);
        let mut by_bridge = rule(
            0,
            RuleAction::ToTable,
            RuleAttribute::Iifname(self.bridge.to_string()),
        );
        by_bridge.attributes.push(table.clone());
        let from = |address, length| {
            let mut from = rule(0, RuleAction::ToTable, RuleAttribute::Source(address));
            from.header.src_len = length;
            from.attributes.push(table.clone());
            from
        };
        let mut rules = vec![by_bridge, from(address, length)];
        rules.extend(self.addresses.iter().map(|one| from((*one).into(), 32)));
        if self.fail_closed {
            let to = || RuleAttribute::Destination(address);
            // By a route that is the subnet's own, or by none: in silence, as what the host
            // would say of it quotes it, and would be sent by the host's own routes.
            let mut known = rule(1, RuleAction::ToTable, to());
            known.attributes.extend([
                RuleAttribute::Table(MAIN),
                RuleAttribute::SuppressPrefixLen(u32::from(length.saturating_sub(1))),
            ]);
            let mut lost = rule(2, RuleAction::Blackhole, to());
            for rule in [&mut known, &mut lost] {
                rule.header.dst_len = length;
            }
            rules.extend([known, lost]);
        }
        rules
    }
}

impl TunnelRoutes {
    fn routes(&self, index: u32) -> Vec<Route> {
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

fn table_of(rule: &RuleMessage) -> u32 {
    let named = rule
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Table(table) => Some(*table),
            _ => None,
        });
    named.unwrap_or_else(|| rule.header.table.into())
}

/// Whether a rule that was listed does what one of ours does.
fn is_same(listed: &RuleMessage, ours: &RuleMessage) -> bool {
    listed.header.action == ours.header.action
        && listed.header.src_len == ours.header.src_len
        && listed.header.dst_len == ours.header.dst_len
        && (ours.attributes.iter()).all(|one| listed.attributes.contains(one))
}

fn index_of(interface: &IfName) -> Result<u32> {
    let device = Links::open()?.find(interface.as_str())?;
    device.map(|device| device.index).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("there is no network interface {interface}"),
        )
    })
}

fn unless(kind: io::ErrorKind) -> impl Fn(io::Error) -> io::Result<()> {
    move |e| match e.kind() == kind {
        true => Ok(()),
        false => Err(e),
    }
}

fn failed(what: &str, table: u32, cause: io::Error) -> Error {
    let name = format!("routing table {table}");
    let error = Error::io(what, name, cause);
    match error.kind() {
        ErrorKind::Host => error.hint("networks need root's rights (CAP_NET_ADMIN)"),
        _ => error,
    }
}
