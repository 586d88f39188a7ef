use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::policy::{Packet, Policy, Protocol};
use super::*;
use crate::spec::{FirewallAction, FirewallEgress, FirewallPorts, FirewallProtocol, FirewallRule};

fn rule() -> impl Strategy<Value = FirewallRule> {
    let action = prop_oneof![Just(FirewallAction::Allow), Just(FirewallAction::Deny)];
    // Few bits, so that networks often hold one another.
    let to = prop::option::of((0u32..16, prop_oneof![Just(0u8), Just(8), 28u8..=32]));
    let ports = prop::option::of(prop::collection::vec(1u32..8, 1..4));
    (action, to, 0usize..4, ports).prop_map(|(action, to, protocol, ports)| {
        let protocol = [
            FirewallProtocol::All,
            FirewallProtocol::Icmp,
            FirewallProtocol::Tcp,
            FirewallProtocol::Udp,
        ][protocol];
        let with_ports = matches!(protocol, FirewallProtocol::Tcp | FirewallProtocol::Udp);
        let mut rule = FirewallRule::builder()
            .action(action)
            .protocol(protocol)
            .build();
        rule.to = to.map(|(bits, length)| {
            let net = Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 | bits), length).unwrap();
            net.trunc().to_string()
        });
        rule.ports = ports.filter(|_| with_ports).map(FirewallPorts::Many);
        rule
    })
}

fn egress(most: usize) -> impl Strategy<Value = FirewallEgress> {
    let rules = prop::collection::vec(rule(), 0..most);
    (rules, any::<bool>()).prop_map(|(rules, deny)| {
        let default = if deny {
            FirewallAction::Deny
        } else {
            FirewallAction::Allow
        };
        FirewallEgress::builder()
            .rules(rules)
            .default_action(default)
            .build()
    })
}

