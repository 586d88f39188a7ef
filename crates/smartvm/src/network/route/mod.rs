//! Policy routing: guests' traffic has a table of its own, and what isn't led into the tunnel
//! there ends there.
//!
//! This is one of the kill switch's two layers, and needs nothing of the other, the forward
//! chain: whatever comes from an address of the subnet is looked up in the table, in which the
//! subnet itself is thrown back to the host's own tables, the tunnel's routes follow, and the
//! rest is unreachable; whatever else comes in by the bridge has a false address, and is dropped. When the tunnel's interface goes, its
//! routes go with it, and what stays is unreachable. What goes to the subnet and finds no way
//! there, as the bridge is gone, is unreachable too: the default route would send answers out
//! in the clear.

mod rule;
mod table;

use std::io;

use netlink_packet_route::route::{RouteProtocol, RouteType};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::link::Links;
use super::netlink::Socket;
use super::{GuestTable, TunnelRoutes};
use crate::error::{Error, ErrorKind, Result};
use crate::name::IfName;
use rule::{is_in, table_of};

/// By which routes and rules are ours (`ip` shows it as `proto 118`).
const OURS: RouteProtocol = RouteProtocol::Other(118);

/// The rules and tables of this thread's network namespace.
pub(super) struct Routing(Socket);

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
        self.add_rules(&guests.rules(), guests.table)
    }

    /// Leads nothing there any more, and empties the table of what is ours.
    pub(super) fn reopen(&mut self, guests: &GuestTable) -> Result<()> {
        self.delete_rules(&guests.rules(), guests.table)?;
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
        if !(guests.rules().iter()).all(|rule| is_in(&rules, rule)) {
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
