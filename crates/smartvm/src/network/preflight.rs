//! What is looked at before anything is changed, and the steps that follow from it.

use super::link::Links;
use super::state::Instance;
use super::tunnel::{self, TunnelState};
use super::{Network, NetworkStep, forwarding};
use crate::error::{Error, ErrorKind, Result};
use crate::name::IfName;

/// How the network is to be made.
pub(super) struct Plan {
    pub(super) steps: Vec<NetworkStep>,
    /// The interface that its traffic leaves by.
    pub(super) nat_interface: String,
    pub(super) tunnel: Option<TunnelState>,
}

/// The steps that make the network.
pub(super) fn plan(network: &Network, instance: &Instance) -> Result<Plan> {
    let (bridge, subnet) = (&network.bridge, network.subnet);
    let mut links = Links::open()?;
    if let Some(device) = links.find(bridge.as_str())? {
        return Err(taken(bridge, device.alias.as_deref()));
    }
    rights()?;
    nft_is_fit()?;
    let devices = links.all()?;
    for route in links.routes()? {
        let net = subnet.net();
        // Halves of everything are a tunnel's way of saying "default".
        let overlaps = route.to.contains(&net) || net.contains(&route.to);
        if route.to.prefix_len() > 1 && overlaps {
            let by = devices.iter().find(|one| Some(one.index) == route.out);
            let by = by.map_or("nothing", |device| device.name.as_str());
            return Err(Error::new(
                ErrorKind::WrongState,
                format!(
                    "the subnet {subnet} overlaps the route to {} by {by}",
                    route.to
                ),
            )
            .hint("choose another subnet: the option `subnet`"));
        }
    }
    let tunnel = tunnel::plan(network)?;
    let uplink = uplink(network, &mut links, tunnel.as_ref())?;
    let inside = tunnel.as_ref().map(|tunnel| &tunnel.routes.interface);
    let Some(leaves_by) = uplink.clone().or(inside.map(ToString::to_string)) else {
        return Err(Error::new(
            ErrorKind::Host,
            "this host has no default route, so guests would reach nothing beyond it",
        )
        .hint("connect it, or add one: ip route add default via ADDRESS"));
    };
    let outside = uplink.as_deref().map(str::parse).transpose()?;
    let outside: Vec<IfName> = outside.into_iter().collect();
    let mut steps = vec![NetworkStep::ApplyFirewall {
        rules: network.rules(instance, tunnel.as_ref()),
    }];
    if let Some(tunnel) = &tunnel {
        steps.extend(tunnel::steps(network, instance, tunnel)?);
    }
    steps.extend([
        bridge_step(network, instance),
        forward_until_gone(bridge, bridge),
    ]);
    if let Some(tunnel) = &tunnel {
        let interface = &tunnel.routes.interface;
        match tunnel.maker {
            Some(_) => steps.push(forward_until_gone(interface, bridge)),
            None => steps.extend(forward_step(interface, bridge, &outside)?),
        }
    }
    for interface in &outside {
        let also = tunnel.iter().map(|tunnel| tunnel.routes.interface.clone());
        steps.extend(forward_step(interface, bridge, &also.collect::<Vec<_>>())?);
    }
    steps.push(keeper_step(network)?);
    Ok(Plan {
        steps,
        nat_interface: leaves_by,
        tunnel,
    })
}

/// The step that starts the network's keeper.
pub(super) fn keeper_step(network: &Network) -> Result<NetworkStep> {
    Ok(NetworkStep::StartKeeper {
        dir: network.dir.clone(),
        executable: crate::keeper::find(network.keeper.as_deref())?,
    })
}

/// The interface by which guests' traffic leaves beside the tunnel, if it may and can.
pub(super) fn uplink(
    network: &Network,
    links: &mut Links,
    tunnel: Option<&TunnelState>,
) -> Result<Option<String>> {
    if tunnel.is_some_and(|tunnel| tunnel.guests.fail_closed) {
        return Ok(None);
    }
    let route = links.default_route(&[network.bridge.as_str()])?;
    Ok(route.map(|route| route.interface))
}

pub(super) fn bridge_step(network: &Network, instance: &Instance) -> NetworkStep {
    NetworkStep::MakeBridge {
        bridge: network.bridge.clone(),
        subnet: network.subnet,
        mac: instance.bridge_mac(),
        mark: instance.mark(),
    }
}

/// The step that has an interface of ours forward: the setting goes with it, and nothing needs
/// to be put back.
fn forward_until_gone(interface: &IfName, bridge: &IfName) -> NetworkStep {
    NetworkStep::Forward {
        interface: interface.clone(),
        was: "1".into(),
        bridge: bridge.clone(),
        also: Vec::new(),
    }
}

/// The step that has an interface forward, unless it does.
pub(super) fn forward_step(
    interface: &IfName,
    bridge: &IfName,
    also: &[IfName],
) -> Result<Option<NetworkStep>> {
    let was = forwarding::read(&forwarding::forwarding_of(interface))?;
    Ok(was
        .filter(|was| was != "1")
        .map(|was| NetworkStep::Forward {
            interface: interface.clone(),
            was,
            bridge: bridge.clone(),
            also: also.to_vec(),
        }))
}

/// The refusal of a device that has our bridge's name.
pub(super) fn taken(bridge: &IfName, alias: Option<&str>) -> Error {
    let whose = match alias {
        Some(alias) => format!("it belongs to {alias:?}"),
        None => "smartvm didn't make it".into(),
    };
    Error::new(
        ErrorKind::WrongState,
        format!("there is a network interface {bridge} already, and {whose}"),
    )
    .hint(format!(
        "use another name: the option `bridgeName`; or, if nobody needs it: ip link delete {bridge}"
    ))
}

/// Refuses who may not change the network, before anything is begun.
fn rights() -> Result<()> {
    use rustix::thread::{CapabilitySet, capabilities};
    let failed = |e| Error::new(ErrorKind::Host, "reading this process's rights").because(e);
    let rights = capabilities(None).map_err(|e| failed(std::io::Error::from(e)))?;
    match rights.effective.contains(CapabilitySet::NET_ADMIN) {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Host,
            "this process may not change the network: it has no CAP_NET_ADMIN",
        )
        .hint("the network needs root's rights")),
    }
}

/// The oldest nft whose JSON says what we need.
const OLDEST_NFT: (u32, u32) = (0, 9);

fn nft_is_fit() -> Result<()> {
    let asked = std::process::Command::new("nft").arg("--version").output();
    let asked = asked.map_err(|e| {
        Error::new(ErrorKind::Host, "the network needs nft")
            .because(e)
            .hint("install nftables")
    })?;
    let text = String::from_utf8_lossy(&asked.stdout).into_owned();
    match version(&text) {
        Some(found) if found < OLDEST_NFT => Err(Error::new(
            ErrorKind::Host,
            format!("nft is too old: {}", text.trim()),
        )
        .hint("install nftables 0.9 or newer")),
        _ => Ok(()),
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let numbers = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix('v'))?;
    let mut numbers = numbers.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_nft_is_read() {
        assert_eq!(version("nftables v1.0.6 (Lester Gooch #5)\n"), Some((1, 0)));
        assert!(version("nftables v0.8.3 (x)").unwrap() < OLDEST_NFT);
        assert_eq!(version("nonsense"), None);
    }
}
