//! The network, in a private network namespace with a made-up router.

mod life;
mod neighbours;
mod ports;
mod refusals;
mod restores;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use smartvm::spec::{MicroVmSpec, NetworkInterface, SmartVmOptions};
use smartvm::{Parts, SmartVm};

use crate::lab::move_in;
use crate::support::{Corner, SMARTVM};

/// A thread's own network namespace, with an uplink that leads to a router in another one.
/// Everything that the test's thread starts is in it. It goes with its last process.
pub(crate) struct Namespace;

impl Namespace {
    pub(crate) fn enter() -> Self {
        move_in(rustix::thread::UnshareFlags::NEWNET);
        run("ip", &["link", "set", "lo", "up"]);
        run(
            "ip",
            &[
                "link", "add", "up0", "type", "veth", "peer", "name", "router",
            ],
        );
        // Their addresses' probing would change the picture by itself.
        for device in ["up0", "router"] {
            let setting = format!("net.ipv6.conf.{device}.disable_ipv6=1");
            run("sysctl", &["-qw", &setting]);
        }
        run("ip", &["link", "set", "up0", "up"]);
        run("ip", &["link", "set", "router", "up"]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while run("ip", &["-o", "link"]).matches("state UP").count() < 2 {
            assert!(Instant::now() < deadline, "the uplink never comes up");
            std::thread::sleep(Duration::from_millis(5));
        }
        run("ip", &["address", "add", "192.0.2.2/24", "dev", "up0"]);
        run("ip", &["route", "add", "default", "via", "192.0.2.1"]);
        Self
    }

    /// The namespace as outside tools see it.
    pub(crate) fn picture(&self) -> Vec<String> {
        let mut picture = vec![
            run("ip", &["-o", "link"]),
            run("ip", &["-j", "address"]),
            run("ip", &["-j", "route", "show", "table", "all"]),
            run("ip", &["-j", "rule"]),
            run("nft", &["list", "ruleset"]),
        ];
        let settings = run("sysctl", &["-a", "--pattern", "forwarding|disable_ipv6"]);
        let stays = |line: &&str| !line.contains("stat_refresh");
        picture.extend(settings.lines().filter(stays).map(Into::into));
        picture
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

fn open(options: SmartVmOptions) -> SmartVm {
    let mut parts = Parts::default();
    parts.keeper = Some(PathBuf::from(SMARTVM));
    parts.assume_kvm = true;
    SmartVm::open(options, parts).unwrap()
}

fn connected(corner: &Corner, id: &str) -> MicroVmSpec {
    let mut spec = corner.small();
    spec.id = Some(id.to_owned());
    spec.network_interfaces = vec![NetworkInterface::builder().iface_id("net0").build()];
    spec
}
