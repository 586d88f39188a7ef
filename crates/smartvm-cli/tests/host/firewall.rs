//! The firewall in the kernel: namespaces stand for guests and for the Internet, a private one
//! for the host.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use smartvm::network::firewall::{
    HostService, Packet, Policy, Protocol, Ruleset, Transport, VmPort, add_vm, apply, counters,
    remove, remove_vm, replace_policy,
};
use smartvm::spec::{
    FirewallAction, FirewallEgress, FirewallPorts, FirewallProtocol, FirewallRule,
};

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

fn connects(space: &Space, to: &str) -> bool {
    let to: SocketAddr = to.parse().unwrap();
    space.inside(|| TcpStream::connect_timeout(&to, Duration::from_millis(400)).is_ok())
}

/// Whether an address answers an ICMP echo request within half a second.
fn answers_ping(to: &str) -> bool {
    use rustix::net::{AddressFamily, SocketType, ipproto, socket};
    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)).unwrap();
    let socket = UdpSocket::from(raw);
    // Type, code, checksum, and nothing more.
    socket
        .send_to(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0], (to, 0))
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut buffer = [0; 128];
    // The reply's type stands behind the IP header.
    socket
        .recv(&mut buffer)
        .is_ok_and(|length| length > 20 && buffer[20] == 0)
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

#[test]
fn guests_are_alone_and_other_tables_are_left_alone() {
    let lab = Lab::new();
    let [one, two] = &lab.guests;
    lab.host.run("nft add table inet foreign");
    let before = lab.tables();
    lab.apply(&ruleset(None));
    let server = lab.server.udp("0.0.0.0:9");
    let guest = one.udp("0.0.0.0:0");
    let other = two.udp("0.0.0.0:9");
    let _services = lab
        .host
        .inside(|| ["0.0.0.0:8053", "0.0.0.0:8080"].map(|at| TcpListener::bind(at).unwrap()));

    assert!(arrives(&guest, "10.1.2.3:9", &server), "out, masqueraded");
    let ping = |to: &str| one.inside(|| answers_ping(to));
    assert!(ping("172.30.0.1"), "the gateway answers");
    assert!(!ping("192.0.2.1"), "the host's other address doesn't");
    assert!(!ping("172.30.0.3"), "another guest doesn't");
    assert!(!arrives(&guest, "172.30.0.3:9", &other), "guest to guest");
    assert!(!arrives(&guest, "169.254.169.254:9", &server), "metadata");
    assert!(connects(one, "172.30.0.1:8053"), "a service that is named");
    assert!(!connects(one, "172.30.0.1:8080"), "one that isn't");
    assert!(!connects(one, "192.0.2.1:8053"), "at another address");

    // Spoofing, by address, by hardware address and by ARP.
    one.run("ip addr add 172.30.0.77/24 dev eth0");
    let spoofing = one.udp("172.30.0.77:0");
    assert!(
        !arrives(&spoofing, "10.1.2.3:9", &server),
        "another address"
    );
    one.run("ip addr del 172.30.0.77/24 dev eth0");
    one.run("ip link set eth0 address 06:00:ac:1e:00:99");
    one.run("ip route replace default via 172.30.0.1");
    assert!(
        !arrives(&guest, "10.1.2.3:9", &server),
        "another hardware address"
    );
    one.run("ip link set eth0 address 06:00:ac:1e:00:02");
    one.run("ip route replace default via 172.30.0.1");
    assert!(arrives(&guest, "10.1.2.3:9", &server), "its own again");
    let counted = lab
        .host
        .inside(|| counters(&"svbr0".parse().unwrap()).unwrap().unwrap());
    for reason in [
        "spoofed",
        "guest to guest",
        "host",
        "link-local and metadata",
    ] {
        assert!(counted.dropped[reason].packets > 0, "{reason}: {counted:?}");
    }

    // Guests may talk where the ruleset says so.
    lab.apply(&Ruleset {
        guests_may_talk: true,
        ..ruleset(None)
    });
    assert!(
        arrives(&guest, "172.30.0.3:9", &other),
        "guest to guest, allowed"
    );

    let bridge = "svbr0".parse().unwrap();
    lab.host.inside(|| {
        remove(&bridge).unwrap();
        remove(&bridge).unwrap();
    });
    assert_eq!(lab.tables(), before);
}

