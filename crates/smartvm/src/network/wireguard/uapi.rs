//! The cross-platform interface of WireGuard's userspace implementations: questions and
//! answers as text, through a Unix socket named after the interface.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ipnet::Ipv4Net;

use super::facts::{DeviceFacts, PeerFacts};
use super::{Key, Settings};
use crate::name::IfName;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What an answer may have at most: some thousand peers.
const MOST_BYTES: u64 = 4 << 20;

/// What it means that nobody is at a socket, or is no longer.
const NOBODY: [io::ErrorKind; 5] = [
    io::ErrorKind::NotFound,
    io::ErrorKind::ConnectionRefused,
    io::ErrorKind::ConnectionReset,
    io::ErrorKind::BrokenPipe,
    io::ErrorKind::UnexpectedEof,
];

/// Where the socket of an interface is.
pub(super) fn socket(device: &IfName) -> PathBuf {
    PathBuf::from(format!("/var/run/wireguard/{device}.sock"))
}

/// Makes a device what the settings say: no other peers than theirs.
pub(super) fn configure(device: &IfName, settings: &Settings) -> io::Result<()> {
    let config = &settings.config;
    let mut text = format!(
        "set=1\nprivate_key={}\nlisten_port={}\nfwmark={}\nreplace_peers=true\n",
        hex(config.private_key.reveal()),
        config.listen_port.unwrap_or(0),
        config.fw_mark
    );
    for (peer, endpoint) in config.peers.iter().zip(&settings.endpoints) {
        let _ = writeln!(text, "public_key={}", hex(&peer.public_key));
        if let Some(key) = &peer.preshared_key {
            let _ = writeln!(text, "preshared_key={}", hex(key.reveal()));
        }
        if let Some(endpoint) = endpoint {
            let _ = writeln!(text, "endpoint={endpoint}");
        }
        let keepalive = peer.keepalive.unwrap_or(0);
        let _ = writeln!(text, "persistent_keepalive_interval={keepalive}");
        text.push_str("replace_allowed_ips=true\n");
        for network in &peer.allowed_ips {
            let _ = writeln!(text, "allowed_ip={network}");
        }
    }
    text.push('\n');
    ask(device, &text).map(drop)
}

/// What a device is and has done; `None`: nobody is at its socket.
pub(super) fn read(device: &IfName) -> io::Result<Option<DeviceFacts>> {
    match ask(device, "get=1\n\n") {
        Ok(answer) => Ok(Some(parse(&answer))),
        // It may end while it is asked.
        Err(e) if NOBODY.contains(&e.kind()) => Ok(None),
        Err(e) => Err(e),
    }
}

fn ask(device: &IfName, question: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket(device))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(question.as_bytes())?;
    // It reads one question after the other, until there is none.
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.take(MOST_BYTES).read_to_string(&mut answer)?;
    let error = answer.lines().find_map(|line| line.strip_prefix("errno="));
    match error.and_then(|number| number.trim().parse().ok()) {
        Some(0) => Ok(answer),
        Some(number) => Err(io::Error::from_raw_os_error(i32::abs(number))),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn parse(answer: &str) -> DeviceFacts {
    let mut facts = DeviceFacts::default();
    for line in answer.lines() {
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        match (name, facts.peers.last_mut()) {
            ("private_key", None) => facts.private_key = bytes(value).map(Key::new),
            ("own_public_key", None) => facts.public_key = bytes(value),
            ("listen_port", None) => facts.listen_port = value.parse().unwrap_or(0),
            ("fwmark", None) => facts.fw_mark = value.parse().unwrap_or(0),
            ("public_key", _) => facts.peers.push(PeerFacts {
                public_key: bytes(value).unwrap_or_default(),
                ..PeerFacts::default()
            }),
            ("endpoint", Some(peer)) => peer.endpoint = value.parse().ok(),
            ("allowed_ip", Some(peer)) => peer.allowed_ips.extend(value.parse::<Ipv4Net>().ok()),
            ("rx_bytes", Some(peer)) => peer.received = value.parse().unwrap_or(0),
            ("tx_bytes", Some(peer)) => peer.sent = value.parse().unwrap_or(0),
            ("last_handshake_time_sec", Some(peer)) => {
                let seconds = value.parse().ok().filter(|it| *it > 0);
                peer.last_handshake = seconds
                    .and_then(|it| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(it)));
            }
            _ => {}
        }
    }
    facts
}

fn hex(key: &[u8; 32]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_all_its_peers() {
        let key = |digit: char| digit.to_string().repeat(64);
        let text = format!(
            "private_key={}\nlisten_port=51820\nfwmark=16\npublic_key={}\nendpoint=192.0.2.1:7\n\
             last_handshake_time_sec=100\nlast_handshake_time_nsec=5\nrx_bytes=11\ntx_bytes=12\n\
             allowed_ip=10.0.0.0/8\nallowed_ip=fe80::/64\nallowed_ip=192.0.2.0/24\n\
             public_key={}\nlast_handshake_time_sec=0\nerrno=0\n\n",
            key('1'),
            key('2'),
            key('f')
        );
        let facts = parse(&text);
        assert_eq!(facts.private_key, Some(Key::new([0x11; 32])));
        assert_eq!((facts.listen_port, facts.fw_mark), (51820, 16));
        let [first, second] = facts.peers.as_slice() else {
            panic!("{facts:?}")
        };
        assert_eq!(first.public_key, [0x22; 32]);
        assert_eq!(first.endpoint, Some("192.0.2.1:7".parse().unwrap()));
        assert_eq!((first.received, first.sent), (11, 12));
        assert_eq!(first.allowed_ips.len(), 2);
        let hundred = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(first.last_handshake, Some(hundred));
        assert_eq!(second.public_key, [0xff; 32]);
        assert_eq!(second.last_handshake, None);
        // As boringtun answers.
        let facts = parse(&format!("own_public_key={}\nerrno=0\n", key('1')));
        assert_eq!(
            (facts.private_key, facts.public_key),
            (None, Some([0x11; 32]))
        );
    }
}
