//! What is looked at before anything is changed, and the steps that follow from it.

use super::link::Links;
use super::state::Instance;
use super::{Network, NetworkStep, forwarding};
use crate::error::{Error, ErrorKind, Result};
use crate::name::IfName;

/// The steps that make the network, and the interface that its traffic leaves by.
pub(super) fn steps(network: &Network, instance: &Instance) -> Result<(Vec<NetworkStep>, String)> {
    not_yet(network)?;
    let (bridge, subnet) = (&network.bridge, network.subnet);
    let mut links = Links::open()?;
    if let Some(device) = links.find(bridge.as_str())? {
        return Err(taken(bridge, device.alias.as_deref()));
    }
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
    let Some(uplink) = links.default_route(&[bridge.as_str()])? else {
        return Err(Error::new(
            ErrorKind::Host,
            "this host has no default route, so guests would reach nothing beyond it",
        )
        .hint("connect it, or add one: ip route add default via ADDRESS"));
    };
    let mut steps = vec![
        NetworkStep::ApplyFirewall {
            rules: network.rules(),
        },
        bridge_step(network, instance),
        // It goes with the bridge: nothing needs to be put back.
        NetworkStep::Forward {
            interface: bridge.clone(),
            was: "1".into(),
            bridge: bridge.clone(),
        },
    ];
    steps.extend(forward_step(&uplink.interface.parse()?, bridge)?);
    Ok((steps, uplink.interface))
}

pub(super) fn bridge_step(network: &Network, instance: &Instance) -> NetworkStep {
    NetworkStep::MakeBridge {
        bridge: network.bridge.clone(),
        subnet: network.subnet,
        mac: instance.bridge_mac(),
        mark: instance.mark(),
    }
}

/// The step that has an interface forward, unless it does.
pub(super) fn forward_step(interface: &IfName, bridge: &IfName) -> Result<Option<NetworkStep>> {
    let was = forwarding::read(&forwarding::forwarding_of(interface))?;
    Ok(was
        .filter(|was| was != "1")
        .map(|was| NetworkStep::Forward {
            interface: interface.clone(),
            was,
            bridge: bridge.clone(),
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

/// What is asked for and would silently not happen.
fn not_yet(network: &Network) -> Result<()> {
    let refused = |what: &str| {
        Err(Error::new(
            ErrorKind::Host,
            format!("the option `{what}` is not carried out yet, so the network stays down"),
        )
        .hint("leave it out, knowing that guests then reach everything that this host reaches"))
    };
    if network.options.wireguard.is_some() {
        return refused("wireguard");
    }
    Ok(())
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
