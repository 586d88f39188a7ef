//! What leads guests' traffic into a tunnel.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::name::IfName;

/// Whose traffic has a table of its own, and what becomes of it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestTable {
    /// The table's number.
    pub table: u32,
    /// What comes in by it comes from the subnet; else it is dropped, if all is closed.
    pub bridge: IfName,
    /// What comes from it is looked up in the table; what goes to it is not decided there.
    pub subnet: Ipv4Net,
    /// Whether what no route leads into the tunnel is unreachable; else the host's own tables
    /// decide.
    pub fail_closed: bool,
    /// Addresses of a tunnel of ours. What comes from them is guests' traffic, or what this
    /// host says about that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Ipv4Addr>,
}

/// The routes that lead into a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelRoutes {
    /// The table's number.
    pub table: u32,
    /// The tunnel's interface.
    pub interface: IfName,
    /// What is sent into it.
    pub to: Vec<Ipv4Net>,
}
