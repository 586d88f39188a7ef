//! Tunnels of smartvm's and of others; what is in their way; what dies while they are made.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use smartvm::ErrorKind;
use smartvm::network::Network;
use smartvm::spec::{SmartVmOptions, WireGuardConfig};

use crate::anothers_tunnel::existing;
use crate::lab::{network_keeper, pause_network_keeper};
use crate::support::SMARTVM;
use crate::tunnel::{Fire, Way, kernel_has_wireguard, kill, run, until};

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
    way.disconnect_guest();
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
        kill(pid);
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
    way.disconnect_guest();
    network.down().unwrap();
    assert_eq!(way.picture(), before);
}

#[test]
fn what_is_in_a_tunnels_way_is_named_and_nothing_is_left_behind() {
    let way = Way::new();
    let refused = |tunnel: WireGuardConfig| {
        let before = way.picture();
        let refused = way.network(tunnel).up().unwrap_err();
        assert_eq!(way.picture(), before, "{refused}");
        refused
    };
    let managed = |text: String| WireGuardConfig::Managed(way.managed(text));

    run("ip route add 10.99.0.0/16 via 192.0.2.1 table 51820");
    let table = refused(managed(way.text("")));
    assert_eq!(table.kind(), ErrorKind::WrongState);
    let told = "the routing table 51820 is in use: 1 routes, 0 rules";
    assert!(table.to_string().contains(told), "{table}");
    assert!(table.way_out().unwrap().contains("wireguard.routeTable"));
    let mut other_table = way.managed(way.text(""));
    other_table.route_table = Some(51821);
    let network = way.network(WireGuardConfig::Managed(other_table));
    network.up().unwrap();
    assert!(run("ip route show table 51821").contains(&way.interface));
    network.down().unwrap();
    run("ip route flush table 51820");
    run("ip rule add from 10.99.0.0/16 lookup 51820");
    let table = refused(managed(way.text("")));
    assert!(table.to_string().contains("0 routes, 1 rules"), "{table}");
    run("ip rule delete from 10.99.0.0/16 lookup 51820");

    run(&format!("ip link add {} type bridge", way.interface));
    let taken = refused(managed(way.text("")));
    assert_eq!(taken.kind(), ErrorKind::WrongState);
    assert!(
        taken.to_string().contains("smartvm didn't make it"),
        "{taken}"
    );
    run(&format!("ip link delete {}", way.interface));

    let missing = refused(existing("wg-none"));
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("wg-none"), "{missing}");
    let none = refused(existing("up0"));
    assert!(
        none.to_string().contains("up0 is none of WireGuard's"),
        "{none}"
    );

    let text = way.text("").replace("198.18.0.1", "no-such-host.invalid");
    let nowhere = refused(managed(text));
    let told = "no-such-host.invalid:51820 doesn't resolve";
    assert!(nowhere.to_string().contains(told), "{nowhere}");

    let inside = refused(managed(
        way.text("").replace("10.9.0.2/24", "172.30.0.9/32"),
    ));
    assert!(inside.to_string().contains("172.30.0.9"), "{inside}");
    let without = refused(managed(way.text("").replace("Address = 10.9.0.2/24", "")));
    assert!(without.to_string().contains("has no Address"), "{without}");

    // Found only when half of it is made.
    let _taken = std::net::UdpSocket::bind("0.0.0.0:51999").unwrap();
    refused(managed(way.text("ListenPort = 51999")));
}

#[test]
fn where_nothing_makes_a_tunnel_that_is_told() {
    if kernel_has_wireguard() {
        eprintln!("skipped: this kernel has WireGuard");
        return;
    }
    let way = Way::new();
    let config = config_file(
        &way,
        &way.options(WireGuardConfig::Managed(way.managed(way.text("")))),
    );
    let out = smartvm(&config, &["network", "up"])
        .env("PATH", tools(&way))
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(5));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(
        said.contains("install wireguard-go or boringtun-cli"),
        "{said}"
    );
}

