//! A guest that sends all the time, in every way it can: as itself, and as somebody else.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, ipproto, socket};

use super::way::{Way, run, until};
use crate::lab::{Capture, Wire};

/// What everything that it sends carries.
const MARKER: &[u8] = b"sent by a guest";
/// Where it sends: beyond the host, to its router, to the network of its other device.
const TARGETS: [&str; 3] = [Way::SERVER, "192.0.2.1", "198.51.100.1"];
/// Who it says it is: nobody, the server beyond the tunnel, the host, another guest.
const SOURCES: [&str; 4] = ["10.66.66.66", Way::SERVER, "192.0.2.2", "172.30.0.77"];
/// Where it sends that: beyond the host, and to the host, which might answer.
const PLACES: [&str; 3] = [TARGETS[1], TARGETS[2], "192.0.2.2"];
/// How many rounds are enough to tell.
const ROUNDS: u64 = 40;

pub(crate) struct Fire {
    ceased: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    answers: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
    captures: [(&'static str, Capture); 2],
}

impl Fire {
    /// Begins, and answers in the name of the server beyond the tunnel.
    pub(crate) fn begin(way: &Way) -> Self {
        let ceased = Arc::new(AtomicBool::new(false));
        let (rounds, answers) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let server = way.far.udp(&format!("{}:7", Way::SERVER));
        let udp = way.guest.udp("0.0.0.0:0");
        let icmp = way.guest.inside(|| {
            UdpSocket::from(
                socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)).unwrap(),
            )
        });
        let wire = way.guest.inside(|| Wire::of("eth0"));
        // Also to its own port, which is all that there is without a bridge.
        let neighbours = ["svbr0", &way.port()].map(mac);
        let forged: Vec<Vec<u8>> = (neighbours.iter())
            .flat_map(|to| SOURCES.map(|from| PLACES.map(|place| frame(*to, from, place))))
            .flatten()
            .collect();
        let threads = vec![
            {
                let ceased = Arc::clone(&ceased);
                std::thread::spawn(move || echo(&server, &ceased))
            },
            {
                let (ceased, rounds) = (Arc::clone(&ceased), Arc::clone(&rounds));
                let answers = Arc::clone(&answers);
                std::thread::spawn(move || {
                    while !ceased.load(Ordering::SeqCst) {
                        answers.fetch_add(round(&udp, &icmp), Ordering::SeqCst);
                        // Its device may be down just now.
                        let _ = forged.iter().try_for_each(|frame| wire.send(frame));
                        rounds.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(1));
                    }
                })
            },
        ];
        Self {
            ceased,
            rounds,
            answers,
            threads,
            captures: [
                ("router", way.router.inside(Capture::begin)),
                ("other", way.other.inside(Capture::begin)),
            ],
        }
    }

    /// The tunnel works: the server's answers come back.
    pub(crate) fn arrives(&self, when: &str) {
        let before = self.answers.load(Ordering::SeqCst);
        until(&format!("{when}: the tunnel works"), || {
            self.answers.load(Ordering::SeqCst) > before + 3
        });
        assert_eq!(self.leaked(), [""; 0], "{when}");
    }

    /// While the guest goes on sending, nothing of it is seen anywhere.
    pub(crate) fn stays_inside(&self, when: &str) {
        self.rage();
        assert_eq!(self.leaked(), [""; 0], "{when}");
    }

    /// Something of it is seen outside.
    pub(crate) fn escapes(&self, when: &str) {
        until(&format!("{when}: it is seen outside"), || {
            !self.leaked().is_empty()
        });
    }

    fn rage(&self) {
        let before = self.rounds.load(Ordering::SeqCst);
        until("the guest sends", || {
            self.rounds.load(Ordering::SeqCst) > before + ROUNDS
        });
    }

    /// Frames outside that carry what the guest sent, since the last call.
    fn leaked(&self) -> Vec<String> {
        let mut leaked = Vec::new();
        for (place, capture) in &self.captures {
            let of_guest =
                |frame: &&Vec<u8>| frame.windows(MARKER.len()).any(|part| part == MARKER);
            for frame in capture.frames().iter().filter(of_guest) {
                leaked.push(format!("{place}: {frame:02x?}"));
            }
        }
        leaked
    }
}

impl Drop for Fire {
    fn drop(&mut self) {
        self.ceased.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Sends to every target by UDP, as a question of DNS, and by ICMP; counts what came back.
fn round(udp: &UdpSocket, icmp: &UdpSocket) -> u64 {
    let mut echo = vec![8, 0, 0, 0, 0, 0, 0, 0];
    echo.extend(MARKER);
    let sum = checksum(&echo);
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    for target in TARGETS {
        // The host may say that it is unreachable, which is what is wanted.
        let _ = udp.send_to(MARKER, (target, 7));
        let _ = udp.send_to(MARKER, (target, 53));
        let _ = icmp.send_to(&echo, (target, 0));
    }
    udp.set_nonblocking(true).unwrap();
    let mut buffer = [0; 64];
    let mut answers = 0;
    while let Ok((length, _)) = udp.recv_from(&mut buffer) {
        answers += u64::from(&buffer[..length] == MARKER);
    }
    answers
}

/// Answers, and goes on answering who is silent: what is on its way to a guest may come when
/// nothing takes it there any more.
fn echo(server: &UdpSocket, ceased: &AtomicBool) {
    server
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    let mut buffer = [0; 64];
    let mut last = None;
    while !ceased.load(Ordering::SeqCst) {
        match (server.recv_from(&mut buffer), last) {
            (Ok((length, from)), _) => {
                let _ = server.send_to(&buffer[..length], from);
                last = Some(from);
            }
            (Err(_), Some(last)) => {
                let _ = server.send_to(MARKER, last);
            }
            _ => {}
        }
    }
}

/// A datagram from an address that isn't its own.
fn frame(to: [u8; 6], from: &str, place: &str) -> Vec<u8> {
    let mine = [6, 0, 0xac, 0x1e, 0, 0xc8];
    let udp = (8 + MARKER.len()) as u8;
    let mut ip = vec![0x45, 0, 0, 20 + udp, 0, 0, 0x40, 0, 64, 17, 0, 0];
    for address in [from, place] {
        ip.extend(address.parse::<Ipv4Addr>().unwrap().octets());
    }
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let ports = [0, 7, 0, 7, 0, udp, 0, 0];
    [&to[..], &mine, &[8, 0], &ip, &ports, MARKER].concat()
}

/// The address of a device of the host's.
fn mac(device: &str) -> [u8; 6] {
    let shown: serde_json::Value =
        serde_json::from_str(&run(&format!("ip -j link show {device}"))).unwrap();
    let bytes = shown[0]["address"].as_str().unwrap().split(':');
    let bytes: Vec<u8> = bytes
        .map(|one| u8::from_str_radix(one, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
