//! Firewall rules.

use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr};

use super::report::{Report, quoted};
use crate::spec::{FirewallConfig, FirewallProtocol, FirewallRule};

/// Largest number of rules.
const MAX_RULES: usize = 20_000;
/// Largest number of ports in one rule.
const MAX_PORTS: usize = 1024;

pub(super) fn check(firewall: &FirewallConfig, path: &str, report: &mut Report) {
    let Some(egress) = &firewall.egress else {
        return;
    };
    let path = format!("{path}.egress.rules");
    let count = egress.rules.len();
    if count > MAX_RULES {
        // One problem, not one for each rule.
        return report.wrong(&path, format!("are {count}"), "at most 20000 rules");
    }
    for (index, rule) in egress.rules.iter().enumerate() {
        one(rule, &format!("{path}[{index}]"), report);
    }
}

fn one(rule: &FirewallRule, path: &str, report: &mut Report) {
    if let Some(to) = &rule.to
        && let Err((problem, allowed)) = destination(to)
    {
        report.wrong(format!("{path}.to"), problem, allowed);
    }
    ports(rule, &format!("{path}.ports"), report);
    if let Some(comment) = &rule.comment {
        report.demand(
            comment.len() <= 128 && !comment.chars().any(char::is_control),
            format!("{path}.comment"),
            || format!("{} isn't a comment", quoted(comment)),
            "at most 128 bytes without control characters",
        );
    }
}

/// An IPv4 address or network.
pub(crate) fn destination(text: &str) -> Result<Ipv4Net, (String, String)> {
    const ALLOWED: &str = "an IPv4 address or network, such as 10.0.0.0/8";
    let refuse = |problem: &str| Err((format!("{} {problem}", quoted(text)), ALLOWED.to_owned()));
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: Ipv4Addr = match address.parse() {
        Ok(IpAddr::V4(address)) => address,
        Ok(IpAddr::V6(_)) => {
            return refuse("is IPv6, and guests have no IPv6: nothing would match");
        }
        Err(_) => return refuse("is neither an address nor a network"),
    };
    let digits = |prefix: &str| {
        (1..=2).contains(&prefix.len()) && prefix.bytes().all(|it| it.is_ascii_digit())
    };
    let prefix: u8 = match prefix {
        None => 32,
        Some(prefix) if !digits(prefix) => return refuse("has a prefix that isn't 0 to 32"),
        Some(prefix) => prefix.parse().unwrap_or(u8::MAX),
    };
    let Ok(network) = Ipv4Net::new(address, prefix) else {
        return refuse("has a prefix that isn't 0 to 32");
    };
    if network.trunc() != network {
        return Err((
            format!("{} has bits set beyond its prefix", quoted(text)),
            format!("{}, or {address} alone", network.trunc()),
        ));
    }
    Ok(network)
}

fn ports(rule: &FirewallRule, path: &str, report: &mut Report) {
    let Some(ports) = &rule.ports else { return };
    let protocol = rule.protocol.unwrap_or_default();
    report.demand(
        matches!(protocol, FirewallProtocol::Tcp | FirewallProtocol::Udp),
        path,
        || {
            let name = match protocol {
                FirewallProtocol::Icmp => "icmp",
                _ => "all",
            };
            format!("are given with the protocol `{name}`, which has none")
        },
        "only with `protocol` tcp or udp",
    );
    let numbers = ports.as_slice();
    report.demand(
        (1..=MAX_PORTS).contains(&numbers.len()),
        path,
        || match numbers.len() {
            0 => "is an empty list, which could match nothing".into(),
            count => format!("are {count}"),
        },
        "1 to 1024 ports; leave it out for all",
    );
    for (index, port) in numbers.iter().take(MAX_PORTS).enumerate() {
        let place = match ports {
            crate::spec::FirewallPorts::One(_) => path.to_owned(),
            crate::spec::FirewallPorts::Many(_) => format!("{path}[{index}]"),
        };
        report.demand(
            (1..=65535).contains(port),
            place,
            || format!("{port} isn't a port"),
            "1 to 65535",
        );
    }
}