#[test]
fn a_new_policy_ends_what_it_denies_and_leaves_alone_what_it_allows() {
    let lab = Lab::new();
    lab.apply(&ruleset(None));
    let guest = lab.guests[0].udp("0.0.0.0:0");
    let server = lab.server.udp("0.0.0.0:9");
    let talk = || {
        let mut buffer = [0; 8];
        guest.send_to(b"x", "192.0.2.2:9").unwrap();
        server
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        server.recv_from(&mut buffer).unwrap().1
    };
    let back = talk();
    let answered = || arrives(&server, &back.to_string(), &guest);
    assert!(answered());
    let bridge = "svbr0".parse().unwrap();
    let set = |egress: FirewallEgress| {
        lab.host
            .inside(|| replace_policy(&bridge, &egress).unwrap());
    };
    set(rules([deny("10.0.0.0/8")]));
    assert!(
        answered(),
        "an allowed conversation goes on, the server speaking first"
    );
    set(rules([deny("192.0.2.2")]));
    assert!(
        !answered(),
        "a denied one ends, also for what the server sends"
    );
    assert!(!arrives(&guest, "192.0.2.2:9", &server));
    set(FirewallEgress::default());
    assert!(answered(), "and may go on when it is allowed again");

    // One guest's own policy: its deny is final, its allow goes on to the subnet's.
    let mut strict = vm(2);
    let allow = FirewallRule::builder()
        .action(FirewallAction::Allow)
        .to("10.2.0.0/16")
        .build();
    strict.policy = Some(rules([allow, deny("192.0.2.0/24")]));
    lab.host.inside(|| {
        add_vm(&bridge, &strict).unwrap();
        add_vm(&bridge, &strict).unwrap();
    });
    set(rules([deny("10.2.2.0/24")]));
    assert!(
        !arrives(&guest, "192.0.2.2:9", &server),
        "denied to this guest"
    );
    assert!(arrives(&guest, "10.2.1.1:9", &server), "allowed by both");
    assert!(
        !arrives(&guest, "10.2.2.1:9", &server),
        "allowed, then denied"
    );
    let neighbour = lab.guests[1].udp("0.0.0.0:0");
    assert!(
        arrives(&neighbour, "192.0.2.2:9", &server),
        "not its policy"
    );
    let counted = lab.host.inside(|| counters(&bridge).unwrap().unwrap());
    assert!(counted.egress[&0].packets >= 2, "{counted:?}");
    assert!(counted.vms["172.30.0.2"][&1].packets >= 2, "{counted:?}");

    lab.host.inside(|| {
        remove_vm(&bridge, &strict).unwrap();
        remove_vm(&bridge, &strict).unwrap();
    });
    assert!(
        arrives(&guest, "10.2.1.1:9", &server),
        "a TAP that isn't a guest's is not ours"
    );
    lab.host.inside(|| remove(&bridge).unwrap());
    lab.host.inside(|| remove_vm(&bridge, &strict).unwrap());
}

