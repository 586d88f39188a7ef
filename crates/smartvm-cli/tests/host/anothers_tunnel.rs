//! A WireGuard interface of another's, which guests' traffic leaves by.

use std::net::UdpSocket;

use smartvm::spec::{WireGuardConfig, WireGuardExisting};

use crate::lab::{pause_network_keeper, resume_network_keeper};
use crate::tunnel::{Fire, Peer, Way, run, until};

pub(crate) fn existing(interface: &str) -> WireGuardConfig {
    WireGuardConfig::Existing(
        WireGuardExisting::builder()
            .existing_interface(interface)
            .build(),
    )
}

/// An interface of somebody else's on the host, which has its way to the peer.
fn theirs(way: &Way) -> Peer {
    let theirs = Peer::make(None, "10.9.0.3/24");
    let networks = "10.9.0.3/32,10.9.0.4/32";
    way.peer.admit(&way.far, &theirs.keys.public, networks, "");
    run(&format!(
        "wg set {} peer {} allowed-ips 0.0.0.0/0 endpoint 198.18.0.1:51820",
        theirs.device, way.peer.keys.public
    ));
    theirs
}

#[test]
fn anothers_interface_is_used_and_left_as_it_was() {
    let way = Way::new();
    let theirs = theirs(&way);
    let device = &theirs.device;
    let set = || {
        let lines = run(&format!("wg showconf {device}"));
        lines + &run(&format!("ip -d link show {device}"))
    };
    let (before, was) = (way.picture(), set());
    let network = way.network(existing(device));
    network.up().unwrap();
    way.connect_guest();
    let fire = Fire::begin(&way);
    fire.arrives("through another's tunnel");
    let tunnel = network.status().unwrap().tunnel.unwrap();
    assert!(!tunnel.managed && tunnel.implementation.is_none());
    let peer = &tunnel.peers[0];
    assert_eq!(peer.public_key, way.peer.keys.public);
    assert!(peer.last_handshake.is_some() && peer.received_bytes > 0 && peer.sent_bytes > 0);
    drop(fire);
    way.disconnect_guest();
    network.down().unwrap();
    assert_eq!(way.picture(), before);
    assert_eq!(set(), was);

    // When it goes, it isn't smartvm's to make.
    network.up().unwrap();
    way.connect_guest();
    let fire = Fire::begin(&way);
    fire.arrives("again");
    run(&format!("ip link delete {device}"));
    fire.stays_inside("another's tunnel is gone");
    let refused = network.up().unwrap_err();
    assert!(
        refused.to_string().contains("isn't smartvm's to make"),
        "{refused}"
    );
    drop(fire);
    network.down().unwrap();
}

/// Answers from the tunnel come to its owner's address, which the host answers for itself when
/// nothing takes them back to the guest. What it says quotes them.
#[test]
fn what_this_host_says_of_guests_from_its_address_leaves_by_it_or_not_at_all() {
    let way = Way::new();
    let theirs = theirs(&way);
    let device = &theirs.device;
    // Its owner serves a neighbour of the host's at that address.
    way.other.run("ip route add 10.9.0.0/24 via 198.51.100.2");
    let serves = || {
        let service = UdpSocket::bind("10.9.0.3:99").unwrap();
        let client = way.other.udp("198.51.100.1:98");
        client.send_to(b"question", "10.9.0.3:99").unwrap();
        let mut buffer = [0; 16];
        let (_, whose) = service.recv_from(&mut buffer).unwrap();
        service.send_to(b"answer", whose).unwrap();
        let patience = std::time::Duration::from_secs(10);
        client.set_read_timeout(Some(patience)).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 6);
    };
    serves();
    let before = way.picture();
    let network = way.network(existing(device));
    network.up().unwrap();
    serves();
    way.connect_guest();
    let fire = Fire::begin(&way);
    fire.arrives("at first");

    let flushed = |when: &str| {
        pause_network_keeper(&way.file("run"));
        run("nft flush ruleset");
        fire.stays_inside(when);
        let drift = network.status().unwrap().drift;
        assert_eq!(
            drift.len(),
            1,
            "{when}: nothing but the firewall: {drift:?}"
        );
        resume_network_keeper(&way.file("run"));
        until("the ruleset is there again", || {
            network.status().unwrap().drift.is_empty()
        });
        way.admit_guest();
    };
    flushed("the ruleset is flushed");

    let rules = || run("ip rule").replace("[detached] ", "");
    run("ip rule delete priority 105");
    until("a rule is there again", || {
        rules().contains("105:\tfrom 10.9.0.3 lookup 51820")
    });
    pause_network_keeper(&way.file("run"));
    run(&format!("ip address delete 10.9.0.3/24 dev {device}"));
    fire.stays_inside("its address is taken away");
    run(&format!("ip address add 10.9.0.4/24 dev {device}"));
    fire.stays_inside("it has another, which nobody follows yet");
    resume_network_keeper(&way.file("run"));
    until("its new address is followed", || {
        rules().contains("from 10.9.0.4 ") && !rules().contains("from 10.9.0.3 ")
    });
    until("all is as it should be", || {
        network.status().unwrap().drift.is_empty()
    });
    fire.arrives("from its new address");
    flushed("the ruleset is flushed once more");

    drop(fire);
    way.disconnect_guest();
    run(&format!("ip address add 10.9.0.3/24 dev {device}"));
    run(&format!("ip address delete 10.9.0.4/24 dev {device}"));
    run(&format!("ip address replace 10.9.0.3/24 dev {device}"));
    until("its first address is followed", || {
        rules().contains("from 10.9.0.3 ") && !rules().contains("from 10.9.0.4 ")
    });
    network.down().unwrap();
    assert_eq!(way.picture(), before);
}
