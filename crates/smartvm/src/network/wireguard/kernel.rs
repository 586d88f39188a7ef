//! The kernel's WireGuard, by generic netlink.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use ipnet::Ipv4Net;
use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardCmd, WireguardDeviceFlags, WireguardMessage, WireguardPeer, WireguardPeerAttribute,
    WireguardPeerFlags, WireguardTimeSpec,
};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::facts::{DeviceFacts, PeerFacts};
use super::{Key, Settings};
use crate::name::IfName;
use crate::network::netlink::{Socket, is_missing};

/// How many networks of one peer go into one message: a list has 65,535 bytes at most.
const NETWORKS_AT_ONCE: usize = 512;

/// The kernel's WireGuard, in this thread's network namespace.
pub(super) struct Kernel {
    socket: Socket,
    family: u16,
}

impl Kernel {
    /// `None`: this kernel has none. Asking loads its module, where there is one.
    pub(super) fn open() -> io::Result<Option<Self>> {
        let mut socket = Socket::open(NETLINK_GENERIC)?;
        let question = GenlMessage::from_payload(GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName("wireguard".into())],
        });
        let Some(answer) = socket.get(question)? else {
            return Ok(None);
        };
        let family = answer.payload.nlas.iter().find_map(|one| match one {
            GenlCtrlAttrs::FamilyId(family) => Some(*family),
            _ => None,
        });
        Ok(family.map(|family| Self { socket, family }))
    }

    /// Makes a device what the settings say: no other peers than theirs.
    pub(super) fn configure(&mut self, device: &IfName, settings: &Settings) -> io::Result<()> {
        let config = &settings.config;
        self.set(
            device,
            vec![
                WireguardAttribute::PrivateKey(*config.private_key.reveal()),
                WireguardAttribute::ListenPort(config.listen_port.unwrap_or(0)),
                WireguardAttribute::Fwmark(config.fw_mark),
                WireguardAttribute::Flags(WireguardDeviceFlags::ReplacePeers),
            ],
        )?;
        for (peer, endpoint) in config.peers.iter().zip(&settings.endpoints) {
            let mut attributes = vec![
                WireguardPeerAttribute::PublicKey(peer.public_key),
                WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
                WireguardPeerAttribute::PersistentKeepalive(peer.keepalive.unwrap_or(0)),
            ];
            let shared = peer.preshared_key.as_ref().map(Key::reveal);
            attributes.extend(shared.map(|key| WireguardPeerAttribute::PresharedKey(*key)));
            attributes.extend(endpoint.map(WireguardPeerAttribute::Endpoint));
            self.set_peer(device, attributes)?;
            for some in peer.allowed_ips.chunks(NETWORKS_AT_ONCE) {
                let some = some.iter().map(allowed).collect();
                self.set_peer(
                    device,
                    vec![
                        WireguardPeerAttribute::PublicKey(peer.public_key),
                        WireguardPeerAttribute::AllowedIps(some),
                    ],
                )?;
            }
        }
        Ok(())
    }

    /// What a device is and has done; `None`: there is no such device of WireGuard's.
    pub(super) fn read(&mut self, device: &IfName) -> io::Result<Option<DeviceFacts>> {
        let question = self.message(
            WireguardCmd::GetDevice,
            vec![WireguardAttribute::IfName(device.to_string())],
        );
        let answers = match self.socket.dump(question) {
            Err(e) if is_missing(&e) || not_wireguard(&e) => return Ok(None),
            answers => answers?,
        };
        let mut facts = DeviceFacts::default();
        for attribute in answers
            .into_iter()
            .flat_map(|answer| answer.payload.attributes)
        {
            match attribute {
                WireguardAttribute::PrivateKey(key) => facts.private_key = Some(Key::new(key)),
                WireguardAttribute::ListenPort(port) => facts.listen_port = port,
                WireguardAttribute::Fwmark(mark) => facts.fw_mark = mark,
                WireguardAttribute::Peers(peers) => {
                    peers.iter().for_each(|peer| facts.add(read_peer(peer)));
                }
                _ => {}
            }
        }
        Ok(Some(facts))
    }

    fn set_peer(
        &mut self,
        device: &IfName,
        attributes: Vec<WireguardPeerAttribute>,
    ) -> io::Result<()> {
        let peers = WireguardAttribute::Peers(vec![WireguardPeer(attributes)]);
        self.set(device, vec![peers])
    }

    fn set(&mut self, device: &IfName, attributes: Vec<WireguardAttribute>) -> io::Result<()> {
        let mut all = vec![WireguardAttribute::IfName(device.to_string())];
        all.extend(attributes);
        let message = self.message(WireguardCmd::SetDevice, all);
        self.socket.request(message, 0)
    }

    fn message(
        &self,
        cmd: WireguardCmd,
        attributes: Vec<WireguardAttribute>,
    ) -> GenlMessage<WireguardMessage> {
        let mut message = GenlMessage::from_payload(WireguardMessage { cmd, attributes });
        message.set_resolved_family_id(self.family);
        message
    }
}

fn not_wireguard(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EOPNOTSUPP)
}

fn allowed(net: &Ipv4Net) -> WireguardAllowedIp {
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(WireguardAddressFamily::Ipv4),
        WireguardAllowedIpAttr::IpAddr(IpAddr::V4(net.network())),
        WireguardAllowedIpAttr::Cidr(net.prefix_len()),
    ])
}

fn read_peer(peer: &WireguardPeer) -> PeerFacts {
    let mut facts = PeerFacts::default();
    for attribute in peer.iter() {
        match attribute {
            WireguardPeerAttribute::PublicKey(key) => facts.public_key = *key,
            WireguardPeerAttribute::Endpoint(endpoint) => facts.endpoint = Some(*endpoint),
            WireguardPeerAttribute::LastHandshake(at) => facts.last_handshake = time(at),
            WireguardPeerAttribute::RxBytes(bytes) => facts.received = *bytes,
            WireguardPeerAttribute::TxBytes(bytes) => facts.sent = *bytes,
            WireguardPeerAttribute::AllowedIps(networks) => {
                facts.allowed_ips = networks.iter().filter_map(read_network).collect();
            }
            _ => {}
        }
    }
    facts
}

fn read_network(network: &WireguardAllowedIp) -> Option<Ipv4Net> {
    let (mut address, mut prefix) = (None, None);
    for attribute in network.iter() {
        match attribute {
            WireguardAllowedIpAttr::IpAddr(IpAddr::V4(found)) => address = Some(*found),
            WireguardAllowedIpAttr::Cidr(found) => prefix = Some(*found),
            _ => {}
        }
    }
    Ipv4Net::new(address?, prefix?).ok()
}

/// Seconds since 1970; 0 where there was none.
fn time(at: &WireguardTimeSpec) -> Option<SystemTime> {
    let seconds = u64::try_from(at.seconds).ok().filter(|it| *it > 0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
