//! A tunnel of another's: what it has to be, and its addresses, which its owner may change.

use std::net::Ipv4Addr;

use super::TunnelState;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{Entry, Ledger};
use crate::name::IfName;
use crate::network::link::{Device, Links};
use crate::network::route::Routing;
use crate::network::wireguard::{self, DeviceFacts};
use crate::network::{LEDGER, Network, NetworkStep};
use crate::step::Step;

/// What this host sends from its address is led into it, too.
pub(super) fn steps(state: &TunnelState) -> impl Iterator<Item = NetworkStep> + use<'_> {
    let step = |address: &Ipv4Addr| lead_from(*address, state);
    state.theirs.iter().map(step)
}

fn lead_from(address: Ipv4Addr, state: &TunnelState) -> NetworkStep {
    NetworkStep::LeadFrom {
        address,
        table: state.guests.table,
    }
}

/// The addresses that matter: none where nothing is closed.
pub(super) fn addresses(
    links: &mut Links,
    device: &Device,
    fail_closed: bool,
) -> Result<Vec<Ipv4Addr>> {
    if !fail_closed {
        return Ok(Vec::new());
    }
    let mut addresses = links.addresses(device.index)?;
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// The addresses that it has now, where its owner has changed them.
fn changed(state: &TunnelState) -> Result<Option<Vec<Ipv4Addr>>> {
    if state.maker.is_some() {
        return Ok(None);
    }
    let mut links = Links::open()?;
    // Without the interface its addresses are gone, and may come back with it.
    let Some(device) = links.find(state.routes.interface.as_str())? else {
        return Ok(None);
    };
    let now = addresses(&mut links, &device, state.guests.fail_closed)?;
    // Who changes its only address takes it away first: until it has another, answers come to
    // the one that it had.
    Ok((!now.is_empty() && now != state.theirs).then_some(now))
}

/// Follows its addresses where its owner has changed them; whether that was so.
pub(in crate::network) fn follow(network: &Network, state: &mut TunnelState) -> Result<bool> {
    let Some(now) = changed(state)? else {
        return Ok(false);
    };
    let Some(mut ledger) = Ledger::open(&network.dir.join(LEDGER))? else {
        return Ok(false);
    };
    for address in now.iter().filter(|one| !state.theirs.contains(one)) {
        let step = lead_from(*address, state);
        ledger.run(&Step::Network(step.clone()), |_| step.apply(network))?;
    }
    let is_gone = |_, entry: &Entry| {
        matches!(&entry.step, Step::Network(NetworkStep::LeadFrom { address, .. })
            if !now.contains(address))
    };
    let mut failures = ledger
        .undo_some(is_gone, |entry| entry.step.undo(entry.outcome.as_ref()))
        .into_iter();
    if let Some(first) = failures.next() {
        return Err(first.with_cleanup(failures));
    }
    state.theirs = now;
    Ok(true)
}

/// How its addresses, and what is sent from them, differ from what they should be.
pub(super) fn drift(routing: &mut Routing, state: &TunnelState) -> Result<Vec<String>> {
    let interface = &state.routes.interface;
    let mut drift = Vec::new();
    if changed(state)?.is_some() {
        drift.push(format!("the tunnel {interface} has other addresses now"));
    }
    for address in routing.not_led_from(&state.theirs, state.guests.table)? {
        drift.push(format!(
            "what this host sends from {address} isn't led into {interface}"
        ));
    }
    Ok(drift)
}

/// Another's interface: it has to be there, and to be WireGuard's.
pub(super) fn existing(
    interface: &IfName,
    device: Option<Device>,
) -> Result<(Device, DeviceFacts)> {
    let Some(device) = device else {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no network interface {interface}, and it isn't smartvm's to make"),
        )
        .hint("bring it up, or give the tunnel's text: the option `wireguard.config`"));
    };
    let facts = wireguard::read(interface)?.ok_or_else(|| {
        Error::new(
            ErrorKind::WrongState,
            format!("the network interface {interface} is none of WireGuard's"),
        )
        .hint("name a WireGuard interface: the option `wireguard.existingInterface`")
    })?;
    Ok((device, facts))
}