#[test]
fn boringtun_works_a_tunnel_where_nothing_else_is_there() {
    if kernel_has_wireguard() {
        eprintln!("skipped: this kernel has WireGuard");
        return;
    }
    let way = Way::new();
    let tunnel = WireGuardConfig::Managed(way.managed(way.text("")));
    let config = config_file(&way, &way.options(tunnel.clone()));
    let tools = tools(&way);
    let cache = std::env::var("SMARTVM_TEST_CACHE")
        .expect("SMARTVM_TEST_CACHE is not set: run the tests by `cargo xtask test`");
    let boringtun = Path::new(&cache).join("boringtun/bin/boringtun-cli");
    std::os::unix::fs::symlink(&boringtun, tools.join("boringtun-cli")).unwrap();
    let before = way.picture();
    let network = |verb| {
        let done = smartvm(&config, &["network", verb])
            .env("PATH", &tools)
            .output();
        let done = done.unwrap();
        assert!(done.status.success(), "{verb}: {done:?}");
    };
    network("up");
    let here = way.network(tunnel);
    let by = here.status().unwrap().tunnel.unwrap().implementation;
    assert_eq!(by.as_deref(), Some("boringtun-cli"));
    way.connect_guest();
    let fire = Fire::begin(&way);
    fire.arrives("by boringtun");
    assert_eq!(here.status().unwrap().drift, [""; 0]);
    let programs = way.programs();
    let is_it = |pid: &&u32| {
        std::fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|exe| exe.ends_with("boringtun-cli"))
    };
    let [pid] = programs.iter().filter(is_it).collect::<Vec<_>>()[..] else {
        panic!("one boringtun: {programs:?}");
    };
    kill(*pid);
    fire.stays_inside("it is killed");
    until("there is another", || {
        here.status().unwrap().drift.is_empty()
    });
    fire.arrives("by another");
    drop(fire);
    way.disconnect_guest();
    network("down");
    assert_eq!(way.picture(), before);
}

/// A directory with nothing that makes tunnels.
fn tools(way: &Way) -> std::path::PathBuf {
    let tools = way.file("tools");
    std::fs::create_dir(&tools).unwrap();
    std::os::unix::fs::symlink("/usr/sbin/nft", tools.join("nft")).unwrap();
    tools
}

#[test]
fn where_not_all_goes_into_the_tunnel_its_peers_networks_do() {
    let way = Way::new();
    let text = way.text("").replace("0.0.0.0/0", "203.0.113.0/24");
    let mut managed = way.managed(text);
    managed.route_all_vm_traffic = Some(false);
    let network = way.network(WireGuardConfig::Managed(managed.clone()));
    assert_eq!(
        network.wiring(Vec::new()).unwrap().dns,
        [std::net::Ipv4Addr::new(10, 9, 0, 1)]
    );
    network.up().unwrap();
    let routes = run("ip route show table 51820");
    assert!(
        routes.contains("203.0.113.0/24 dev") && !routes.contains("\ndefault dev"),
        "{routes}"
    );
    way.connect_guest();
    let fire = Fire::begin(&way);
    fire.arrives("into the tunnel");
    fire.stays_inside("the rest goes nowhere");
    drop(fire);
    way.disconnect_guest();
    network.down().unwrap();

    managed.fail_closed = Some(false);
    let network = way.network(WireGuardConfig::Managed(managed));
    network.up().unwrap();
    way.connect_guest();
    let fire = Fire::begin(&way);
    fire.escapes("the rest leaves elsewhere");
    drop(fire);
    network.down().unwrap();
}

