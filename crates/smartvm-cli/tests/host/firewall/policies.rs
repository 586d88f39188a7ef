//! The subnet's policy and guests' own, while they talk.

use std::time::Duration;

use smartvm::network::firewall::{add_vm, counters, remove, remove_vm, replace_policy};
use smartvm::spec::{FirewallAction, FirewallEgress, FirewallRule};

use super::{Lab, arrives, deny, rules, ruleset, vm};

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
        assert!(add_vm(&bridge, &strict).unwrap());
        assert!(add_vm(&bridge, &strict).unwrap());
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
