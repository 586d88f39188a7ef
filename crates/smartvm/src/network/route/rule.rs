//! The rules that say whose traffic is looked up in which table.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{GuestTable, OURS, Routing, failed, unless};
use crate::error::{Error, ErrorKind, Result};
use crate::network::netlink::is_missing;

/// Where our rules stand: behind the kernel's local table, before what other programs add.
const PRIORITY: u32 = 100;
/// The table that the host's own routes are in.
const MAIN: u32 = 254;
/// A route to so much, or to more, is no route to anywhere in particular: halves of everything
/// are another tunnel's way of saying "default".
const NOWHERE_IN_PARTICULAR: u32 = 1;

impl GuestTable {
    /// By the subnet, so that answers from the tunnel pass the check of their way back, too.
    pub(super) fn rules(&self) -> Vec<RuleMessage> {
        let (subnet, length) = (self.subnet.network(), self.subnet.prefix_len());
        let mut rules = vec![from(0, subnet, length, self.table)];
        let addresses = self.addresses.iter();
        rules.extend(addresses.map(|one| from(0, *one, 32, self.table)));
        if self.fail_closed {
            // By a route that is the subnet's own, or by none.
            let too_vague = u32::from(length.saturating_sub(1));
            rules.extend(only_by_its_own_way(1, subnet, length, too_vague));
            // Another source than the subnet's is a false one, and no way out. In silence, too:
            // it is who would be told.
            let mut forged = rule(3, RuleAttribute::Iifname(self.bridge.to_string()));
            forged.header.action = RuleAction::Blackhole;
            rules.push(forged);
            let addresses = self.addresses.iter();
            rules.extend(addresses.flat_map(|one| answers_to(*one)));
        }
        rules
    }
}

/// What this host sends from an address that another's tunnel has: by the host's own routes
/// where these lead to its destination in particular, as its owner has it, else as guests'
/// traffic. Guests' has this source in the tunnel, and what this host says of that quotes it:
/// by the default route it would leave in the clear.
fn of_address(address: Ipv4Addr, table: u32) -> [RuleMessage; 4] {
    let mut known = from(4, address, 32, MAIN);
    unless_vaguer(&mut known, NOWHERE_IN_PARTICULAR);
    let [by_own_way, lost] = answers_to(address);
    [known, from(5, address, 32, table), by_own_way, lost]
}

/// Answers to a tunnel's address, which guests' traffic has there. They are this host's for as
/// long as it has the address; when somebody takes that away, they still come for a while, and
/// would be sent on by the default route.
fn answers_to(address: Ipv4Addr) -> [RuleMessage; 2] {
    only_by_its_own_way(6, address, 32, NOWHERE_IN_PARTICULAR)
}

/// What goes to these addresses: by one of the host's own routes, unless its prefix has so few
/// bits or fewer, else nowhere. In silence, as what the host would say of it quotes it, and
/// would be sent by the host's own routes.
fn only_by_its_own_way(
    priority: u32,
    address: Ipv4Addr,
    length: u8,
    too_vague: u32,
) -> [RuleMessage; 2] {
    let to = |priority| {
        let mut to = rule(priority, RuleAttribute::Destination(address.into()));
        to.header.dst_len = length;
        to
    };
    let (mut known, mut lost) = (to(priority), to(priority + 1));
    look_up(&mut known, MAIN);
    unless_vaguer(&mut known, too_vague);
    lost.header.action = RuleAction::Blackhole;
    [known, lost]
}

fn rule(priority: u32, what: RuleAttribute) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = AddressFamily::Inet;
    let priority = RuleAttribute::Priority(PRIORITY + priority);
    rule.attributes = vec![what, priority, RuleAttribute::Protocol(OURS)];
    rule
}

fn from(priority: u32, address: Ipv4Addr, length: u8, table: u32) -> RuleMessage {
    let mut from = rule(priority, RuleAttribute::Source(address.into()));
    from.header.src_len = length;
    look_up(&mut from, table);
    from
}

fn look_up(rule: &mut RuleMessage, table: u32) {
    rule.header.action = RuleAction::ToTable;
    rule.attributes.push(RuleAttribute::Table(table));
}

/// Passes over what is found if its prefix has so few bits, or fewer.
fn unless_vaguer(rule: &mut RuleMessage, bits: u32) {
    rule.attributes.push(RuleAttribute::SuppressPrefixLen(bits));
}

impl Routing {
    /// Leads what this host sends from an address of another's tunnel there, too.
    pub(in crate::network) fn lead_from(&mut self, address: Ipv4Addr, table: u32) -> Result<()> {
        self.add_rules(&of_address(address, table), table)
    }

    /// Does so no more; no matter if it didn't.
    pub(in crate::network) fn lead_from_no_more(
        &mut self,
        address: Ipv4Addr,
        table: u32,
    ) -> Result<()> {
        self.delete_rules(&of_address(address, table), table)
    }

    /// Those of these addresses that aren't led there.
    pub(in crate::network) fn not_led_from(
        &mut self,
        addresses: &[Ipv4Addr],
        table: u32,
    ) -> Result<Vec<Ipv4Addr>> {
        let there = self.rules()?;
        let is_led = |address| (of_address(address, table).iter()).all(|one| is_in(&there, one));
        let addresses = addresses.iter().copied();
        Ok(addresses.filter(|one| !is_led(*one)).collect())
    }

    /// Adds those that aren't there, in their order.
    pub(super) fn add_rules(&mut self, rules: &[RuleMessage], table: u32) -> Result<()> {
        let there = self.rules()?;
        for rule in rules.iter().filter(|rule| !is_in(&there, rule)) {
            let request = RouteNetlinkMessage::NewRule(rule.clone());
            self.0
                .request(request, NLM_F_CREATE | NLM_F_EXCL)
                .or_else(unless(io::ErrorKind::AlreadyExists))
                .map_err(|e| failed("leading guests' traffic to", table, e))?;
        }
        Ok(())
    }

    /// Deletes those that are there, in the reverse order.
    pub(super) fn delete_rules(&mut self, rules: &[RuleMessage], table: u32) -> Result<()> {
        for rule in rules.iter().rev() {
            let request = RouteNetlinkMessage::DelRule(rule.clone());
            match self.0.request(request, 0) {
                Err(e) if !is_missing(&e) => {
                    return Err(failed("leading guests' traffic no more to", table, e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn rules(&mut self) -> Result<Vec<RuleMessage>> {
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
}

/// The table that a rule leads to.
pub(super) fn table_of(rule: &RuleMessage) -> u32 {
    let named = rule
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Table(table) => Some(*table),
            _ => None,
        });
    named.unwrap_or_else(|| rule.header.table.into())
}

pub(super) fn is_in(listed: &[RuleMessage], ours: &RuleMessage) -> bool {
    listed.iter().any(|one| is_same(one, ours))
}

/// Whether a rule that was listed does what one of ours does.
fn is_same(listed: &RuleMessage, ours: &RuleMessage) -> bool {
    listed.header.action == ours.header.action
        && listed.header.src_len == ours.header.src_len
        && listed.header.dst_len == ours.header.dst_len
        && (ours.attributes.iter()).all(|one| listed.attributes.contains(one))
}
