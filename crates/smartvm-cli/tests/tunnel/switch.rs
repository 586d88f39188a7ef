//! The kill switch under fire.

use rustix::process::Signal;
use smartvm::process::ProcessId;
use smartvm::spec::WireGuardConfig;

use super::peer::kernel_has_wireguard;
use super::{Fire, Way, run, until};
use crate::lab::{network_keeper, pause_network_keeper};

#[test]
fn whatever_is_done_to_the_tunnel_nothing_of_the_guests_leaves_elsewhere() {
    let way = Way::new();
    let network = way.network(WireGuardConfig::Managed(way.managed(way.text(""))));
    network.up().unwrap();
    let before = run("ip -o link");
    let tunnel = network.status().unwrap().tunnel.unwrap();
    let by = tunnel.implementation.unwrap();
    assert_eq!(by == "kernel", kernel_has_wireguard(), "{by}");
    way.connect_guest();
    // It would mend by itself what is broken here.
    pause_network_keeper(&way.file("run"));
    let fire = Fire::begin(&way);
    fire.arrives("at first");
    let name = &way.interface;
    let mend = |what: &str| {
        let drift = network.status().unwrap().drift;
        assert!(!drift.is_empty(), "{what}: no drift is told");
        network.up().unwrap();
        way.admit_guest();
        let drift = network.status().unwrap().drift;
        assert!(drift.is_empty(), "{what}: {drift:?}");
        fire.arrives(what);
    };

    run(&format!("ip link delete {name}"));
    fire.stays_inside("its interface is deleted");
    run("nft flush ruleset");
    fire.stays_inside("and the ruleset flushed: routing alone");
    mend("made again, with the ruleset");

    run("nft flush ruleset");
    fire.stays_inside("the ruleset is flushed, with the tunnel up");
    run(&format!("ip link set {name} down"));
    fire.stays_inside("and the tunnel is down");
    mend("up again");

    run("ip route replace default via 198.51.100.1 dev other0 table 51820");
    fire.stays_inside("its route leads elsewhere: the forward chain alone");
    mend("its route again");

    run("ip route flush table 51820");
    fire.stays_inside("its table is flushed");
    mend("its table again");

    run("ip rule delete priority 100");
    run("ip rule delete priority 100");
    fire.stays_inside("its rules are deleted");
    run(&format!("ip link delete {name}"));
    fire.stays_inside("and its interface");
    mend("all of it again");

    run("nft flush chain inet smartvm_svbr0 from_guests");
    fire.stays_inside("a chain is flushed");
    mend("the chain again");

    for pid in way.programs() {
        let program = ProcessId::of(pid).unwrap().unwrap();
        program
            .open()
            .unwrap()
            .unwrap()
            .signal(Signal::KILL)
            .unwrap();
    }
    if by != "kernel" {
        fire.stays_inside("its program is killed");
        mend("its program again");
    }

    run("ip link delete svbr0");
    fire.stays_inside("the bridge is deleted");
    network.up().unwrap();
    run("ip link set guest0 master svbr0");
    way.admit_guest();
    fire.arrives("the bridge again");
    drop(fire);
    assert_eq!(
        before.lines().count() + 1,
        run("ip -o link").lines().count()
    );
    network.down().unwrap();
}

#[test]
fn without_fail_closed_what_the_tunnel_does_not_take_leaves_elsewhere() {
    let way = Way::new();
    let mut managed = way.managed(way.text(""));
    managed.fail_closed = Some(false);
    let network = way.network(WireGuardConfig::Managed(managed));
    let before = way.picture();
    network.up().unwrap();
    network.down().unwrap();
    assert_eq!(way.picture(), before);
    network.up().unwrap();
    way.connect_guest();
    let fire = Fire::begin(&way);
    fire.arrives("at first, all of it goes into the tunnel");
    pause_network_keeper(&way.file("run"));
    run(&format!("ip link delete {}", way.interface));
    fire.escapes("without the tunnel");
    drop(fire);
    network.down().unwrap();
    run("ip link delete guest0");
    assert_eq!(way.picture(), before);
}

#[test]
fn the_networks_keeper_mends_it_by_itself_and_nothing_leaves_meanwhile() {
    let way = Way::new();
    let network = way.network(WireGuardConfig::Managed(way.managed(way.text(""))));
    let before = way.picture();
    network.up().unwrap();
    way.connect_guest();
    let fire = Fire::begin(&way);
    fire.arrives("at first");
    let mended = |what: &str| {
        until(&format!("{what}: it is mended"), || {
            network.status().unwrap().drift.is_empty()
        });
        fire.arrives(what);
    };
    run(&format!("ip link delete {}", way.interface));
    mended("its interface is deleted");
    run("ip route replace default via 198.51.100.1 dev other0 table 51820");
    mended("its route leads elsewhere");
    run("ip rule delete priority 100");
    mended("a rule is deleted");
    run("nft flush ruleset");
    until("the ruleset is there again", || {
        network.status().unwrap().drift.is_empty()
    });
    way.admit_guest();
    mended("the ruleset is flushed");
    for pid in way.programs() {
        let program = ProcessId::of(pid).unwrap().unwrap();
        program
            .open()
            .unwrap()
            .unwrap()
            .signal(Signal::KILL)
            .unwrap();
        mended("its program is killed");
    }
    let keeper = network_keeper(&way.file("run")).open().unwrap().unwrap();
    keeper.signal(Signal::KILL).unwrap();
    until("its end is told", || {
        !network.status().unwrap().drift.is_empty()
    });
    network.up().unwrap();
    mended("there is another keeper");
    drop(fire);
    run("ip link delete guest0");
    network.down().unwrap();
    assert_eq!(way.picture(), before);
}
