//! What guests can't do, whatever the rules say.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use smartvm::network::firewall::{Ruleset, counters, remove};

use super::{Lab, arrives, ruleset};
use crate::lab::Space;

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
