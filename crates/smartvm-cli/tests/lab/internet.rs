//! A made-up Internet: one namespace that has every address there is.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use super::{Capture, Space, wait};

/// The Internet at the other end of the calling thread's uplink `up0`.
pub(crate) struct Internet {
    pub(crate) space: Space,
    dns: OnceLock<Dns>,
    /// Bytes that arrived over TCP, by the address that was called.
    arrived: Arc<Mutex<HashMap<SocketAddr, usize>>>,
}

impl Internet {
    /// Where names are known, once [`Internet::knows`] has been called.
    pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);

    /// Connects the calling thread's namespace: it is 192.0.2.1 at `up0`, and its default route
    /// leads here.
    pub(crate) fn connect() -> Self {
        let space = Space::new();
        let run = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let out = std::process::Command::new(words[0])
                .args(&words[1..])
                .output()
                .unwrap();
            assert!(out.status.success(), "{line}: {out:?}");
        };
        let pid = space.pid();
        run(&format!(
            "ip link add up0 type veth peer name eth0 netns {pid}"
        ));
        run("ip address add 192.0.2.1/24 dev up0");
        run("ip link set up0 up");
        space.run("ip address add 192.0.2.2/24 dev eth0");
        space.run("ip link set eth0 up");
        run("ip route add default via 192.0.2.2");
        for network in [
            "10.0.0.0/8",
            "169.254.169.254/32",
            "198.51.100.0/24",
            "203.0.113.0/24",
        ] {
            space.run(&format!("ip route add local {network} dev lo"));
        }
        wait(|| space.run("ip -o link show eth0").contains("state UP"));
        Self {
            space,
            dns: OnceLock::new(),
            arrived: Arc::default(),
        }
    }

    /// Starts a real DNS server that knows these names.
    pub(crate) fn knows(&self, names: &[(&str, &str)]) {
        let mut dnsmasq = self.space.command("dnsmasq");
        dnsmasq.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            // It knows what it isn't told of, too: there is none.
            "--local=/example/",
            "--user=root",
            "--pid-file=",
            &format!("--listen-address={}", Self::DNS),
        ]);
        for (name, address) in names {
            dnsmasq.arg(format!("--host-record={name},{address}"));
        }
        let child = dnsmasq.stdin(Stdio::null()).spawn().unwrap();
        assert!(self.dns.set(Dns(child)).is_ok(), "there is one already");
        let at = format!("{}:53", Self::DNS);
        wait(|| self.space.inside(|| TcpStream::connect(&at).is_ok()));
    }

    /// Serves TCP at every address: says `hello` as HTTP does to whoever asks, and counts what
    /// arrives from whoever doesn't.
    pub(crate) fn serve(&self, port: u16) {
        let listener = self
            .space
            .inside(|| TcpListener::bind(("0.0.0.0", port)).unwrap());
        let arrived = Arc::clone(&self.arrived);
        answer_all(listener, move |(called, length)| {
            *arrived.lock().unwrap().entry(called).or_default() += length;
        });
    }

    /// How many bytes arrived over TCP at this address.
    pub(crate) fn arrived(&self, at: &str) -> usize {
        let counts = self.arrived.lock().unwrap();
        counts
            .get(&at.parse().unwrap())
            .copied()
            .unwrap_or_default()
    }

    /// What passes here from now on.
    pub(crate) fn capture(&self) -> Capture {
        self.space.inside(Capture::begin)
    }
}

/// Says `hello`, as HTTP does, to all who ask; tells where each call went and how many bytes came
/// with it.
pub(crate) fn answer_all(
    listener: TcpListener,
    came: impl Fn((SocketAddr, usize)) + Clone + Send + 'static,
) {
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let came = came.clone();
            thread::spawn(move || {
                let called = stream.local_addr().unwrap();
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    came((called, length));
                    if buffer.starts_with(b"GET ") {
                        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello\n");
                        return;
                    }
                }
            });
        }
    });
}

struct Dns(Child);

impl Drop for Dns {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
