//! The tables as text for `nft -f -`.
//!
//! Text, not JSON: nft 1.0.6 and the crate of its types know no counters on a set's elements
//! there. Nothing in it comes from a person but names that were parsed.

use std::fmt::Write;
use std::net::Ipv4Addr;

use super::compile::{Compiled, Piece, compile};
use super::policy::{ICMP, OTHER, Policy, UDP};
use super::{HostService, Ruleset, Transport, VmPort};
use crate::error::Result;
use crate::name::IfName;
use crate::spec::{FirewallAction, FirewallEgress};

/// Name of a bridge's tables. nft's names have fewer letters than those of interfaces.
pub(super) fn table(bridge: &IfName) -> String {
    let mut name = "smartvm_".to_owned();
    for byte in bridge.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => name.push(byte.into()),
            // Two digits, so that no two bridges share a name.
            _ => name.push_str(&format!("_{byte:02x}")),
        }
    }
    name
}

/// What the maps and chains of the subnet's policy are called.
pub(super) const SUBNET_POLICY: &str = "egress";

/// What those of one guest are called.
pub(super) fn vm_policy(vm: &VmPort) -> String {
    format!("vm_{}", vm.ip.to_string().replace('.', "_"))
}

/// Both tables, whole: whatever they held before is replaced, in one transaction.
pub fn render(ruleset: &Ruleset) -> Result<String> {
    let name = table(&ruleset.bridge);
    let mut out = String::new();
    for family in ["inet", "bridge"] {
        // Added first, so that there is something to delete.
        let _ = writeln!(out, "table {family} {name}\ndelete table {family} {name}");
    }
    let _ = writeln!(out, "table inet {name} {{");
    out.push_str(&policy(
        SUBNET_POLICY,
        ruleset.egress.as_ref(),
        Scope::Subnet,
    )?);
    let mut jumps = [Vec::new(), Vec::new()];
    for vm in &ruleset.vms {
        if let Some(egress) = &vm.policy {
            let chain = vm_policy(vm);
            out.push_str(&policy(&chain, Some(egress), Scope::Vm)?);
            jumps[0].push(format!("{} : jump {chain}_out", vm.ip));
            jumps[1].push(format!("{} : jump {chain}_back", vm.ip));
        }
    }
    for (map, jumps) in ["vm_out", "vm_back"].iter().zip(&jumps) {
        let _ = writeln!(
            out,
            " map {map} {{ type ipv4_addr : verdict; {}}}",
            elements(jumps)
        );
    }
    ip_chains(&mut out, ruleset);
    out.push_str("}\n");
    let _ = writeln!(out, "table bridge {name} {{");
    bridge_chains(&mut out, ruleset);
    out.push_str("}\n");
    Ok(out)
}

fn elements(items: &[String]) -> String {
    match items {
        [] => String::new(),
        items => format!("elements = {{ {} }}; ", items.join(", ")),
    }
}

