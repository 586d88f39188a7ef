//! The text of wg-quick, read into types; what can't be done is refused by name and line.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

/// A tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Our private key.
    pub private_key: Key,
    /// Our addresses in the tunnel.
    pub addresses: Vec<Ipv4Net>,
    /// Port to listen at; `None`: the kernel takes one.
    pub listen_port: Option<u16>,
    /// Mark of the encrypted packets; 0: none.
    pub fw_mark: u32,
    /// MTU of the interface in bytes, 576 to 65535; `None`: 1420.
    pub mtu: Option<u16>,
    /// Name servers for the guests.
    pub dns: Vec<Ipv4Addr>,
    /// The other ends.
    pub peers: Vec<Peer>,
}

/// The other end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// Its public key.
    pub public_key: [u8; 32],
    /// A secret shared with it.
    pub preshared_key: Option<Key>,
    /// What is sent to it, and taken from it.
    pub allowed_ips: Vec<Ipv4Net>,
    /// Where it is.
    pub endpoint: Option<Endpoint>,
    /// Seconds between packets that keep the way to it open; `None`: none are sent.
    pub keepalive: Option<u16>,
}

/// An address, or a name still to be resolved, with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// Address or name.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

/// A secret key. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// As implementations keep a private key: with the bits set that Curve25519 wants.
    pub fn clamped(&self) -> Self {
        let mut key = self.0;
        key[0] &= 248;
        key[31] = (key[31] & 127) | 64;
        Self(key)
    }

    /// Its bytes.
    pub fn reveal(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[redacted]")
    }
}

/// What is wrong with a text, and in which line. It never shows a value, which may be a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
    /// What is allowed.
    pub allowed: &'static str,
}

type Parsed<T> = Result<T, (String, &'static str)>;

const HOOKS: [&str; 4] = ["preup", "postup", "predown", "postdown"];
const MAX_PEERS: usize = 1024;

#[derive(Default)]
struct Interface {
    private_key: Option<Key>,
    addresses: Vec<Ipv4Net>,
    listen_port: Option<u16>,
    fw_mark: Option<u32>,
    mtu: Option<u16>,
    dns: Vec<Ipv4Addr>,
}

#[derive(Default)]
struct OpenPeer {
    line: usize,
    public_key: Option<[u8; 32]>,
    preshared_key: Option<Key>,
    allowed_ips: Vec<Ipv4Net>,
    endpoint: Option<Endpoint>,
    keepalive: Option<Option<u16>>,
}

enum Section {
    None,
    Interface,
    Peer,
}

impl Config {
    /// Reads a configuration.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut section = Section::None;
        let mut interface: Option<Interface> = None;
        let mut peers: Vec<OpenPeer> = Vec::new();
        let mut last = 1;
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let at = |(problem, allowed)| ConfigError {
                line: number,
                problem,
                allowed,
            };
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            last = number;
            if line.starts_with('[') {
                section = match line.to_ascii_lowercase().as_str() {
                    "[interface]" if interface.is_some() => {
                        let problem = "a second [Interface]".to_owned();
                        return Err(at((problem, "one [Interface], and [Peer]s")));
                    }
                    "[interface]" => {
                        interface = Some(Interface::default());
                        Section::Interface
                    }
                    "[peer]" if peers.len() < MAX_PEERS => {
                        peers.push(OpenPeer {
                            line: number,
                            ..OpenPeer::default()
                        });
                        Section::Peer
                    }
                    "[peer]" => {
                        return Err(at(("too many peers".into(), "at most 1024 peers")));
                    }
                    _ => {
                        let problem = "an unknown section".to_owned();
                        return Err(at((problem, "[Interface] and [Peer]")));
                    }
                };
                continue;
            }
            let Some((name, value)) = line.split_once('=') else {
                return Err(at(("isn't `Name = value`".into(), "Name = value")));
            };
            let (name, value) = (name.trim(), value.trim());
            let done = match (&section, &mut interface, peers.last_mut()) {
                (Section::Interface, Some(interface), _) => interface.take(name, value),
                (Section::Peer, _, Some(peer)) => peer.take(name, value),
                _ => Err((
                    "comes before any section".into(),
                    "[Interface] in the first line",
                )),
            };
            done.map_err(at)?;
        }
        let missing = |line, problem: &str, allowed| ConfigError {
            line,
            problem: problem.into(),
            allowed,
        };
        let interface = interface
            .ok_or_else(|| missing(last, "there is no [Interface]", "[Interface] and [Peer]s"))?;
        let private_key = interface
            .private_key
            .ok_or_else(|| missing(last, "[Interface] has no PrivateKey", "PrivateKey = …"))?;
        let mut done: Vec<Peer> = Vec::new();
        for peer in peers {
            let line = peer.line;
            let peer = peer.finish()?;
            if done.iter().any(|other| other.public_key == peer.public_key) {
                return Err(missing(
                    line,
                    "this peer's PublicKey is also an earlier one's",
                    "each peer once",
                ));
            }
            done.push(peer);
        }
        if done.is_empty() {
            return Err(missing(last, "there is no [Peer]", "at least one [Peer]"));
        }
        Ok(Self {
            private_key,
            addresses: interface.addresses,
            listen_port: interface.listen_port,
            fw_mark: interface.fw_mark.unwrap_or(0),
            mtu: interface.mtu,
            dns: interface.dns,
            peers: done,
        })
    }
}

