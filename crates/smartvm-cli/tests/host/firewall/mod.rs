//! The firewall in the kernel: namespaces stand for guests and for the Internet, a private one
//! for the host.

mod command;
mod decisions;
mod isolation;
mod policies;
mod streams;

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use smartvm::network::firewall::{HostService, Ruleset, Transport, VmPort, apply};
use smartvm::spec::{FirewallAction, FirewallEgress, FirewallRule};

use crate::lab::Space;

/// A host with a bridge, two guests on it, and a server that has every address there is.
struct Lab {
    host: Space,
    guests: [Space; 2],
    server: Space,
}

fn vm(number: u8) -> VmPort {
    VmPort {
        tap: format!("svtap{number}").parse().unwrap(),
        mac: format!("06:00:ac:1e:00:0{number}").parse().unwrap(),
        ip: Ipv4Addr::new(172, 30, 0, number),
        policy: None,
    }
}

fn ruleset(egress: Option<FirewallEgress>) -> Ruleset {
    Ruleset {
        bridge: "svbr0".parse().unwrap(),
        subnet: "172.30.0.0/24".parse().unwrap(),
        gateway: "172.30.0.1".parse().unwrap(),
        nat_interface: Some("up0".parse().unwrap()),
        tunnel: None,
        guests_may_talk: false,
        host_services: vec![HostService {
            protocol: Transport::Tcp,
            port: 8053,
        }],
        egress,
        vms: vec![vm(2), vm(3)],
        taps: vec!["svtap".into()],
    }
}

impl Lab {
    fn new() -> Self {
        let lab = Self {
            host: Space::new(),
            guests: [Space::new(), Space::new()],
            server: Space::new(),
        };
        let host = &lab.host;
        host.run("ip link add svbr0 type bridge");
        host.run("ip addr add 172.30.0.1/24 dev svbr0");
        host.run("ip link set svbr0 up");
        for (guest, number) in lab.guests.iter().zip([2, 3]) {
            let port = vm(number);
            let pid = guest.pid();
            host.run(&format!(
                "ip link add {} type veth peer name eth0 address {} netns {pid}",
                port.tap, port.mac
            ));
            host.run(&format!("ip link set {} master svbr0 up", port.tap));
            guest.run(&format!("ip addr add {}/24 dev eth0", port.ip));
            guest.run("ip link set eth0 up");
            guest.run("ip route add default via 172.30.0.1");
        }
        let pid = lab.server.pid();
        host.run(&format!(
            "ip link add up0 type veth peer name eth0 netns {pid}"
        ));
        host.run("ip addr add 192.0.2.1/24 dev up0");
        host.run("ip link set up0 up");
        host.run("ip route add default via 192.0.2.2");
        host.run("sysctl -qw net.ipv4.ip_forward=1");
        lab.server.run("ip addr add 192.0.2.2/24 dev eth0");
        lab.server.run("ip link set eth0 up");
        lab.server.run("ip route add local 10.0.0.0/8 dev lo");
        lab.server
            .run("ip route add local 169.254.169.254/32 dev lo");
        lab
    }

    fn apply(&self, ruleset: &Ruleset) {
        self.host.inside(|| apply(ruleset).unwrap());
    }

    fn tables(&self) -> String {
        self.host.run("nft -s list ruleset")
    }
}

/// Whether what is sent arrives: twice, as the first may only start a neighbour's discovery.
fn arrives(from: &UdpSocket, to: &str, at: &UdpSocket) -> bool {
    at.set_read_timeout(Some(Duration::from_millis(150)))
        .unwrap();
    let mut buffer = [0; 64];
    while at.set_nonblocking(true).is_ok() && at.recv(&mut buffer).is_ok() {}
    at.set_nonblocking(false).unwrap();
    (0..2).any(|_| from.send_to(b"x", to).is_ok() && at.recv(&mut buffer).is_ok())
}

fn deny(to: &str) -> FirewallRule {
    FirewallRule::builder()
        .action(FirewallAction::Deny)
        .to(to)
        .build()
}

fn rules(rules: impl Into<Vec<FirewallRule>>) -> FirewallEgress {
    FirewallEgress::builder().rules(rules.into()).build()
}