fn ip_chains(out: &mut String, ruleset: &Ruleset) {
    let (bridge, subnet) = (&ruleset.bridge, ruleset.subnet);
    let tunnel = ruleset.tunnel.as_ref();
    let closed = tunnel.filter(|tunnel| tunnel.fail_closed);
    let nat: Vec<String> = (ruleset.nat_interface.iter().filter(|_| closed.is_none()))
        .chain(tunnel.map(|tunnel| &tunnel.interface))
        .map(|name| format!("\"{name}\""))
        .collect();
    let leaving = match (&ruleset.nat_interface, closed) {
        (None, None) => format!("oifname != \"{bridge}\""),
        _ => "oifname @nat_out".to_owned(),
    };
    let between = if ruleset.guests_may_talk {
        "accept"
    } else {
        "counter drop comment \"guest to guest\""
    };
    let kill = |direction: &str| match closed {
        Some(tunnel) => format!(
            "  {direction} != \"{}\" counter drop comment \"kill switch\"\n",
            tunnel.interface
        ),
        None => String::new(),
    };
    // Whatever has an address of theirs and doesn't pass the bridge: it may be gone.
    let stray = match closed {
        Some(_) => format!(
            "  ip saddr {subnet} counter drop comment \"kill switch\"\n  \
             ip daddr {subnet} counter drop comment \"kill switch\"\n"
        ),
        None => String::new(),
    };
    // Not `rt mtu`: towards the guest that is the bridge's, not the tunnel's.
    let clamp = |direction: &str| match tunnel {
        Some(tunnel) => format!(
            "  {direction} \"{}\" tcp flags syn / syn,rst tcp option maxseg size set {}\n",
            tunnel.interface,
            tunnel.mtu.saturating_sub(40).max(88)
        ),
        None => String::new(),
    };
    // Also what a guest sends to its TAP device's own address, while there is no bridge.
    let beside: String = (ruleset.taps.iter())
        .map(|taps| format!("  iifname \"{taps}*\" counter drop comment \"not by the bridge\"\n"))
        .collect();
    let gateway = ruleset.gateway;
    let services: String = (ruleset.host_services.iter())
        .map(|service| service_rule(gateway, *service))
        .collect();
    let _ = write!(
        out,
        r#" set nat_out {{ type ifname; {nat}}}
 chain forward {{
  type filter hook forward priority filter; policy accept;
  iifname "{bridge}" goto from_guests
  oifname "{bridge}" goto to_guests
{beside}{stray} }}
 chain from_guests {{
  meta nfproto != ipv4 counter drop comment "not IPv4"
  oifname "{bridge}" {between}
{kill_out}  ct state invalid,untracked counter drop comment "no conversation"
  ip saddr != {subnet} counter drop comment "spoofed"
  ip daddr 169.254.0.0/16 counter drop comment "link-local and metadata"
{clamp_out}  ip saddr vmap @vm_out
  goto egress_out
 }}
 chain to_guests {{
  meta nfproto != ipv4 counter drop comment "not IPv4"
{kill_in}  ct state invalid,untracked counter drop comment "no conversation"
  ct direction original counter drop comment "from outside"
  ip daddr != {subnet} counter drop comment "not a guest"
{clamp_in}  ct state related accept
  ip daddr vmap @vm_back
  goto egress_back
 }}
 chain input {{
  type filter hook input priority filter; policy accept;
  iifname "{bridge}" goto host
{beside} }}
 chain host {{
  meta nfproto != ipv4 counter drop comment "not IPv4"
  ct direction reply accept
  ip daddr {gateway} icmp type echo-request accept
{services}  counter drop comment "host"
 }}
 chain postrouting {{
  type nat hook postrouting priority srcnat; policy accept;
  ip saddr {subnet} {leaving} masquerade
 }}
"#,
        nat = elements(&nat),
        kill_out = kill("oifname"),
        kill_in = kill("iifname"),
        clamp_out = clamp("oifname"),
        clamp_in = clamp("iifname"),
    );
}