#[test]
fn the_command_shows_and_sets_the_rules_and_refuses_bad_ones() {
    let lab = Lab::new();
    let dir = tempfile::tempdir().unwrap();
    let runtime = dir.path().join("run");
    let smartvm = |arguments: &str| {
        let line = format!(
            "{} --runtime-dir {} --data-dir {} {arguments}",
            crate::support::SMARTVM,
            runtime.display(),
            dir.path().display()
        );
        lab.host.try_run(&line)
    };
    let (good, said) = smartvm("firewall show");
    assert!(!good && said.contains("isn't up"), "{said}");
    lab.host.run("ip link delete svbr0");
    assert!(smartvm("network up").0);
    lab.host.run("ip link set svtap2 master svbr0");
    let file = dir.path().join("rules.json");
    let set = |text: &str| {
        std::fs::write(&file, text).unwrap();
        smartvm(&format!("firewall set -f {}", file.display()))
    };
    let before = lab.tables();
    for (rule, place) in [
        (r#"{"action": "deny", "to": "::1"}"#, "egress.rules[0].to"),
        (
            r#"{"action": "deny", "to": "10.0.0.1/8"}"#,
            "egress.rules[0].to",
        ),
        (
            r#"{"action": "deny", "protocol": "icmp", "ports": 1}"#,
            "egress.rules[0].ports",
        ),
        (
            r#"{"action": "deny", "protocol": "tcp", "ports": 0}"#,
            "egress.rules[0].ports",
        ),
        (
            r#"{"action": "deny", "protocol": "tcp", "ports": 70000}"#,
            "egress.rules[0].ports",
        ),
        (
            r#"{"action": "deny", "protocol": "tcp", "ports": []}"#,
            "egress.rules[0].ports",
        ),
        (
            r#"{"action": "deny", "comment": "a\u0007"}"#,
            "egress.rules[0].comment",
        ),
    ] {
        let (good, said) = set(&format!(r#"{{"egress": {{"rules": [{rule}]}}}}"#));
        assert!(!good && said.contains(place), "{rule}: {said}");
    }
    let many = vec![r#"{"action":"deny"}"#; 100_000].join(",");
    let (good, said) = set(&format!(r#"{{"egress": {{"rules": [{many}]}}}}"#));
    assert!(!good && said.contains("at most 20000 rules"), "{said}");
    assert_eq!(lab.tables(), before, "a bad file changes nothing");

    let (server, office) = (lab.server.udp("192.0.2.2:9"), lab.server.udp("10.1.1.1:9"));
    let guest = lab.guests[0].udp("0.0.0.0:0");
    let talk = |to: &UdpSocket| {
        let mut buffer = [0; 8];
        guest.send_to(b"x", to.local_addr().unwrap()).unwrap();
        to.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        to.recv_from(&mut buffer).unwrap().1.to_string()
    };
    let (stays, ends) = (talk(&server), talk(&office));
    let rule = r#"{"action": "deny", "to": "10.0.0.0/8", "comment": "office"}"#;
    let (good, said) = set(&format!(r#"{{"egress": {{"rules": [{rule}]}}}}"#));
    assert!(good, "{said}");
    assert!(!arrives(&guest, "10.1.1.1:9", &office));
    assert!(arrives(&guest, "192.0.2.2:9", &server));
    let shown: serde_json::Value =
        serde_json::from_str(&smartvm("firewall show --json").1).unwrap();
    assert_eq!(shown["egress"]["rules"][0]["comment"], "office");
    assert_eq!(shown["counters"]["egress"]["0"]["packets"], 2);
    assert_eq!(shown["counters"]["egress"]["1"]["packets"], 1);
    let (_, said) = smartvm("firewall show");
    assert!(
        said.contains("office") && said.contains("10.0.0.0/8"),
        "{said}"
    );
    // Tables that are made anew have it too, and count from the beginning.
    lab.host.run("nft flush ruleset");
    assert!(smartvm("network up").0);
    assert!(!arrives(&guest, "10.1.1.1:9", &office));
    let shown: serde_json::Value =
        serde_json::from_str(&smartvm("firewall show --json").1).unwrap();
    assert_eq!(shown["egress"]["rules"][0]["comment"], "office");
    assert_eq!(shown["counters"]["egress"]["0"]["packets"], 2);

    // A conversation that was denied is over, also where it is allowed again.
    assert!(set("{}").0);
    assert!(arrives(&server, &stays, &guest), "it was never denied");
    assert!(!arrives(&office, &ends, &guest), "it was denied");
    assert!(arrives(&guest, "10.1.1.1:9", &office), "a new one");
}

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
