//! `smartvm firewall`.

use std::net::UdpSocket;
use std::time::Duration;

use super::{Lab, arrives};

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
