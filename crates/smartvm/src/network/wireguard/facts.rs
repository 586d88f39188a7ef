//! What a WireGuard device is and has done, whoever makes it work.

use std::net::SocketAddr;
use std::time::SystemTime;

use ipnet::Ipv4Net;
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

use super::{Config, Key};

/// What a device was set to, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct DeviceFacts {
    pub(crate) private_key: Option<Key>,
    /// What some programs tell in its place.
    pub(crate) public_key: Option<[u8; 32]>,
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
        self.has(&config.private_key)
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

    fn has(&self, key: &Key) -> bool {
        match (&self.private_key, self.public_key) {
            (Some(private), _) => private.clamped() == key.clamped(),
            (None, Some(public)) => x25519(*key.reveal(), X25519_BASEPOINT_BYTES) == public,
            (None, None) => false,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair that `wg genkey` and `wg pubkey` made.
    const PRIVATE: &str = "MNKBy3XCyW3YcClxyXh5jxRwA/8+TmJNuz4qPxgcWEw=";
    const PUBLIC: [u8; 32] = [
        0xa4, 0xb5, 0xa0, 0xdc, 0xc6, 0xa9, 0xf1, 0x20, 0x79, 0x1f, 0x7b, 0xa0, 0xb6, 0x42, 0x17,
        0x77, 0x4e, 0xb9, 0x46, 0x43, 0x52, 0x04, 0x3c, 0x2c, 0x2b, 0x39, 0x48, 0x31, 0x16, 0x0c,
        0x85, 0x01,
    ];

    #[test]
    fn a_device_is_known_by_either_half_of_its_key() {
        let text = format!("[Interface]\nPrivateKey = {PRIVATE}\n[Peer]\nPublicKey = {PRIVATE}\n");
        let config = Config::parse(&text).unwrap();
        let peer = PeerFacts {
            public_key: config.peers[0].public_key,
            ..PeerFacts::default()
        };
        let told = |private_key: Option<Key>, public_key| DeviceFacts {
            private_key,
            public_key,
            peers: vec![peer.clone()],
            ..DeviceFacts::default()
        };
        assert!(told(Some(config.private_key.clone()), None).is_as(&config));
        assert!(told(None, Some(PUBLIC)).is_as(&config));
        assert!(!told(Some(Key::new([7; 32])), Some(PUBLIC)).is_as(&config));
        assert!(!told(None, Some([7; 32])).is_as(&config));
        assert!(!told(None, None).is_as(&config));
    }
}
