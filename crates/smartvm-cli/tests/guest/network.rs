//! Packets of real guests, through the whole network: a host of the test's own with an uplink
//! to a made-up Internet.

mod forger;
pub(crate) mod lab;

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::Capture;
use forger::{Frame, MARK};
use lab::{Guest, Lab};

/// What a guest tries. All are tried at once, for `$T` seconds. (busybox's own wget dies of being
/// static.)
const PROBES: [(&str, &str); 13] = [
    ("ping", "ping -c 1 -W $T 198.51.100.7"),
    ("tcp", "get 198.51.100.7 80"),
    (
        "name",
        "nslookup -type=a web.example | grep -q 198.51.100.7",
    ),
    ("other network", "get 10.1.2.3 80"),
    ("other port", "get 198.51.100.7 8443"),
    ("gateway's ping", "ping -c 1 -W $T 172.30.0.1"),
    ("host's service", "get 172.30.0.1 8080"),
    ("host's other service", "get 172.30.0.1 8081"),
    ("host's other address", "get 192.0.2.1 8080"),
    ("neighbour's ping", "ping -c 1 -W $T $N"),
    ("neighbour's service", "get $N 23"),
    ("metadata", "get 169.254.169.254 80"),
    (
        "another's address",
        "ip address add 172.30.0.99/32 dev lo && ping -c 1 -W $T -I 172.30.0.99 198.51.100.7",
    ),
];
/// A guest's own service.
const SERVE: &str = "nc -ll -p 23 -e echo hello >/dev/null 2>&1 &";
/// Whether an answer comes over TCP.
const GET: &str = "get() { echo 'GET /' | nc -w $T $1 $2 | grep -q hello; }\n";
/// How long what should succeed may take where a processor is emulated twice, in seconds.
const PATIENCE: u32 = 60;
/// How long is waited for what should fail.
const IMPATIENCE: u32 = 5;

/// Fails unless just these probes go well.
fn reaches(guest: &Guest<'_>, expected: &[&str]) {
    // Of two guests the other one.
    let neighbour = guest.ip[3] ^ 1;
    let mut script = format!("{GET}N=172.30.0.{neighbour}\n");
    for (number, (name, probe)) in PROBES.iter().enumerate() {
        let seconds = match expected.contains(name) {
            true => PATIENCE,
            false => IMPATIENCE,
        };
        script += &format!("( T={seconds}; {{ {probe}; }} >/dev/null 2>&1 && echo {number} ) &\n");
    }
    let said = guest.sh(&format!("{script}wait"));
    let mut good: Vec<usize> = said.lines().map(|line| line.parse().unwrap()).collect();
    good.sort_unstable();
    let good: Vec<&str> = good.into_iter().map(|number| PROBES[number].0).collect();
    assert_eq!(good, expected);
}

