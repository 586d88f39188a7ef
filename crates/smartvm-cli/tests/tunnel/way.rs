//! A host with two ways out and a guest, and a peer of WireGuard's beyond one of them.
//!
//! ```text
//! guest ─ svbr0 [host] up0 ── eth0 [router] far0 ── eth0 [peer]
//!                    other0 ── eth0 [other]
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use smartvm::network::Network;
use smartvm::network::firewall::{VmPort, add_vm};
use smartvm::process::ProcessId;
use smartvm::spec::{SmartVmOptions, WireGuardConfig, WireGuardManaged};

use super::peer::{Keys, Peer, interface};
use crate::lab::{Space, end_all_of, move_in};

/// An emulated host takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// The guest's addresses.
const MAC: &str = "06:00:ac:1e:00:c8";
const ADDRESS: &str = "172.30.0.200";

pub(crate) struct Way {
    pub(crate) router: Space,
    pub(crate) other: Space,
    pub(crate) far: Space,
    pub(crate) guest: Space,
    pub(crate) peer: Peer,
    pub(crate) keys: Keys,
    /// The tunnel's interface here.
    pub(crate) interface: String,
    root: tempfile::TempDir,
}

impl Way {
    /// An address that only the Internet has.
    pub(crate) const SERVER: &'static str = "203.0.113.1";

    /// Moves the calling thread into a made-up host.
    pub(crate) fn new() -> Self {
        move_in(UnshareFlags::NEWNET);
        run("ip link set lo up");
        let [router, other, far, guest] = std::array::from_fn(|_| Space::new());
        link("up0", &router, "192.0.2.2/24", "192.0.2.1/24");
        link("other0", &other, "198.51.100.2/24", "198.51.100.1/24");
        run("ip route add default via 192.0.2.1");
        let pid = far.pid();
        router.run(&format!(
            "ip link add far0 type veth peer name eth0 netns {pid}"
        ));
        quiet(|line| router.run(line), "far0");
        quiet(|line| far.run(line), "eth0");
        router.run("ip address add 198.18.0.2/24 dev far0");
        router.run("ip link set far0 up");
        router.run("sysctl -qw net.ipv4.ip_forward=1");
        far.run("ip address add 198.18.0.1/24 dev eth0");
        far.run("ip link set eth0 up");
        far.run("ip route add default via 198.18.0.2");
        // The server is everywhere: what leaves by a wrong way would be answered.
        for space in [&router, &other, &far] {
            space.run(&format!("ip address add {}/32 dev lo", Self::SERVER));
        }
        until("the uplinks are up", || {
            run("ip -o link").matches("state UP").count() == 2
                && far.run("ip -o link").contains("state UP")
        });
        let peer = Peer::make(Some(&far), "10.9.0.1/24");
        let keys = Keys::new();
        peer.admit(&far, &keys.public, "10.9.0.2/32", "");
        let root = tempfile::Builder::new()
            .prefix("smartvm-tunnel-")
            .tempdir()
            .unwrap();
        Self {
            router,
            other,
            far,
            guest,
            peer,
            keys,
            interface: interface("svw"),
            root,
        }
    }

    /// The tunnel's text, with more for its interface.
    pub(crate) fn text(&self, more: &str) -> String {
        format!(
            "[Interface]\nPrivateKey = {}\nAddress = 10.9.0.2/24\nDNS = 10.9.0.1\n{more}\n\
             [Peer]\nPublicKey = {}\nAllowedIPs = 0.0.0.0/0\nEndpoint = 198.18.0.1:51820\n",
            self.keys.private, self.peer.keys.public
        )
    }

    pub(crate) fn managed(&self, text: String) -> WireGuardManaged {
        WireGuardManaged::builder()
            .config(text)
            .interface_name(self.interface.clone())
            .build()
    }

    pub(crate) fn options(&self, tunnel: WireGuardConfig) -> SmartVmOptions {
        SmartVmOptions::builder()
            .data_dir(self.file("data"))
            .runtime_dir(self.file("run"))
            .wireguard(tunnel)
            .build()
    }

