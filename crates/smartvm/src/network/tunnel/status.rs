//! How the tunnel is, for people and programs.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use super::TunnelState;
use crate::error::Result;
use crate::network::wireguard::{self, Maker};

/// How the tunnel is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TunnelStatus {
    /// Its interface.
    pub interface: String,
    /// Whether smartvm made it.
    pub managed: bool,
    /// Who makes it work: `kernel`, or the name of a program; none for another's interface.
    pub implementation: Option<String>,
    /// Whether all traffic of the guests is sent into it.
    pub route_all_vm_traffic: bool,
    /// Whether nothing of the guests may leave by another interface.
    pub fail_closed: bool,
    /// The routing table of the guests' traffic.
    pub route_table: u32,
    /// The other ends; empty where its interface is gone.
    pub peers: Vec<PeerStatus>,
}

/// How the way to a peer is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PeerStatus {
    /// Its public key, as `wg` prints it.
    pub public_key: String,
    /// Where it was last heard of.
    pub endpoint: Option<String>,
    /// When both last agreed on keys, as RFC 3339 says it; `None`: never.
    pub last_handshake: Option<String>,
    /// Bytes that came from it.
    pub received_bytes: u64,
    /// Bytes that were sent to it.
    pub sent_bytes: u64,
    /// What is sent to it.
    pub allowed_ips: Vec<String>,
}

/// How it is.
pub(in crate::network) fn status(state: &TunnelState) -> Result<TunnelStatus> {
    let interface = &state.routes.interface;
    let facts = wireguard::read(interface)?.unwrap_or_default();
    Ok(TunnelStatus {
        interface: interface.to_string(),
        managed: state.maker.is_some(),
        implementation: state.maker.as_ref().map(Maker::name),
        route_all_vm_traffic: state.route_all,
        fail_closed: state.guests.fail_closed,
        route_table: state.guests.table,
        peers: facts.peers.iter().map(PeerStatus::of).collect(),
    })
}

impl fmt::Display for TunnelStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = match &self.implementation {
            Some(implementation) => format!("made by smartvm, {implementation}"),
            None => "another's".to_owned(),
        };
        let what = match self.route_all_vm_traffic {
            true => "everything",
            false => "its peers' networks",
        };
        let rest = match self.fail_closed {
            true => "nothing leaves elsewhere",
            false => "the rest leaves elsewhere",
        };
        write!(
            out,
            "{} ({made}); {what}, and {rest}; table {}",
            self.interface, self.route_table
        )?;
        for peer in &self.peers {
            write!(
                out,
                "\n  {} at {}, last handshake {}, {} bytes received, {} sent",
                peer.public_key,
                peer.endpoint.as_deref().unwrap_or("?"),
                peer.last_handshake.as_deref().unwrap_or("never"),
                peer.received_bytes,
                peer.sent_bytes
            )?;
        }
        Ok(())
    }
}

impl PeerStatus {
    fn of(peer: &wireguard::PeerFacts) -> Self {
        let time = |at: SystemTime| humantime::format_rfc3339_seconds(at).to_string();
        Self {
            public_key: wireguard::base64(&peer.public_key),
            endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
            last_handshake: peer.last_handshake.map(time),
            received_bytes: peer.received,
            sent_bytes: peer.sent,
            allowed_ips: peer.allowed_ips.iter().map(ToString::to_string).collect(),
        }
    }
}
