//! The other end of a tunnel.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::way::until;
use crate::lab::Space;

/// Sockets of userspace implementations are named after interfaces, for all namespaces.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A name for an interface that no other test has.
pub(crate) fn interface(prefix: &str) -> String {
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    format!("{prefix}{}n{number}", std::process::id() % 100_000)
}

/// Whether the kernel makes WireGuard devices.
pub(crate) fn kernel_has_wireguard() -> bool {
    let space = Space::new();
    space.try_run("ip link add probe type wireguard").0
}

/// Keys, as `wg` writes them.
pub(crate) struct Keys {
    pub(crate) private: String,
    pub(crate) public: String,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let private = wg(&["genkey"], "");
        Self {
            public: wg(&["pubkey"], &private),
            private,
        }
    }
}

fn wg(args: &[&str], input: &str) -> String {
    let mut child = Command::new("wg")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A WireGuard device that this test's own means make in a namespace.
pub(crate) struct Peer {
    pub(crate) device: String,
    pub(crate) keys: Keys,
    program: Option<Child>,
}

impl Peer {
    /// Makes it, with an address, listening at 51820; in the calling thread's namespace where
    /// no other is named.
    pub(crate) fn make(space: Option<&Space>, address: &str) -> Self {
        let device = interface("svp");
        let command = |program: &str| match space {
            Some(space) => space.command(program),
            None => Command::new(program),
        };
        let works = |line: &str| {
            let mut words = line.split(' ');
            let mut command = command(words.next().unwrap());
            command.args(words).output().unwrap().status.success()
        };
        let mut program = None;
        if !works(&format!("ip link add {device} type wireguard")) {
            let mut command = command("wireguard-go");
            command
                .arg(&device)
                .env("WG_PROCESS_FOREGROUND", "1")
                .env("LOG_LEVEL", "error")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            program = Some(command.spawn().unwrap());
            until("the peer's device is there", || {
                works(&format!("wg show {device}"))
            });
        }
        let peer = Self {
            device,
            keys: Keys::new(),
            program,
        };
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(peer.keys.private.as_bytes()).unwrap();
        let (device, path) = (&peer.device, file.path().display());
        for line in [
            // It says things by itself.
            format!("sysctl -qw net.ipv6.conf.{device}.disable_ipv6=1"),
            format!("wg set {device} listen-port 51820 private-key {path}"),
            format!("ip address add {address} dev {device}"),
            format!("ip link set {device} up"),
        ] {
            assert!(works(&line), "{line}");
        }
        peer
    }

    /// Lets somebody in.
    pub(crate) fn admit(&self, space: &Space, public: &str, networks: &str, more: &str) {
        let device = &self.device;
        space.run(&format!(
            "wg set {device} peer {public} allowed-ips {networks}{more}"
        ));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(program) = &mut self.program {
            let _ = program.kill();
            let _ = program.wait();
            let socket = format!("/var/run/wireguard/{}.sock", self.device);
            let _ = std::fs::remove_file(socket);
        }
    }
}
