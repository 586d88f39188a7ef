//! Made by the first VM or by hand, mended, given back by the last.

use smartvm::spec::{FirewallAction, FirewallConfig, FirewallEgress, FirewallRule};
use smartvm::vm::{StartOptions, StopMode};

use super::{Namespace, connected, run};
use crate::lab::pause_network_keeper;
use crate::support::Corner;

#[tokio::test]
async fn vms_share_the_network_and_the_last_one_leaves_the_host_as_before() {
    let namespace = Namespace::enter();
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = namespace.picture();

    let mut vms = Vec::new();
    for id in ["one", "two"] {
        let mut vm = smartvm.create(&connected(&corner, id)).await.unwrap();
        vm.start(&StartOptions::default()).await.unwrap();
        vms.push(vm);
    }
    let status = smartvm.network().status().unwrap();
    assert!(
        status.up && !status.kept && status.drift.is_empty(),
        "{status:?}"
    );
    assert_eq!(status.nat_interface.as_deref(), Some("up0"));
    let addresses: Vec<String> = status.leases.iter().map(|one| one.ip.to_string()).collect();
    assert_eq!(addresses, ["172.30.0.2", "172.30.0.3"]);
    for lease in &status.leases {
        let shown = run("ip", &["-d", "link", "show", lease.tap.as_str()]);
        for part in [
            "master svbr0",
            "isolated on",
            "persist on",
            "state UP",
            "alias smartvm ",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        // Off the bridge it takes nothing in.
        let setting = |name: &str| {
            let name = format!("net.ipv4.conf.{}.{name}", lease.tap);
            run("sysctl", &["-n", &name])
        };
        assert_eq!(setting("rp_filter"), "1\n");
        assert_eq!(setting("forwarding"), "0\n");
    }
    let bridge = run("ip", &["address", "show", "svbr0"]);
    assert!(
        bridge.contains("inet 172.30.0.1/24") && !bridge.contains("inet6"),
        "{bridge}"
    );
    let rules = run("nft", &["list", "ruleset"]);
    assert!(rules.contains("masquerade"), "{rules}");
    assert_eq!(
        run("sysctl", &["-n", "net.ipv4.conf.up0.forwarding"]),
        "1\n"
    );
    assert_eq!(run("sysctl", &["-n", "net.ipv4.ip_forward"]), "0\n");

    vms.remove(0).stop(StopMode::Kill).await.unwrap();
    let status = smartvm.network().status().unwrap();
    assert!(status.up && status.leases.len() == 1, "{status:?}");
    vms.remove(0).stop(StopMode::Kill).await.unwrap();
    assert_eq!(namespace.picture(), before);
    assert!(smartvm.network().status().unwrap().leases.is_empty());
}

#[test]
fn network_up_keeps_it_mends_it_and_down_takes_it_away() {
    let namespace = Namespace::enter();
    let corner = Corner::new();
    let before = namespace.picture();
    let network = |verb: &str| {
        let done = corner.command().args(["network", verb]).assert().success();
        String::from_utf8(done.get_output().stdout.clone()).unwrap()
    };
    network("up");
    let whole = namespace.picture();
    network("up");
    assert_eq!(namespace.picture(), whole, "a second time changes nothing");
    let status = network("status");
    assert!(status.contains("allow what is left: 0 packets"), "{status}");
    // It would mend by itself what is broken here.
    pause_network_keeper(&corner.file("run"));

    run("nft", &["flush", "ruleset"]);
    run("ip", &["address", "flush", "dev", "svbr0"]);
    let status = network("status");
    assert!(status.contains("nftables table is gone"), "{status}");
    assert!(status.contains("lost the gateway's address"), "{status}");
    network("up");
    assert!(!network("status").contains("WARN"), "{}", network("status"));
    run(
        "nft",
        &["flush", "chain", "inet", "smartvm_svbr0", "from_guests"],
    );
    let status = network("status");
    assert!(status.contains("somebody changed the rules"), "{status}");
    network("up");
    let rules = run("nft", &["list", "ruleset"]);
    assert!(rules.contains("spoofed"), "{rules}");
    run("ip", &["link", "delete", "svbr0"]);
    assert!(network("status").contains("the bridge svbr0 is gone"));
    network("up");
    assert!(!network("status").contains("WARN"));
    network("down");
    assert_eq!(namespace.picture(), before);
    network("down");
}

#[tokio::test]
async fn what_others_do_to_running_guests_is_told_and_mended() {
    let namespace = Namespace::enter();
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = namespace.picture();
    let mut spec = connected(&corner, "one");
    spec.network_interfaces[0].guest_mac = Some("06:aa:00:00:00:01".into());
    let deny = FirewallRule::builder()
        .action(FirewallAction::Deny)
        .to("10.0.0.0/8")
        .build();
    let own = FirewallEgress::builder().rules([deny]).build();
    spec.firewall = Some(FirewallConfig::builder().egress(own).build());
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let network = smartvm.network();
    let tap = network.status().unwrap().leases[0].tap.to_string();
    pause_network_keeper(&corner.file("run"));
    let drift = || network.status().unwrap().drift.join("; ");
    assert_eq!(drift(), "");
    // In whatever order they were made.
    let rules = || {
        let listed = run("nft", &["-s", "list", "ruleset"]);
        let mut lines: Vec<String> = listed.lines().map(Into::into).collect();
        lines.sort();
        lines
    };
    let whole = rules();

    type Harm<'a> = (&'a [&'a str], &'a str);
    let harms: [Harm<'_>; 5] = [
        (
            &["ip", "link", "set", &tap, "nomaster"],
            "isn't on the bridge",
        ),
        (&["ip", "link", "set", &tap, "down"], "is down"),
        (
            &[
                "ip",
                "link",
                "set",
                &tap,
                "type",
                "bridge_slave",
                "isolated",
                "off",
            ],
            "has lost its isolation",
        ),
        (
            &["nft", "flush", "set", "bridge", "smartvm_svbr0", "taps"],
            "the firewall doesn't know",
        ),
        (&["nft", "flush", "ruleset"], "nftables table is gone"),
    ];
    for (words, told) in harms {
        run(words[0], &words[1..]);
        assert!(drift().contains(told), "{told}: {}", drift());
        network.up().unwrap();
        assert_eq!(drift(), "", "{told}");
        assert_eq!(rules(), whole, "{told}");
    }
    // The guest's own address and its own rules are in the tables made anew.
    for part in ["06:aa:00:00:00:01", "vm_172_30_0_2_0_address"] {
        let there = whole.iter().any(|line| line.contains(part));
        assert!(there, "{part}: {whole:#?}");
    }
    network.down().unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
    assert_eq!(namespace.picture(), before);
}
