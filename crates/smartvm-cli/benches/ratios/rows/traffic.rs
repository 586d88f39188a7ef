//! What packets of guests cost: namespaces with veth stand for guest, host and server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use smartvm::network::firewall::{Ruleset, VmPort, apply};
use smartvm::spec::{FirewallAction, FirewallEgress, FirewallRule};

use crate::corner::Corner;
use crate::figures::{Figures, timed};
use crate::lab::Space;
use crate::row::Row;

/// Datagrams for one figure.
const DATAGRAMS: u32 = 20_000;
/// Bytes for one figure.
const BYTES: usize = 64 << 20;

pub(crate) const RULES: Row = Row {
    name: "firewall-rules",
    about: "20,000 datagrams of a guest through 10,000 rules / through 10",
    target: Some(1.1),
    measure: rules,
};

pub(crate) const THROUGHPUT: Row = Row {
    name: "throughput",
    about: "64 MiB over TCP through the whole firewall / through a bridge and one masquerade rule",
    // A throughput of at least 0.9.
    target: Some(1.11),
    measure: throughput,
};

/// A guest, a host with the guest's bridge, and a server outside.
struct Path {
    host: Space,
    guest: Space,
    server: Space,
}

impl Path {
    fn new() -> Self {
        let path = Self {
            host: Space::new(),
            guest: Space::new(),
            server: Space::new(),
        };
        let (guest, server) = (path.guest.pid(), path.server.pid());
        for line in [
            "ip link add svbr0 type bridge".to_owned(),
            "ip address add 172.30.0.1/24 dev svbr0".into(),
            "ip link set svbr0 up".into(),
            format!(
                "ip link add tap0 type veth peer name eth0 address 06:00:ac:1e:00:02 netns {guest}"
            ),
            "ip link set tap0 master svbr0 up".into(),
            format!("ip link add up0 type veth peer name eth0 netns {server}"),
            "ip address add 192.0.2.1/24 dev up0".into(),
            "ip link set up0 up".into(),
            "ip route add default via 192.0.2.2".into(),
            "sysctl -qw net.ipv4.ip_forward=1".into(),
        ] {
            path.host.run(&line);
        }
        path.guest.run("ip address add 172.30.0.2/24 dev eth0");
        path.guest.run("ip link set eth0 up");
        path.guest.run("ip route add default via 172.30.0.1");
        path.server.run("ip address add 192.0.2.2/24 dev eth0");
        path.server.run("ip link set eth0 up");
        path.server.run("ip route add local 10.0.0.0/8 dev lo");
        path
    }

    /// One with our whole firewall, and so many rules.
    fn ruled(rules: u32) -> Self {
        let path = Self::new();
        let bridge = "svbr0".parse().unwrap();
        let subnet = "172.30.0.0/24".parse().unwrap();
        let mut ruleset = Ruleset::new(bridge, subnet, Ipv4Addr::new(172, 30, 0, 1));
        ruleset.vms = vec![VmPort {
            tap: "tap0".parse().unwrap(),
            mac: "06:00:ac:1e:00:02".parse().unwrap(),
            ip: Ipv4Addr::new(172, 30, 0, 2),
            policy: None,
        }];
        // Of hosts, every other one denied: the packets' own is the last.
        let rule = |number: u32| {
            let action = [FirewallAction::Deny, FirewallAction::Allow][number as usize % 2];
            let to = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + number);
            FirewallRule::builder()
                .action(action)
                .to(to.to_string())
                .build()
        };
        let rules: Vec<FirewallRule> = (0..rules).map(rule).collect();
        ruleset.egress = Some(FirewallEgress::builder().rules(rules).build());
        path.host.inside(|| apply(&ruleset).unwrap());
        path
    }

    /// One with a masquerade rule and nothing else.
    fn plain() -> Self {
        let path = Self::new();
        let rules = [
            "nft add table ip nat",
            "nft add chain ip nat out { type nat hook postrouting priority 100 ; }",
            "nft add rule ip nat out oifname up0 masquerade",
        ];
        for rule in rules {
            path.host.run(rule);
        }
        path
    }

    /// How long the guest takes to send its datagrams. They are carried to the end by its own
    /// system calls.
    fn send(&self, last: u32) -> Duration {
        let to = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + last);
        let server = self.server.udp("0.0.0.0:9");
        let guest = self.guest.udp("0.0.0.0:0");
        guest.connect((to, 9)).unwrap();
        let mut buffer = [0; 100];
        // The way is known, and leads there.
        server
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let arrived =
            (0..5).any(|_| guest.send(&buffer).is_ok() && server.recv(&mut buffer).is_ok());
        assert!(arrived, "nothing arrives at {to}");
        timed(|| {
            for _ in 0..DATAGRAMS {
                // A full queue's refusal costs as much.
                let _ = guest.send(&buffer);
            }
        })
        .0
    }

    /// How long it takes to carry some bytes to the server.
    fn carry(&self) -> Duration {
        let listener = self
            .server
            .inside(|| TcpListener::bind("0.0.0.0:0").unwrap());
        let port = listener.local_addr().unwrap().port();
        let sink = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 256 << 10];
            let mut read = 0;
            while read < BYTES {
                read += stream.read(&mut buffer).unwrap();
            }
            stream.write_all(b"!").unwrap();
        });
        let mut stream = (self.guest)
            .inside(|| TcpStream::connect((Ipv4Addr::new(192, 0, 2, 2), port)).unwrap());
        let chunk = vec![0; 256 << 10];
        let took = timed(|| {
            for _ in 0..BYTES / chunk.len() {
                stream.write_all(&chunk).unwrap();
            }
            stream.read_exact(&mut [0]).unwrap();
        })
        .0;
        sink.join().unwrap();
        took
    }
}

fn rules(_corner: &Corner, pairs: usize) -> Figures {
    let (many, few) = (Path::ruled(10_000), Path::ruled(10));
    Figures::pairs(pairs, || many.send(10_000), || few.send(10))
}

fn throughput(_corner: &Corner, pairs: usize) -> Figures {
    let (ours, plain) = (Path::ruled(10), Path::plain());
    Figures::pairs(pairs, || ours.carry(), || plain.carry())
}
