//! A real guest behind a tunnel.

use smartvm::spec::WireGuardConfig;

use crate::lab::{Capture, pause_network_keeper};
use crate::support::{image, smartvm};
use crate::tunnel::{Way, run};

#[test]
fn a_guest_speaks_through_the_tunnel_and_without_it_is_silent() {
    let way = Way::new();
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
    let seen = || {
        let frames = captures.iter().flat_map(Capture::frames);
        let of_guest = |frame: &Vec<u8>| frame.windows(4).any(|part| part == address);
        frames.filter(of_guest).count()
    };
    let ping = |patience: u32| format!("ping -c 3 -W {patience} {}", Way::SERVER);
    let answered = sh(&ping(20)).unwrap();
    assert!(answered.status.success(), "{answered:?}");
    assert_eq!(seen(), 0, "all of it is in the tunnel");

    pause_network_keeper(&way.file("run"));
    run(&format!("ip link delete {}", way.interface));
    let silent = sh(&ping(2)).unwrap();
    assert!(!silent.status.success(), "{silent:?}");
    assert_eq!(seen(), 0, "without the tunnel nothing leaves");
    command(&["rm", "--force", "tunnelled"]).assert().success();
    assert!(!run("ip -o link").contains("svbr0"));
    assert!(run("nft list ruleset").is_empty());
}
