//! A real guest behind a tunnel.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use smartvm::process::ProcessId;
use smartvm::spec::WireGuardConfig;

use crate::lab::{Capture, network_keeper};
use crate::support::{image, smartvm};
use crate::tunnel::{Way, run, until};

#[test]
fn a_guest_speaks_through_the_tunnel_and_nowhere_else_until_it_is_dead() {
    let way = Way::new();
    let before = way.picture();
    let config = way.file("options.json");
    let tunnel = WireGuardConfig::Managed(way.managed(way.text("")));
    let options = serde_json::json!({ "wireguard": tunnel });
    std::fs::write(&config, options.to_string()).unwrap();
    let command = |words: &[&str]| {
        let mut command = smartvm();
        command
            .env("SMARTVM_RUNTIME_DIR", way.file("run"))
            .arg("--config")
            .arg(&config)
            .args(words);
        command
    };
    let image = image();
    let image = image.to_str().unwrap();
    let start = [
        "run",
        "--detach",
        "--network",
        "--id",
        "tunnelled",
        "--image",
        image,
    ];
    command(&start).assert().success();
    let sh = |script: &str| command(&["exec", "tunnelled", "--", "sh", "-c", script]).output();

    let told = sh("cat /etc/resolv.conf").unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.trim(), "nameserver 10.9.0.1");
    let captures = [&way.router, &way.other].map(|space| space.inside(Capture::begin));
    let address = Way::SERVER.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let of_guest = |frame: &Vec<u8>| frame.windows(4).any(|part| part == address);
    let seen = || {
        let frames = captures.iter().flat_map(Capture::frames);
        frames.filter(of_guest).count()
    };
    let ping = |patience: u32| format!("ping -c 3 -W {patience} {}", Way::SERVER);
    let answered = sh(&ping(20)).unwrap();
    assert!(answered.status.success(), "{answered:?}");
    assert_eq!(seen(), 0, "all of it is in the tunnel");

    // Nobody looks after it any more, while it sends.
    let forever = sh(&format!("ping {} >/dev/null 2>&1 &", Way::SERVER)).unwrap();
    assert!(forever.status.success(), "{forever:?}");
    let state = std::fs::read(way.file("run/tunnelled/vm.json")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    let process = |role: &str| serde_json::from_value::<ProcessId>(state[role].clone()).unwrap();
    for keeper in [process("keeper"), network_keeper(&way.file("run"))] {
        keeper
            .open()
            .unwrap()
            .unwrap()
            .signal(Signal::KILL)
            .unwrap();
    }
    let host = Capture::begin();
    let sends = |when: &str| {
        let mut sent = 0;
        until(&format!("{when}: it sends"), || {
            let frames = host.frames();
            sent += frames.iter().filter(|frame| of_guest(frame)).count();
            sent > 9
        });
        assert_eq!(seen(), 0, "{when}: nothing leaves elsewhere");
    };
    sends("its keepers are dead");
    run(&format!("ip link delete {}", way.interface));
    sends("and the tunnel is gone");
    run("nft flush ruleset");
    sends("and the ruleset flushed");
    // It is detached, so that it lives, and so does what holds it.
    command(&["gc"]).assert().success();
    sends("gc has let it live");
    let vmm = process("vmm").open().unwrap().unwrap();
    vmm.signal(Signal::KILL).unwrap();
    assert!(vmm.wait(Duration::from_secs(60)).unwrap());
    assert_eq!(seen(), 0, "nothing has left until it was dead");
    command(&["gc"]).assert().success();
    until("all is as before", || way.picture() == before);
}
