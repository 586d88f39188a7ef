//! The network's tunnel: what is looked at before it is made, the steps that make it, what
//! mends it, and how it is.

mod anothers;
mod status;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::link::Links;
use super::route::Routing;
use super::state::Instance;
use super::wireguard::{self, Config, Maker, NewTunnel, Settings};
use super::{GuestTable, Network, NetworkStep, TunnelRoutes, firewall};
use crate::error::{Error, ErrorKind, Result};
use anothers::existing;
pub(super) use anothers::follow;
pub(super) use status::status;
pub use status::{PeerStatus, TunnelStatus};

/// The tunnel of a network that is up, as far as it is no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TunnelState {
    /// Whose work it is; `None`: the interface is another's.
    pub(super) maker: Option<Maker>,
    pub(super) route_all: bool,
    /// In bytes.
    pub(super) mtu: u16,
    pub(super) guests: GuestTable,
    pub(super) routes: TunnelRoutes,
    /// The addresses of another's, where what this host sends from them matters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) theirs: Vec<Ipv4Addr>,
}

impl TunnelState {
    /// What the firewall has to do with it.
    pub(super) fn in_firewall(&self) -> firewall::Tunnel {
        firewall::Tunnel {
            interface: self.routes.interface.clone(),
            mtu: self.mtu,
            fail_closed: self.guests.fail_closed,
        }
    }
}

/// What a network's options make of its tunnel. Refuses what is in the way.
pub(super) fn plan(network: &Network) -> Result<Option<TunnelState>> {
    let Some(tunnel) = &network.tunnel else {
        return Ok(None);
    };
    let mut links = Links::open()?;
    let device = links.find(tunnel.interface.as_str())?;
    let (maker, mtu, networks, theirs) = match &tunnel.config {
        Some(config) => {
            if let Some(device) = device {
                return Err(wireguard::taken(&tunnel.interface, device.alias.as_deref()));
            }
            suits(config, network)?;
            let mtu = config.mtu.unwrap_or(wireguard::DEFAULT_MTU);
            let networks = config
                .peers
                .iter()
                .flat_map(|peer| peer.allowed_ips.clone());
            (Some(Maker::choose()?), mtu, networks.collect(), Vec::new())
        }
        None => {
            let (device, facts) = existing(&tunnel.interface, device)?;
            let mtu = device.mtu.and_then(|mtu| u16::try_from(mtu).ok());
            let mtu = mtu.unwrap_or(wireguard::DEFAULT_MTU);
            let theirs = anothers::addresses(&mut links, &device, tunnel.fail_closed)?;
            (None, mtu, facts.networks(), theirs)
        }
    };
    Routing::open()?.require_unused(tunnel.table)?;
    let subnet = network.subnet.net();
    let mut to = match tunnel.route_all {
        true => vec![Ipv4Net::default()],
        false => networks,
    };
    // Not even a peer's networks may cut guests off from their own.
    to.retain(|net| !subnet.contains(net));
    to.sort();
    to.dedup();
    Ok(Some(TunnelState {
        maker,
        route_all: tunnel.route_all,
        mtu,
        guests: GuestTable {
            table: tunnel.table,
            bridge: network.bridge.clone(),
            subnet,
            fail_closed: tunnel.fail_closed,
            addresses: (tunnel.config.iter())
                .flat_map(|config| config.addresses.iter().map(Ipv4Net::addr))
                .collect(),
        },
        routes: TunnelRoutes {
            table: tunnel.table,
            interface: tunnel.interface.clone(),
            to,
        },
        theirs,
    }))
}

/// The steps that make it. The guests' way out is closed by the first.
pub(super) fn steps(
    network: &Network,
    instance: &Instance,
    state: &TunnelState,
) -> Result<Vec<NetworkStep>> {
    let mut steps = vec![NetworkStep::CloseTable {
        guests: state.guests.clone(),
    }];
    steps.extend(anothers::steps(state));
    steps.extend(make_step(network, instance, state)?);
    steps.push(NetworkStep::RouteTunnel {
        routes: state.routes.clone(),
    });
    Ok(steps)
}

fn make_step(
    network: &Network,
    instance: &Instance,
    state: &TunnelState,
) -> Result<Option<NetworkStep>> {
    let config = network.tunnel.as_ref().and_then(|it| it.config.as_ref());
    let (Some(maker), Some(config)) = (&state.maker, config) else {
        return Ok(None);
    };
    Ok(Some(NetworkStep::MakeTunnel {
        dir: network.dir.clone(),
        interface: state.routes.interface.clone(),
        nameless: format!("sv{}-wg", instance.id).parse()?,
        mark: instance.mark(),
        mtu: state.mtu,
        maker: maker.clone(),
        endpoints: Settings::resolve(config)?.endpoints,
    }))
}