impl Interface {
    fn take(&mut self, name: &str, value: &str) -> Parsed<()> {
        match name.to_ascii_lowercase().as_str() {
            "privatekey" => once(&mut self.private_key, name, Key(key(name, value)?)),
            "address" => list(value, |item| {
                self.addresses.push(network(name, item, false)?);
                Ok(())
            }),
            "listenport" => once(&mut self.listen_port, name, number(name, value, 0, 65535)?),
            "mtu" => once(&mut self.mtu, name, number(name, value, 576, 65535)?),
            "fwmark" => once(&mut self.fw_mark, name, mark(name, value)?),
            "dns" => list(value, |item| {
                self.dns.push(server(name, item)?);
                Ok(())
            }),
            hook if HOOKS.contains(&hook) => Err((
                format!("{name} is a hook, and no commands are run"),
                "a configuration without hooks",
            )),
            "table" => Err((
                "Table isn't taken: the guests' traffic has a table of its own".into(),
                "`routeTable` in the options",
            )),
            "saveconfig" => Err((
                "SaveConfig isn't taken: the text is never written".into(),
                "a configuration without SaveConfig",
            )),
            _ => Err(unknown(
                name,
                "PrivateKey, Address, ListenPort, FwMark, MTU, DNS",
            )),
        }
    }
}

impl OpenPeer {
    fn take(&mut self, name: &str, value: &str) -> Parsed<()> {
        match name.to_ascii_lowercase().as_str() {
            "publickey" => once(&mut self.public_key, name, key(name, value)?),
            "presharedkey" => once(&mut self.preshared_key, name, Key(key(name, value)?)),
            "allowedips" => list(value, |item| {
                self.allowed_ips.push(network(name, item, true)?);
                Ok(())
            }),
            "endpoint" => once(&mut self.endpoint, name, endpoint(name, value)?),
            "persistentkeepalive" => {
                let seconds = match value {
                    "off" => 0,
                    value => number(name, value, 0, 65535)?,
                };
                once(
                    &mut self.keepalive,
                    name,
                    Some(seconds).filter(|seconds| *seconds > 0),
                )
            }
            _ => Err(unknown(
                name,
                "PublicKey, PresharedKey, AllowedIPs, Endpoint, PersistentKeepalive",
            )),
        }
    }

    fn finish(self) -> Result<Peer, ConfigError> {
        let public_key = self.public_key.ok_or(ConfigError {
            line: self.line,
            problem: "this peer has no PublicKey".into(),
            allowed: "PublicKey = …",
        })?;
        Ok(Peer {
            public_key,
            preshared_key: self.preshared_key,
            allowed_ips: self.allowed_ips,
            endpoint: self.endpoint,
            keepalive: self.keepalive.flatten(),
        })
    }
}

