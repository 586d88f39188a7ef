//! Rules that leave a guest the Internet and nothing nearer.

use std::net::Ipv4Addr;

use super::Network;
use crate::spec::{FirewallAction, FirewallEgress, FirewallProtocol, FirewallRule};

/// What is not the Internet (RFC 6890, 1112 and 6598), and why.
const NEARER: [(&str, &str); 9] = [
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared with the provider"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local and metadata"),
    ("172.16.0.0/12", "private"),
    ("192.168.0.0/16", "private"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
];

impl Network {
    /// A guest's own rules: the Internet, the name servers that it is given, and of these rules
    /// what is left. Private, link-local and metadata addresses are denied.
    pub fn internet_only(&self, own: Option<FirewallEgress>) -> FirewallEgress {
        internet_only(&self.name_servers(), own.unwrap_or_default())
    }
}

fn internet_only(name_servers: &[Ipv4Addr], mut own: FirewallEgress) -> FirewallEgress {
    let mut rules = Vec::new();
    for server in name_servers {
        for protocol in [FirewallProtocol::Udp, FirewallProtocol::Tcp] {
            let rule = FirewallRule::builder()
                .action(FirewallAction::Allow)
                .to(server.to_string())
                .protocol(protocol)
                .ports(53)
                .comment("name server");
            rules.push(rule.build());
        }
    }
    rules.extend(NEARER.map(|(to, why)| {
        let rule = FirewallRule::builder().action(FirewallAction::Deny).to(to);
        rule.comment(why).build()
    }));
    rules.append(&mut own.rules);
    own.rules = rules;
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::firewall::{Packet, Policy, Protocol};

    #[test]
    fn the_internet_alone_is_left_and_the_name_servers_wherever_they_are() {
        let own: FirewallEgress = serde_json::from_str(
            r#"{ "rules": [{ "action": "deny", "protocol": "tcp", "ports": 25 }] }"#,
        )
        .unwrap();
        let policy = Policy::new(&internet_only(&[[10, 0, 0, 53].into()], own)).unwrap();
        let denies = |to: &str, protocol| {
            let to = to.parse().unwrap();
            policy.denies(Packet { to, protocol })
        };
        for near in [
            "10.0.0.1",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
        ] {
            assert!(denies(near, Protocol::Tcp(80)), "{near}");
        }
        assert!(!denies("1.1.1.1", Protocol::Tcp(80)));
        assert!(denies("1.1.1.1", Protocol::Tcp(25)), "what was denied is");
        assert!(!denies("10.0.0.53", Protocol::Udp(53)));
        assert!(denies("10.0.0.53", Protocol::Tcp(80)));
    }
}