/// What the host counted as dropped for this reason.
fn dropped(lab: &Lab, reason: &str) -> u64 {
    let shown = lab.smartvm(&["firewall", "show", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    shown["counters"]["dropped"][reason]["packets"]
        .as_u64()
        .unwrap_or_default()
}

#[test]
fn guests_reach_what_they_may_and_nothing_else() {
    let lab = Lab::enter();
    lab.internet.knows(&[("web.example", "198.51.100.7")]);
    for port in [80, 8443, 9000] {
        lab.internet.serve(port);
    }
    for service in ["0.0.0.0:8080", "0.0.0.0:8081"] {
        crate::lab::answer_all(TcpListener::bind(service).unwrap(), |_| {});
    }
    let [one, two] = lab.start([("one", &["--network"]), ("two", &["--network"])]);

    // Addresses and name servers are there without anybody's hand.
    let address = one.sh("ip -o -4 address show dev eth0; ip route; cat /etc/resolv.conf");
    for part in [
        "inet 172.30.0.2/24",
        "default via 172.30.0.1 dev eth0",
        "nameserver 203.0.113.53",
    ] {
        assert!(address.contains(part), "{part}: {address}");
    }
    two.sh(SERVE);

    let open = [
        "ping",
        "tcp",
        "name",
        "other network",
        "other port",
        "gateway's ping",
    ];
    let seen = lab.internet.capture();
    reaches(&one, &open);
    let ours = |frame: &Vec<u8>| frame.get(26..28) == Some(&[172, 30]);
    let frames = seen.frames();
    assert!(frames.len() > 20, "the capture works");
    assert_eq!(
        frames.iter().filter(|frame| ours(frame)).count(),
        0,
        "all is masqueraded"
    );

    nothing_forged_passes(&lab, &one, &two);

    // From outside nobody comes in, also where the way is known.
    let before = dropped(&lab, "from outside");
    lab.internet
        .space
        .run("ip route add 172.30.0.0/24 via 192.0.2.1");
    let listening = "172.30.0.3:23".parse().unwrap();
    let called = lab
        .internet
        .space
        .inside(|| TcpStream::connect_timeout(&listening, Duration::from_secs(IMPATIENCE.into())));
    called.unwrap_err();
    assert!(dropped(&lab, "from outside") > before);

    rules_decide_and_change_under_way(&lab, &one);
    drop((one, two));
    options_open_what_was_closed(&lab);
}

fn nothing_forged_passes(lab: &Lab, one: &Guest<'_>, two: &Guest<'_>) {
    let bridge = lab.mac("svbr0");
    let frame = Frame {
        to: bridge,
        from: one.mac,
        source: one.ip,
        target: [198, 51, 100, 7],
    };
    let all = Frame {
        to: [0xff; 6],
        ..frame
    };
    let forged = [
        (
            "another guest's address",
            Frame {
                source: two.ip,
                ..frame
            }
            .udp(),
        ),
        (
            "nobody's address",
            Frame {
                source: [10, 9, 9, 9],
                ..frame
            }
            .udp(),
        ),
        (
            "another guest's MAC",
            Frame {
                from: two.mac,
                ..frame
            }
            .udp(),
        ),
        (
            "a MAC of its own",
            Frame {
                from: [2, 0, 0, 0, 0, 9],
                ..frame
            }
            .udp(),
        ),
        (
            "straight to a guest",
            Frame {
                to: two.mac,
                target: two.ip,
                ..frame
            }
            .udp(),
        ),
        (
            "an answer for another guest",
            Frame {
                source: two.ip,
                ..all
            }
            .arp(2),
        ),
        (
            "an answer for the gateway",
            Frame {
                to: two.mac,
                source: [172, 30, 0, 1],
                ..frame
            }
            .arp(2),
        ),
        (
            "a question as another",
            Frame {
                source: two.ip,
                ..all
            }
            .arp(1),
        ),
        (
            "an answer about another MAC",
            Frame {
                from: two.mac,
                ..all
            }
            .arp(2),
        ),
        ("a router advertisement", frame.router_advertisement()),
        ("IPv6 to the host", frame.ipv6()),
        ("a VLAN", frame.vlan()),
    ];
    let host = Capture::begin();
    let outside = lab.internet.capture();
    let mut sent: Vec<Vec<u8>> = forged.iter().map(|(_, frame)| frame.clone()).collect();
    // What comes after them in the same queue, and may pass.
    sent.push(frame.udp());
    one.send(&sent);
    let mark = |number: usize| format!("{MARK}{number:02}").into_bytes();
    let has = |frame: &[u8], mark: &[u8]| frame.windows(mark.len()).any(|part| part == mark);
    let mut passed = Vec::new();
    crate::lab::wait(|| {
        passed.extend(outside.frames());
        passed.iter().any(|frame| has(frame, &mark(forged.len())))
    });
    let seen = host.frames();
    let times = |number| {
        seen.iter()
            .filter(|frame| has(frame, &mark(number)))
            .count()
    };
    assert!(times(forged.len()) > 2, "what may pass is seen on its way");
    for (number, (what, _)) in forged.iter().enumerate() {
        assert_eq!(
            times(number),
            1,
            "{what}: seen where it came in and nowhere else"
        );
        assert!(
            !passed.iter().any(|frame| has(frame, &mark(number))),
            "{what}"
        );
    }
    for (reason, least) in [("spoofed", 7), ("neither IPv4 nor ARP", 3)] {
        let counted = dropped(lab, reason);
        assert!(counted >= least, "{reason}: {counted}");
    }
}

/// Also for a guest to which nothing but the Internet is left outside. (Two guests are as many as an
/// emulated host bears.)
fn options_open_what_was_closed(lab: &Lab) {
    lab.set_options(&json!({ "guestsMayTalk": true, "hostServices": ["tcp/8080"] }));
    let guests = [
        ("far", &["--network", "internet"][..]),
        ("near", &["--network"]),
    ];
    let guests = lab.start(guests);
    guests.iter().for_each(|guest| drop(guest.sh(SERVE)));
    for guest in &guests {
        let outside: &[&str] = match guest.id {
            "far" => &["ping", "tcp", "name", "other port"],
            _ => &["ping", "tcp", "name", "other network", "other port"],
        };
        let inside = [
            "gateway's ping",
            "host's service",
            "neighbour's ping",
            "neighbour's service",
        ];
        reaches(guest, &[outside, &inside].concat());
    }
}

fn rules_decide_and_change_under_way(lab: &Lab, one: &Guest<'_>) {
    let (stays, ends) = ("198.51.100.7:9000", "10.1.2.3:9000");
    for to in [stays, ends] {
        let to = to.replace(':', " ");
        one.sh(&format!(
            "(while echo 0123456789; do usleep 20000; done | nc {to}) >/dev/null 2>&1 &"
        ));
    }
    let flows = |at: &str| {
        let before = lab.internet.arrived(at);
        let end = Instant::now() + Duration::from_secs(PATIENCE.into());
        while lab.internet.arrived(at) < before + 50 {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    };
    assert!(
        flows(stays) && flows(ends),
        "both conversations are under way"
    );
    lab.set_rules(
        &json!({ "defaultAction": "allow", "rules": [
        { "action": "deny", "to": "10.0.0.0/8" },
        { "action": "deny", "protocol": "tcp", "ports": [8443] },
        { "action": "deny", "protocol": "icmp" },
    ] }),
        &[],
    );
    let ended = lab.internet.arrived(ends);
    assert!(flows(stays), "an allowed conversation goes on");
    assert!(flows(stays), "and on");
    assert_eq!(lab.internet.arrived(ends), ended, "a denied one has ended");
    reaches(one, &["tcp", "name", "gateway's ping"]);

    // Its own rules come before those of all: what they deny is denied, what they allow goes on
    // to the others.
    lab.set_rules(
        &json!({ "rules": [
            { "action": "allow", "to": "10.0.0.0/8" },
            { "action": "deny", "to": "198.51.100.7", "protocol": "tcp", "ports": [80] },
        ] }),
        &["--vm", one.id],
    );
    reaches(one, &["name", "gateway's ping"]);
    assert!(flows(stays), "what both allow goes on");
    lab.set_rules(&json!({}), &[]);
    reaches(
        one,
        &[
            "ping",
            "name",
            "other network",
            "other port",
            "gateway's ping",
        ],
    );
    let shown = lab.smartvm(&["firewall", "show", "--vm", one.id, "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let decided = |number: &str| shown["counters"]["egress"][number]["packets"].as_u64();
    assert!(
        decided("0") > Some(0) && decided("1") > Some(0),
        "{shown:#}"
    );
}
