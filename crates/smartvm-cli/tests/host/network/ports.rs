//! Guests that come to a network that others have broken, and that its keeper hasn't mended yet.

use smartvm::vm::{StartOptions, StopMode};

use super::{Namespace, connected, run};
use crate::lab::pause_network_keeper;
use crate::support::Corner;

#[tokio::test]
async fn a_start_mends_what_its_guest_needs_where_the_keeper_has_not_yet() {
    let namespace = Namespace::enter();
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = namespace.picture();
    let network = smartvm.network();
    network.up().unwrap();
    pause_network_keeper(&corner.file("run"));
    let harms = [
        "nft flush ruleset",
        "nft delete table inet smartvm_svbr0",
        "nft delete table bridge smartvm_svbr0",
        "ip link set svbr0 down",
        "ip link delete svbr0",
    ];
    for (number, harm) in harms.iter().enumerate() {
        let words: Vec<&str> = harm.split(' ').collect();
        run(words[0], &words[1..]);
        assert!(!network.status().unwrap().drift.is_empty(), "{harm}");
        let spec = connected(&corner, &format!("vm{number}"));
        let mut vm = smartvm.create(&spec).await.unwrap();
        vm.start(&StartOptions::default()).await.unwrap();
        let status = network.status().unwrap();
        assert_eq!(status.drift.join("; "), "", "{harm}");
        let tap = status.leases[0].tap.as_str();
        let shown = run("ip", &["-d", "link", "show", tap]);
        assert!(shown.contains("master svbr0"), "{harm}: {shown}");
        let judged = run("nft", &["list", "table", "bridge", "smartvm_svbr0"]);
        assert!(judged.contains(tap), "{harm}: {judged}");
        vm.stop(StopMode::Kill).await.unwrap();
    }
    network.down().unwrap();
    assert_eq!(namespace.picture(), before);
}

#[tokio::test]
async fn no_guest_is_put_on_a_bridge_that_took_the_place_of_ours() {
    let namespace = Namespace::enter();
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let network = smartvm.network();
    network.up().unwrap();
    pause_network_keeper(&corner.file("run"));
    run("ip", &["link", "delete", "svbr0"]);
    run("ip", &["link", "add", "svbr0", "type", "bridge"]);
    run("ip", &["link", "set", "svbr0", "up"]);
    let before = namespace.picture();
    let mut vm = smartvm.create(&connected(&corner, "one")).await.unwrap();
    let refused = vm.start(&StartOptions::default()).await.unwrap_err();
    let told = "there is a network interface svbr0 already";
    assert!(refused.to_string().contains(told), "{refused}");
    assert_eq!(namespace.picture(), before);
    run("ip", &["link", "delete", "svbr0"]);
    network.down().unwrap();
}
