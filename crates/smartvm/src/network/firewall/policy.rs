//! A policy as numbers, and what it decides, rule by rule.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

use crate::error::{Error, ErrorKind, Result};
use crate::spec::{FirewallAction, FirewallEgress, FirewallProtocol, FirewallRule};
use crate::validate::destination;

/// TCP's ports, UDP's, ICMP and all other protocols on one line of numbers, so that what a
/// rule matches beside the address is a list of ranges.
pub(super) const UDP: u32 = 1 << 16;
pub(super) const ICMP: u32 = 2 << 16;
pub(super) const OTHER: u32 = ICMP + 1;

/// A part of that line, ends included.
pub(super) type Span = (u32, u32);

/// What goes to where, as far as a policy looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Where it goes.
    pub to: Ipv4Addr,
    /// Its protocol.
    pub protocol: Protocol,
}

/// A packet's protocol, with the port that it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp(u16),
    /// UDP.
    Udp(u16),
    /// ICMP.
    Icmp,
    /// Any other.
    Other,
}

impl Packet {
    pub(super) fn service(self) -> u32 {
        match self.protocol {
            Protocol::Tcp(port) => port.into(),
            Protocol::Udp(port) => UDP + u32::from(port),
            Protocol::Icmp => ICMP,
            Protocol::Other => OTHER,
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) action: FirewallAction,
    pub(super) to: Ipv4Net,
    pub(super) services: Vec<Span>,
}

/// Ordered rules, the last of which is the default action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(super) rules: Vec<Rule>,
}

impl Policy {
    /// The policy that a spec describes. What [`crate::validate`] refuses is refused here too.
    pub fn new(egress: &FirewallEgress) -> Result<Self> {
        let mut rules = egress
            .rules
            .iter()
            .enumerate()
            .map(|(index, rule)| parsed(rule, index))
            .collect::<Result<Vec<_>>>()?;
        rules.push(Rule {
            action: egress.default_action.unwrap_or_default(),
            to: Ipv4Net::default(),
            services: vec![(0, OTHER)],
        });
        Ok(Self { rules })
    }

    /// The number of the rule that decides about a packet, and what it decides: the first that
    /// matches. The number of the default action is that of the rules.
    pub fn decide(&self, packet: Packet) -> (usize, FirewallAction) {
        let service = packet.service();
        self.rules
            .iter()
            .enumerate()
            .find(|(_, rule)| {
                rule.to.contains(&packet.to)
                    && rule
                        .services
                        .iter()
                        .any(|(first, last)| (*first..=*last).contains(&service))
            })
            // The default action matches everything.
            .map_or((self.rules.len(), FirewallAction::Deny), |(index, rule)| {
                (index, rule.action)
            })
    }
}

impl Policy {
    /// Whether it drops a packet.
    pub(crate) fn denies(&self, packet: Packet) -> bool {
        self.decide(packet).1 == FirewallAction::Deny
    }
}

fn parsed(rule: &FirewallRule, index: usize) -> Result<Rule> {
    let wrong = |what: String| {
        Error::new(
            ErrorKind::Invalid,
            format!("firewall.egress.rules[{index}]: {what}"),
        )
    };
    let to = match &rule.to {
        Some(text) => destination(text).map_err(|(problem, _)| wrong(problem))?,
        None => Ipv4Net::default(),
    };
    let ports = match &rule.ports {
        Some(ports) => spans(ports.as_slice()),
        None => vec![(0, 65535)],
    };
    let shifted = |by: u32| ports.iter().map(|(a, b)| (a + by, b + by)).collect();
    let services = match rule.protocol.unwrap_or_default() {
        FirewallProtocol::Tcp => ports,
        FirewallProtocol::Udp => shifted(UDP),
        _ if rule.ports.is_some() => return Err(wrong("ports need tcp or udp".into())),
        FirewallProtocol::Icmp => vec![(ICMP, ICMP)],
        FirewallProtocol::All => vec![(0, OTHER)],
    };
    let known: RangeInclusive<u32> = 0..=OTHER;
    if services.is_empty() || !services.iter().all(|(_, last)| known.contains(last)) {
        return Err(wrong("ports are 1 to 65535, at least one".into()));
    }
    Ok(Rule {
        action: rule.action,
        to,
        services,
    })
}

/// Ports as ranges: sorted, neighbours joined.
fn spans(ports: &[u32]) -> Vec<Span> {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    let mut spans: Vec<Span> = Vec::new();
    for port in sorted {
        match spans.last_mut() {
            Some((_, last)) if port <= *last + 1 => *last = port.max(*last),
            _ => spans.push((port, port)),
        }
    }
    spans
}