fn packets() -> impl Iterator<Item = Packet> {
    let protocols = (0..9)
        .flat_map(|port| [Protocol::Tcp(port), Protocol::Udp(port)])
        .chain([Protocol::Icmp, Protocol::Other]);
    let to = (0..17).map(|bits| Ipv4Addr::from(0x0a00_0000 | bits));
    to.chain([Ipv4Addr::new(11, 0, 0, 1)]).flat_map(move |to| {
        protocols
            .clone()
            .map(move |protocol| Packet { to, protocol })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn compiled_rules_decide_as_the_list_does(egress in egress(40)) {
        let policy = Policy::new(&egress).unwrap();
        let compiled = compile(&policy);
        prop_assert!(compiled.is_disjoint());
        for packet in packets() {
            prop_assert_eq!(compiled.decide(packet), Some(policy.decide(packet)), "{:?}", packet);
        }
    }
}

fn hosts(count: u32) -> FirewallEgress {
    let rules: Vec<FirewallRule> = (0..count)
        .map(|host| {
            let action = [FirewallAction::Allow, FirewallAction::Deny][host as usize % 2];
            let to = Ipv4Addr::from(0x0a00_0000 + host).to_string();
            let mut rule = FirewallRule::builder().action(action).to(to).build();
            if host % 3 == 0 {
                rule.protocol = Some(FirewallProtocol::Tcp);
                rule.ports = Some(FirewallPorts::One(host % 60_000 + 1));
            }
            rule
        })
        .collect();
    FirewallEgress::builder().rules(rules).build()
}

#[test]
fn ten_thousand_rules_are_as_deep_as_ten() {
    let depth = |count| compile(&Policy::new(&hosts(count)).unwrap()).depth();
    assert_eq!(depth(10), 2);
    assert_eq!(depth(10_000), 2);
}

#[test]
fn rules_that_cut_one_another_to_pieces_stay_bounded() {
    // Ports for everybody, then everything for hosts: cut up, that would be 250,000 pieces.
    let mut rules = Vec::new();
    for number in 1..=500 {
        let every = FirewallRule::builder()
            .action(FirewallAction::Deny)
            .protocol(FirewallProtocol::Tcp)
            .ports(number * 2)
            .build();
        rules.push(every);
    }
    rules.extend(hosts(500).rules);
    let policy = Policy::new(&FirewallEgress::builder().rules(rules).build()).unwrap();
    let compiled = compile(&policy);
    let pieces: usize = compiled.groups.iter().map(Vec::len).sum();
    assert!(pieces <= 1001 * 64, "{pieces}");
    assert!(compiled.depth() <= 4, "{}", compiled.depth());
}

fn ruleset() -> Ruleset {
    let deny = |to: &str| {
        FirewallRule::builder()
            .action(FirewallAction::Deny)
            .to(to)
            .build()
    };
    let web = FirewallRule::builder()
        .action(FirewallAction::Allow)
        .to("10.1.0.0/16")
        .protocol(FirewallProtocol::Tcp)
        .ports([80, 443])
        .comment("web\" } drop")
        .build();
    Ruleset {
        bridge: "sv-br0".parse().unwrap(),
        subnet: "172.30.0.0/24".parse().unwrap(),
        gateway: "172.30.0.1".parse().unwrap(),
        nat_interface: Some("eth0".parse().unwrap()),
        tunnel: None,
        guests_may_talk: false,
        host_services: vec![HostService {
            protocol: Transport::Udp,
            port: 53,
        }],
        egress: Some(
            FirewallEgress::builder()
                .rules([web, deny("10.0.0.0/8")])
                .build(),
        ),
        vms: vec![VmPort {
            tap: "svtap1".parse().unwrap(),
            mac: "06:00:ac:1e:00:02".parse().unwrap(),
            ip: "172.30.0.2".parse().unwrap(),
            policy: Some(
                FirewallEgress::builder()
                    .rules([deny("10.2.0.0/16")])
                    .build(),
            ),
        }],
        taps: vec!["sv0a1b2c-".into()],
    }
}

#[test]
fn the_tables_are_as_reviewed() {
    insta::assert_snapshot!("plain", render(&ruleset()).unwrap());
}

#[test]
fn the_tables_with_a_kill_switch_are_as_reviewed() {
    let tunnel = Tunnel {
        interface: "svwg0".parse().unwrap(),
        mtu: 1420,
        fail_closed: true,
    };
    let closed = Ruleset {
        tunnel: Some(tunnel),
        egress: None,
        vms: Vec::new(),
        guests_may_talk: true,
        ..ruleset()
    };
    insta::assert_snapshot!("kill_switch", render(&closed).unwrap());
}

#[test]
fn no_two_bridges_share_a_table_and_no_comment_reaches_nft() {
    let name = |bridge: &str| render::table(&bridge.parse().unwrap());
    assert_eq!(name("svbr0"), "smartvm_svbr0");
    assert_ne!(name("a-b"), name("a.b"));
    assert!(!render(&ruleset()).unwrap().contains("web"));
}

#[test]
fn every_field_of_a_rule_decides() {
    let egress: FirewallEgress = serde_json::from_value(serde_json::json!({
        "defaultAction": "deny",
        "rules": [
            { "action": "allow", "to": "10.0.0.0/8", "protocol": "tcp", "ports": [80, 443] },
            { "action": "allow", "to": "10.0.0.1", "protocol": "icmp" },
        ],
    }))
    .unwrap();
    let compiled = compile(&Policy::new(&egress).unwrap());
    let decides = |to: &str, protocol| {
        let to = to.parse().unwrap();
        compiled.decide(Packet { to, protocol }).unwrap()
    };
    let (allow, deny) = (FirewallAction::Allow, FirewallAction::Deny);
    assert_eq!(decides("10.9.9.9", Protocol::Tcp(443)), (0, allow));
    assert_eq!(decides("11.9.9.9", Protocol::Tcp(443)), (2, deny));
    assert_eq!(decides("10.9.9.9", Protocol::Tcp(444)), (2, deny));
    assert_eq!(decides("10.9.9.9", Protocol::Udp(443)), (2, deny));
    assert_eq!(decides("10.0.0.1", Protocol::Icmp), (1, allow));
    assert_eq!(decides("10.0.0.2", Protocol::Icmp), (2, deny));
}
