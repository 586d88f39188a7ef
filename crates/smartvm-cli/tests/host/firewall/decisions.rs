//! The kernel's decisions against those of the list of rules.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use smartvm::network::firewall::{Packet, Policy, Protocol, replace_policy};
use smartvm::spec::{FirewallAction, FirewallPorts, FirewallProtocol, FirewallRule};

use super::{Lab, rules, ruleset};

/// A small generator of numbers, always the same ones.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}

#[test]
fn the_kernel_decides_as_the_list_of_rules_does() {
    let lab = Lab::new();
    lab.apply(&ruleset(None));
    let servers: Vec<UdpSocket> = (1..=4)
        .map(|port| lab.server.udp(&format!("0.0.0.0:{port}")))
        .collect();
    let guest = lab.guests[0].udp("0.0.0.0:0");
    let mut dice = Dice(7);
    let mut denied = 0;
    for round in 0..12u64 {
        // The first makes the last packet of a round arrive, whatever the others say.
        let mut list = vec![
            FirewallRule::builder()
                .action(FirewallAction::Allow)
                .to("10.255.0.1")
                .build(),
        ];
        for _ in 0..40 {
            let action = [FirewallAction::Allow, FirewallAction::Deny][dice.below(2) as usize];
            let length = [8, 28, 29, 30, 31, 32][dice.below(6) as usize];
            let bits = dice.below(16) as u32 & !((1u64 << (32 - length).min(31)) - 1) as u32;
            let mut rule = FirewallRule::builder()
                .action(action)
                .to(format!("10.0.0.{bits}/{length}"))
                .build();
            rule.protocol = [
                None,
                Some(FirewallProtocol::Udp),
                Some(FirewallProtocol::Tcp),
            ][dice.below(3) as usize];
            if rule.protocol.is_some() {
                rule.ports = Some(FirewallPorts::One(dice.below(4) as u32 + 1));
            }
            list.push(rule);
        }
        let egress = rules(list);
        lab.host
            .inside(|| replace_policy(&"svbr0".parse().unwrap(), &egress).unwrap());
        let policy = Policy::new(&egress).unwrap();
        let mut expected = Vec::new();
        for number in 0..64u8 {
            let (host, port) = (dice.below(18) as u8, dice.below(4) as u16 + 1);
            let to = Ipv4Addr::new(10, 0, 0, host);
            guest.send_to(&[round as u8, number], (to, port)).unwrap();
            let packet = Packet {
                to,
                protocol: Protocol::Udp(port),
            };
            match policy.decide(packet).1 {
                FirewallAction::Allow => expected.push((port, number)),
                _ => denied += 1,
            }
        }
        for port in 1..=4 {
            guest
                .send_to(&[round as u8, 255], ("10.255.0.1", port))
                .unwrap();
        }
        let mut got = Vec::new();
        for (server, port) in servers.iter().zip(1..) {
            server
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let mut buffer = [0; 8];
            while server.recv(&mut buffer).unwrap() == 2 && buffer[1] != 255 {
                assert_eq!(buffer[0], round as u8);
                got.push((port, buffer[1]));
            }
        }
        got.sort_unstable();
        expected.sort_unstable();
        assert_eq!(got, expected, "round {round}");
    }
    assert!(denied > 100, "{denied}");
}
