//! The bridge deleted by hand, while a guest sends what is said to be another's: its port is then a
//! device of the host's like any other.

use smartvm::network::Network;
use smartvm::spec::WireGuardConfig;

use crate::lab::{pause_network_keeper, resume_network_keeper};
use crate::tunnel::{Fire, Way, run, until};

fn deleted(way: &Way, network: &Network, fire: &Fire, more: &[&str], when: &str) {
    pause_network_keeper(&way.file("run"));
    run("ip link delete svbr0");
    for line in more {
        run(line);
    }
    fire.stays_inside(when);
    resume_network_keeper(&way.file("run"));
    until("all is there again", || {
        network.status().unwrap().drift.is_empty()
    });
    way.admit_guest();
    way.plug_in();
    fire.arrives("after it was mended");
}

#[test]
fn a_guest_whose_bridge_was_deleted_gets_nothing_out_whoever_it_says_it_is() {
    let way = Way::new();
    let network = way.network(WireGuardConfig::Managed(way.managed(way.text(""))));
    let before = way.picture();
    network.up().unwrap();
    way.connect_guest();
    // Some other program has all interfaces forward, also those to come.
    run("sysctl -qw net.ipv4.ip_forward=1");
    let fire = Fire::begin(&way);
    fire.arrives("at first");
    let port = way.port();
    let lenient = format!("sysctl -qw net.ipv4.conf.{port}.rp_filter=0");
    let strict = format!("sysctl -qw net.ipv4.conf.{port}.rp_filter=1");
    deleted(
        &way,
        &network,
        &fire,
        &[&lenient],
        "the forward chain alone: whatever the port takes in",
    );
    deleted(
        &way,
        &network,
        &fire,
        &[&strict, "nft flush ruleset"],
        "the port alone: there is no firewall",
    );
    drop(fire);
    way.disconnect_guest();
    network.down().unwrap();
    run("sysctl -qw net.ipv4.ip_forward=0");
    assert_eq!(way.picture(), before);
}