/// Does a [`NetworkStep::MakeTunnel`], with the keys that only the options have.
pub(super) fn make(network: &Network, step: &NetworkStep) -> Result<()> {
    let NetworkStep::MakeTunnel { endpoints, .. } = step else {
        return Ok(());
    };
    let config = network.tunnel.as_ref().and_then(|it| it.config.clone());
    let settings = Settings {
        config: config.ok_or_else(|| {
            Error::new(ErrorKind::WrongState, "the options have no tunnel to make")
        })?,
        endpoints: endpoints.clone(),
    };
    new_tunnel(step).map_or(Ok(()), |new| wireguard::make(&new, &settings))
}

/// Undoes one.
pub(super) fn remove(step: &NetworkStep) -> Result<()> {
    new_tunnel(step).map_or(Ok(()), |new| wireguard::remove(&new))
}

fn new_tunnel(step: &NetworkStep) -> Option<NewTunnel<'_>> {
    match step {
        NetworkStep::MakeTunnel {
            dir,
            interface,
            nameless,
            mark,
            mtu,
            maker,
            ..
        } => Some(NewTunnel {
            interface,
            nameless,
            mark,
            mtu: *mtu,
            maker,
            dir,
        }),
        _ => None,
    }
}

/// Closes again what others opened. The firewall is the caller's.
pub(super) fn mend_closed(state: &TunnelState) -> Result<()> {
    let mut routing = Routing::open()?;
    routing.close(&state.guests)?;
    for address in &state.theirs {
        routing.lead_from(*address, state.guests.table)?;
    }
    routing.tidy(&state.guests, &state.routes)
}

/// Makes the tunnel again where it is gone or was changed, and leads guests' traffic into it.
pub(super) fn mend(network: &Network, instance: &Instance, state: &TunnelState) -> Result<()> {
    if !device_drift(network, instance, state)?.is_empty() {
        let interface = &state.routes.interface;
        match make_step(network, instance, state)? {
            Some(step) => make(network, &step)?,
            None => drop(existing(
                interface,
                Links::open()?.find(interface.as_str())?,
            )?),
        }
    }
    Routing::open()?.lead(&state.routes)
}

/// How it differs from what it should be.
pub(super) fn drift(
    network: &Network,
    instance: &Instance,
    state: &TunnelState,
) -> Result<Vec<String>> {
    let mut drift = device_drift(network, instance, state)?;
    let mut routing = Routing::open()?;
    drift.extend(routing.drift(&state.guests, &state.routes)?);
    drift.extend(anothers::drift(&mut routing, state)?);
    Ok(drift)
}

fn device_drift(
    network: &Network,
    instance: &Instance,
    state: &TunnelState,
) -> Result<Vec<String>> {
    let interface = &state.routes.interface;
    let config = network.tunnel.as_ref().and_then(|it| it.config.as_ref());
    let mut links = Links::open()?;
    let Some(device) = links.find(interface.as_str())? else {
        return Ok(vec![format!("the tunnel {interface} is gone")]);
    };
    if state.maker.is_some() && !device.is_ours(&instance.mark(), None) {
        return Ok(vec![format!("the tunnel {interface} is another's")]);
    }
    let mut drift = Vec::new();
    if !device.up {
        drift.push(format!("the tunnel {interface} is down"));
    }
    let Some(facts) = wireguard::read(interface)? else {
        drift.push(format!("nobody works the tunnel {interface}"));
        return Ok(drift);
    };
    if let Some(config) = config {
        if !facts.is_as(config) {
            drift.push(format!(
                "keys or peers of the tunnel {interface} were changed"
            ));
        }
        let addresses = links.addresses(device.index)?;
        if !(config.addresses.iter()).all(|one| addresses.contains(&one.addr())) {
            drift.push(format!("the tunnel {interface} has lost an address"));
        }
    }
    Ok(drift)
}

/// What can't work, whatever this host is like.
fn suits(config: &Config, network: &Network) -> Result<()> {
    if config.addresses.is_empty() {
        return Err(Error::new(
            ErrorKind::Invalid,
            "the option `wireguard.config` has no Address, which guests' traffic needs as its \
             source in the tunnel",
        )
        .hint("write the one that the peer takes packets from: Address = 10.9.0.2/32"));
    }
    let subnet = network.subnet.net();
    let inside = config
        .addresses
        .iter()
        .find(|one| subnet.contains(&one.addr()));
    match inside {
        Some(address) => Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "the tunnel's address {} is one of the guests' subnet {subnet}",
                address.addr()
            ),
        )
        .hint("choose another subnet: the option `subnet`")),
        None => Ok(()),
    }
}