    pub(crate) fn network(&self, tunnel: WireGuardConfig) -> Network {
        let network = Network::new(&self.file("run"), &self.options(tunnel)).unwrap();
        network.kept_by(Path::new(env!("CARGO_BIN_EXE_smartvm")))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The guest's port of the bridge, called as a TAP device of ours would be.
    pub(crate) fn port(&self) -> String {
        let instance = std::fs::read(self.file("run/.network/instance.json")).unwrap();
        let instance: serde_json::Value = serde_json::from_slice(&instance).unwrap();
        format!("sv{}-200", instance["id"].as_str().unwrap())
    }

    /// Connects the guest to the bridge that is up, as a TAP device would be.
    pub(crate) fn connect_guest(&self) {
        let (port, pid) = (self.port(), self.guest.pid());
        run(&format!(
            "ip link add {port} type veth peer name eth0 address {MAC} netns {pid}"
        ));
        quiet(run, &port);
        quiet(|line| self.guest.run(line), "eth0");
        self.admit_guest();
        run(&format!("sysctl -qw net.ipv4.conf.{port}.rp_filter=1"));
        self.plug_in();
        self.guest
            .run(&format!("ip address add {ADDRESS}/24 dev eth0"));
        self.guest.run("ip link set eth0 up");
        self.guest.run("ip route add default via 172.30.0.1");
    }

    /// Puts it on the bridge.
    pub(crate) fn plug_in(&self) {
        run(&format!("ip link set {} master svbr0 up", self.port()));
    }

    /// Takes the guest's device away.
    pub(crate) fn disconnect_guest(&self) {
        run(&format!("ip link delete {}", self.port()));
    }

    /// Admits it to tables that are new.
    pub(crate) fn admit_guest(&self) {
        let port = VmPort {
            tap: self.port().parse().unwrap(),
            mac: MAC.parse().unwrap(),
            ip: ADDRESS.parse().unwrap(),
            policy: None,
        };
        assert!(add_vm(&"svbr0".parse().unwrap(), &port).unwrap());
    }

    /// The host as outside tools see it.
    pub(crate) fn picture(&self) -> Vec<String> {
        let mut picture: Vec<String> = [
            "ip -o link",
            "ip -j address",
            "ip -j route show table all",
            "ip -j rule",
            "ip -6 -j rule",
            "nft list ruleset",
        ]
        .map(run)
        .into();
        let settings = run("sysctl -a --pattern forwarding|disable_ipv6|rp_filter");
        let stays = |line: &&str| !line.contains("stat_refresh");
        picture.extend(settings.lines().filter(stays).map(Into::into));
        picture.extend(self.programs().iter().map(|pid| format!("process {pid}")));
        let root = self.root.path().to_str().unwrap();
        let processes = run("ps -eo args");
        picture.extend(
            processes
                .lines()
                .filter(|line| line.contains(root))
                .map(Into::into),
        );
        picture
    }

    /// Processes that work below this test's directory.
    pub(crate) fn programs(&self) -> Vec<u32> {
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let works_here = |pid: &u32| {
            std::fs::read_link(format!("/proc/{pid}/cwd"))
                .is_ok_and(|cwd| cwd.starts_with(self.root.path()))
        };
        pids.filter(works_here).collect()
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        end_all_of(self.root.path());
        // A program that was killed leaves its socket, which is of no namespace.
        let socket = format!("/var/run/wireguard/{}.sock", self.interface);
        let _gone_already = std::fs::remove_file(socket);
    }
}

/// A pair of devices, one here and one in another namespace.
fn link(name: &str, there: &Space, mine: &str, theirs: &str) {
    let pid = there.pid();
    run(&format!(
        "ip link add {name} type veth peer name eth0 netns {pid}"
    ));
    quiet(run, name);
    quiet(|line| there.run(line), "eth0");
    run(&format!("ip address add {mine} dev {name}"));
    run(&format!("ip link set {name} up"));
    there.run(&format!("ip address add {theirs} dev eth0"));
    there.run("ip link set eth0 up");
}

/// IPv6 says things by itself.
fn quiet(run: impl Fn(&str) -> String, device: &str) {
    run(&format!("sysctl -qw net.ipv6.conf.{device}.disable_ipv6=1"));
}

/// A command in the calling thread's namespace.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let out = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    assert!(out.status.success(), "{line}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// Kills a program.
pub(crate) fn kill(pid: u32) {
    let program = ProcessId::of(pid).unwrap().unwrap();
    let pidfd = program.open().unwrap().unwrap();
    pidfd.signal(Signal::KILL).unwrap();
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: never");
        std::thread::sleep(Duration::from_millis(5));
    }
}