#[test]
fn the_default_route_is_followed_by_the_networks_keeper() {
    let way = Way::new();
    let options = SmartVmOptions::builder()
        .data_dir(way.file("data"))
        .runtime_dir(way.file("run"))
        .build();
    let network = Network::new(&way.file("run"), &options).unwrap();
    let network = network.kept_by(Path::new(SMARTVM));
    let before = way.picture();
    network.up().unwrap();
    assert_eq!(
        network.status().unwrap().nat_interface.as_deref(),
        Some("up0")
    );
    run("ip route replace default via 198.51.100.1");
    until("the default route is followed", || {
        network.status().unwrap().nat_interface.as_deref() == Some("other0")
    });
    let forwards = |device: &str| run(&format!("sysctl -n net.ipv4.conf.{device}.forwarding"));
    until("the new one forwards", || forwards("other0") == "1\n");
    assert_eq!(forwards("up0"), "0\n", "and the old one no more");
    network.down().unwrap();
    run("ip route replace default via 192.0.2.1");
    assert_eq!(way.picture(), before);
}

#[test]
fn keys_are_in_no_file_no_argument_and_no_output() {
    let way = Way::new();
    let options = way.options(WireGuardConfig::Managed(way.managed(way.text(""))));
    let config = config_file(&way, &options);
    let mut said = Vec::new();
    for words in [
        vec!["-v", "network", "up"],
        vec!["-v", "network", "status"],
        vec!["--json", "network", "status"],
        vec!["doctor"],
    ] {
        let out = smartvm(&config, &words).output().unwrap();
        said.extend(out.stdout);
        said.extend(out.stderr);
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains(&way.peer.keys.public), "{said}");
    let made = format!("WireGuard, {}, made by", way.interface);
    assert!(said.contains(&made), "doctor says who makes it: {said}");
    let key = &way.keys.private;
    assert!(!said.contains(key));
    for dir in ["run", "data"] {
        let found = Command::new("grep")
            .arg("-rF")
            .arg(key)
            .arg(way.file(dir))
            .output();
        assert_eq!(found.unwrap().stdout, b"", "{dir}");
    }
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let text = std::fs::read(entry.path().join(file)).unwrap_or_default();
            let shown = text.windows(key.len()).any(|part| part == key.as_bytes());
            assert!(!shown, "{:?} {file}", entry.path());
        }
    }
    assert!(
        smartvm(&config, &["network", "down"])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn whoever_makes_a_tunnel_may_be_killed_at_any_step_and_gc_leaves_the_host_as_before() {
    let way = Way::new();
    let options = way.options(WireGuardConfig::Managed(way.managed(way.text(""))));
    let config = config_file(&way, &options);
    let before = way.picture();
    let ledger = way.file("run/.network/ledger.jsonl");
    let lines = || std::fs::read_to_string(&ledger).map_or(0, |text| text.lines().count());
    let mut killed = 0;
    for line in 1.. {
        let mut up = smartvm(&config, &["network", "up"]).spawn().unwrap();
        let mut done = false;
        until("the next step is begun", || {
            done = up.try_wait().unwrap().is_some();
            done || lines() >= line
        });
        up.kill().unwrap();
        up.wait().unwrap();
        if done && line > 12 {
            break;
        }
        killed += usize::from(!done);
        if !done {
            let gc = smartvm(&config, &["gc"]).output().unwrap();
            assert!(gc.status.success(), "{gc:?}");
        } else {
            assert!(
                smartvm(&config, &["network", "down"])
                    .status()
                    .unwrap()
                    .success()
            );
        }
        // A keeper that nobody wrote down ends by itself.
        until(&format!("all is as before line {line}"), || {
            way.picture() == before
        });
    }
    assert!(killed > 8, "only {killed} were killed");
    assert!(
        smartvm(&config, &["network", "down"])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(way.picture(), before);
}

/// Options as a file for the command line.
pub(crate) fn config_file(way: &Way, options: &SmartVmOptions) -> std::path::PathBuf {
    let path = way.file("options.json");
    std::fs::write(&path, serde_json::to_vec(options).unwrap()).unwrap();
    path
}

pub(crate) fn smartvm(config: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(SMARTVM);
    command
        .arg("--config")
        .arg(config)
        .args(words)
        .env_remove("SMARTVM_DATA_DIR")
        .env_remove("SMARTVM_RUNTIME_DIR")
        .stdin(Stdio::null());
    command
}