/// The gateway's address alone: the host's others are none of the guests' business.
fn service_rule(gateway: Ipv4Addr, service: HostService) -> String {
    let protocol = match service.protocol {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    format!(
        "  ip daddr {gateway} {protocol} dport {} accept\n",
        service.port
    )
}

/// The element that ties a guest's addresses to its port.
fn guest_element(vm: &VmPort) -> String {
    format!("\"{}\" . {} . {}", vm.tap, vm.mac, vm.ip)
}

fn bridge_chains(out: &mut String, ruleset: &Ruleset) {
    let taps: Vec<String> = (ruleset.vms.iter())
        .map(|vm| format!("\"{}\"", vm.tap))
        .collect();
    let guests: Vec<String> = ruleset.vms.iter().map(guest_element).collect();
    let between = if ruleset.guests_may_talk {
        ""
    } else {
        "  iifname @taps counter drop comment \"guest to guest\"
  oifname @taps counter drop comment \"guest to guest\"\n"
    };
    // VLAN tags and all else that isn't plain IPv4 or ARP ends here. An ARP message must tell
    // its sender's own addresses.
    let _ = write!(
        out,
        r#" set taps {{ type ifname; {taps}}}
 set guests {{ type ifname . ether_addr . ipv4_addr; {guests}}}
 chain prerouting {{
  type filter hook prerouting priority -300; policy accept;
  iifname @taps goto guest
 }}
 chain guest {{
  ether type != {{ ip, arp }} counter drop comment "neither IPv4 nor ARP"
  ether type ip iifname . ether saddr . ip saddr @guests accept
  ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation {{ request, reply }} iifname . ether saddr . arp saddr ip @guests iifname . arp saddr ether . arp saddr ip @guests accept
  counter drop comment "spoofed"
 }}
 chain forward {{
  type filter hook forward priority filter; policy accept;
{between} }}
 chain postrouting {{
  type filter hook postrouting priority 300; policy accept;
  oifname @taps ether type != {{ ip, arp }} counter drop comment "neither IPv4 nor ARP"
 }}
"#,
        taps = elements(&taps),
        guests = elements(&guests),
    );
}

/// Whose policy it is, which decides what an allow means.
#[derive(Clone, Copy)]
pub(super) enum Scope {
    Subnet,
    Vm,
}

/// A policy's maps and its two chains, for what leaves and for what comes back.
pub(super) fn policy(name: &str, egress: Option<&FirewallEgress>, scope: Scope) -> Result<String> {
    let everything = FirewallEgress::default();
    let compiled = compile(&Policy::new(egress.unwrap_or(&everything))?);
    let mut out = String::new();
    let mut chains = [String::new(), String::new()];
    for (number, kinds) in kinds(&compiled, scope).iter().enumerate() {
        for (kind, items) in Kind::ALL.iter().zip(kinds) {
            if items.is_empty() {
                continue;
            }
            let map = format!("{name}_{number}{}", kind.suffix());
            let _ = writeln!(
                out,
                " map {map} {{ type {} : verdict; flags interval; counter; {}}}",
                kind.key(),
                elements(items)
            );
            let [there, back] = kind.expressions();
            let _ = writeln!(chains[0], "  {there} vmap @{map}");
            let _ = writeln!(chains[1], "  {back} vmap @{map}");
        }
    }
    for (suffix, rules) in ["out", "back"].iter().zip(&chains) {
        let _ = writeln!(out, " chain {name}_{suffix} {{\n{rules} }}");
    }
    Ok(out)
}

/// Which fields of a packet a map looks at.
#[derive(Clone, Copy)]
enum Kind {
    Address,
    Protocol,
    Port,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Address, Self::Protocol, Self::Port];

    fn suffix(self) -> &'static str {
        ["_address", "_protocol", "_port"][self as usize]
    }

    fn key(self) -> &'static str {
        match self {
            Self::Address => "ipv4_addr",
            Self::Protocol => "ipv4_addr . inet_proto",
            Self::Port => "ipv4_addr . inet_proto . inet_service",
        }
    }

    fn expressions(self) -> [&'static str; 2] {
        match self {
            Self::Address => ["ip daddr", "ip saddr"],
            Self::Protocol => ["ip daddr . meta l4proto", "ip saddr . meta l4proto"],
            Self::Port => [
                "ip daddr . meta l4proto . th dport",
                "ip saddr . meta l4proto . th sport",
            ],
        }
    }
}

/// The elements of each group's three maps.
fn kinds(compiled: &Compiled, scope: Scope) -> Vec<[Vec<String>; 3]> {
    let mut groups = Vec::new();
    for group in &compiled.groups {
        let mut kinds = [Vec::new(), Vec::new(), Vec::new()];
        for piece in group {
            pieces(piece, scope, &mut kinds);
        }
        groups.push(kinds);
    }
    groups
}

fn pieces(piece: &Piece, scope: Scope, kinds: &mut [Vec<String>; 3]) {
    let verdict = match (piece.action, scope) {
        (FirewallAction::Deny, _) => "drop",
        (FirewallAction::Allow, Scope::Subnet) => "accept",
        (FirewallAction::Allow, Scope::Vm) => "return",
    };
    let mut add = |kind: Kind, more: &str| {
        kinds[kind as usize].push(format!(
            "{}{more} comment \"{}\" : {verdict}",
            piece.to, piece.rule
        ));
    };
    let (first, last) = piece.services;
    if (first, last) == (0, OTHER) {
        return add(Kind::Address, "");
    }
    for (number, offset) in [(6, 0), (17, UDP)] {
        let (from, to) = (first.max(offset), last.min(offset + 65535));
        if from > to {
            continue;
        }
        match (from - offset, to - offset) {
            (0, 65535) => add(Kind::Protocol, &format!(" . {number}")),
            (from, to) if from == to => add(Kind::Port, &format!(" . {number} . {from}")),
            (from, to) => add(Kind::Port, &format!(" . {number} . {from}-{to}")),
        }
    }
    if (first..=last).contains(&ICMP) {
        add(Kind::Protocol, " . 1");
    }
    if last == OTHER {
        for others in ["0", "2-5", "7-16", "18-255"] {
            add(Kind::Protocol, &format!(" . {others}"));
        }
    }
}