fn unknown(name: &str, allowed: &'static str) -> (String, &'static str) {
    // A line that is no field may be anything, a key too.
    let plain = name.len() <= 24 && name.bytes().all(|it| it.is_ascii_alphabetic());
    let shown = if plain { name } else { "this" };
    (format!("{shown} isn't a field of this section"), allowed)
}

fn once<T>(field: &mut Option<T>, name: &str, value: T) -> Parsed<()> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err((format!("{name} is given twice"), "each field once")),
    }
}

fn list(value: &str, take: impl FnMut(&str) -> Parsed<()>) -> Parsed<()> {
    value
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .try_for_each(take)
}

fn number<T: TryFrom<u32>>(name: &str, value: &str, least: u32, most: u32) -> Parsed<T> {
    value
        .parse::<u32>()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| (format!("{name} isn't {least} to {most}"), "a number"))
}

fn mark(name: &str, value: &str) -> Parsed<u32> {
    let parsed = match value.strip_prefix("0x") {
        _ if value == "off" => Ok(0),
        Some(digits) => u32::from_str_radix(digits, 16),
        None => value.parse(),
    };
    parsed.map_err(|_| (format!("{name} isn't a mark"), "a number, 0x…, or off"))
}

fn no_ipv6<T>(name: &str) -> Parsed<T> {
    Err((
        format!("{name} is IPv6, and guests have no IPv6"),
        "IPv4 only",
    ))
}

fn network(name: &str, text: &str, exact: bool) -> Parsed<Ipv4Net> {
    if text.contains(':') {
        return no_ipv6(name);
    }
    let wrong = || (format!("{name} isn't a network"), "such as 10.0.0.2/32");
    let network: Ipv4Net = match text.contains('/') {
        true => text.parse().map_err(|_| wrong())?,
        false => Ipv4Net::from(text.parse::<Ipv4Addr>().map_err(|_| wrong())?),
    };
    if exact && network.trunc() != network {
        return Err((
            format!("{name} has bits set beyond its prefix"),
            "a network such as 10.0.0.0/8",
        ));
    }
    Ok(network)
}

fn server(name: &str, text: &str) -> Parsed<Ipv4Addr> {
    match text.parse() {
        Ok(IpAddr::V4(address)) => Ok(address),
        Ok(IpAddr::V6(_)) => no_ipv6(name),
        Err(_) => Err((format!("{name} isn't an address"), "IPv4 addresses")),
    }
}

fn endpoint(name: &str, text: &str) -> Parsed<Endpoint> {
    if text.starts_with('[') || text.matches(':').count() > 1 {
        return no_ipv6(name);
    }
    let sound = |host: &str| {
        (1..=253).contains(&host.len())
            && host
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || b"-._".contains(&it))
    };
    match text.split_once(':') {
        Some((host, port)) if sound(host) => Ok(Endpoint {
            host: host.to_owned(),
            port: number(name, port, 1, 65535)?,
        }),
        _ => Err((
            format!("{name} isn't host:port"),
            "such as vpn.example:51820",
        )),
    }
}

/// 32 bytes in base64, as `wg genkey` prints them.
fn key(name: &str, text: &str) -> Parsed<[u8; 32]> {
    const ALLOWED: &str = "44 letters of base64: 32 bytes";
    let wrong = |what: &str| (format!("{name} {what}"), ALLOWED);
    let digits = match text.as_bytes() {
        [digits @ .., b'='] if digits.len() == 43 => digits,
        _ => return Err(wrong("has the wrong length")),
    };
    let mut key = [0; 32];
    let (mut bits, mut held, mut filled) = (0u32, 0, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(wrong("isn't base64")),
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            key[filled] = (bits >> held) as u8;
            filled += 1;
            bits &= (1 << held) - 1;
        }
    }
    // 43 digits are 258 bits; the last two are nothing.
    if bits != 0 {
        return Err(wrong("isn't base64 of 32 bytes"));
    }
    Ok(key)
}

/// A public key as `wg` prints it.
pub fn base64(key: &[u8; 32]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(44);
    for three in key.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| {
            (bits << 8) | u32::from(three.get(at).copied().unwrap_or(0))
        });
        for digit in 0..4 {
            match digit <= three.len() {
                true => text.push(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63].into()),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
