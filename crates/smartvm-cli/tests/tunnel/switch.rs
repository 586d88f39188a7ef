//! The kill switch under fire.

use smartvm::spec::WireGuardConfig;

use super::peer::kernel_has_wireguard;
use super::{Fire, Way, kill, run};
use crate::lab::pause_network_keeper;

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

    run("nft flush ruleset");
    run(&format!("ip address flush dev {name}"));
    fire.stays_inside("its address is taken away, with the ruleset: routing alone");
    mend("its address again");

    run("ip route replace default via 198.51.100.1 dev other0 table 51820");
    fire.stays_inside("its route leads elsewhere: the forward chain alone");
    mend("its route again");

    run("ip route flush table 51820");
    fire.stays_inside("its table is flushed");
    mend("its table again");

    for priority in [100, 100, 103] {
        run(&format!("ip rule delete priority {priority}"));
    }
    fire.stays_inside("its rules are deleted");
    run(&format!("ip link delete {name}"));
    fire.stays_inside("and its interface");
    mend("all of it again");

    run("nft flush chain inet smartvm_svbr0 from_guests");
    fire.stays_inside("a chain is flushed");
    mend("the chain again");

    for pid in way.programs() {
        kill(pid);
    }
    if by != "kernel" {
        fire.stays_inside("its program is killed");
        mend("its program again");
    }

    run("ip link delete svbr0");
    fire.stays_inside("the bridge is deleted");
    network.up().unwrap();
    way.plug_in();
    way.admit_guest();
    fire.arrives("the bridge again");
    drop(fire);
    assert_eq!(
        before.lines().count() + 1,
        run("ip -o link").lines().count()
    );
    network.down().unwrap();
}
