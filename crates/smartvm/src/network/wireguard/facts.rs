//! What a WireGuard device is and has done, whoever makes it work.

use std::net::SocketAddr;
use std::time::SystemTime;

use ipnet::Ipv4Net;

use super::{Config, Key};

/// What a device was set to, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct DeviceFacts {
    pub(crate) private_key: Option<Key>,
    pub(crate) listen_port: u16,
    pub(crate) fw_mark: u32,
    pub(crate) peers: Vec<PeerFacts>,
}

/// One of its peers.
#[derive(Debug, Default, Clone)]
pub(crate) struct PeerFacts {
    pub(crate) public_key: [u8; 32],
    pub(crate) endpoint: Option<SocketAddr>,
    /// When both last agreed on keys; `None`: never.
    pub(crate) last_handshake: Option<SystemTime>,
    /// Bytes.
    pub(crate) received: u64,
    /// Bytes.
    pub(crate) sent: u64,
    pub(crate) allowed_ips: Vec<Ipv4Net>,
}

impl DeviceFacts {
    /// Adds a peer, or what a further message tells of the last one.
    pub(super) fn add(&mut self, peer: PeerFacts) {
        match self.peers.last_mut() {
            Some(last) if last.public_key == peer.public_key => {
                last.allowed_ips.extend(peer.allowed_ips);
            }
            _ => self.peers.push(peer),
        }
    }

    /// Whether it is set to this: keys, mark, peers and their networks. Endpoints wander.
    pub(crate) fn is_as(&self, config: &Config) -> bool {
        let sorted = |networks: &[Ipv4Net]| {
            let mut networks = networks.to_vec();
            networks.sort();
            networks.dedup();
            networks
        };
        self.private_key.as_ref().map(Key::clamped) == Some(config.private_key.clamped())
            && self.fw_mark == config.fw_mark
            && config
                .listen_port
                .is_none_or(|port| port == 0 || port == self.listen_port)
            && self.peers.len() == config.peers.len()
            && config.peers.iter().all(|peer| {
                let here = (self.peers.iter()).find(|one| one.public_key == peer.public_key);
                here.is_some_and(|one| sorted(&one.allowed_ips) == sorted(&peer.allowed_ips))
            })
    }

    /// Everything that is sent to a peer.
    pub(crate) fn networks(&self) -> Vec<Ipv4Net> {
        let mut networks: Vec<_> = (self.peers.iter())
            .flat_map(|peer| peer.allowed_ips.clone())
            .collect();
        networks.sort();
        networks.dedup();
        networks
    }
}
