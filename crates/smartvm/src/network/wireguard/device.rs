//! A tunnel's device: made, set up, read and removed, by whichever implementation there is.

use std::path::Path;

use super::facts::DeviceFacts;
use super::kernel::Kernel;
use super::{Settings, uapi, userspace};
use crate::error::{Error, ErrorKind, Result};
use crate::name::IfName;
use crate::network::forwarding;
use crate::network::link::Links;
use crate::wiring::Maker;

/// A device to be made.
pub(crate) struct NewTunnel<'a> {
    pub(crate) interface: &'a IfName,
    /// What it is called until it is marked: a name of nobody else's.
    pub(crate) nameless: &'a IfName,
    pub(crate) mark: &'a str,
    /// In bytes.
    pub(crate) mtu: u16,
    pub(crate) maker: &'a Maker,
    /// Where the userspace implementation works.
    pub(crate) dir: &'a Path,
}

impl Maker {
    /// The kernel's, where it has one; else the first implementation that is found.
    pub(crate) fn choose() -> Result<Self> {
        match Kernel::open() {
            Ok(Some(_)) => Ok(Self::Kernel),
            Ok(None) => userspace::find().map(Self::Userspace),
            Err(e) => Err(failed("asking for", "the kernel's WireGuard", e)),
        }
    }
}

/// Makes the device, or makes the one that is there what it should be.
pub(crate) fn make(new: &NewTunnel<'_>, settings: &Settings) -> Result<()> {
    let mut links = Links::open()?;
    let there = links.find(new.interface.as_str())?;
    if let Some(device) = &there
        && !device.is_ours(new.mark, None)
    {
        return Err(taken(new.interface, device.alias.as_deref()));
    }
    match new.maker {
        Maker::Kernel if there.is_none() => {
            remove_nameless(&mut links, new.nameless)?;
            links.make_wireguard(new.nameless)?;
            configure(new.nameless, new.maker, settings)?;
            links.mark_tunnel(new.nameless, new.mark, new.mtu)?;
            links.rename(new.nameless, new.interface)?;
        }
        Maker::Kernel => {}
        Maker::Userspace(program) => {
            if there.is_none() || uapi::read(new.interface).ok().flatten().is_none() {
                userspace::end(program, new.dir, new.interface)?;
                userspace::start(program, new.dir, new.interface)?;
            }
            links.mark_tunnel(new.interface, new.mark, new.mtu)?;
        }
    }
    // What is as it should be is left alone: setting it up ends its conversations.
    if !read(new.interface)?.is_some_and(|facts| facts.is_as(&settings.config)) {
        configure(new.interface, new.maker, settings)?;
    }
    forwarding::no_ipv6(new.interface)?;
    for address in &settings.config.addresses {
        links.add_address(new.interface, *address)?;
    }
    links.set_up(new.interface)
}

/// Removes the device, if it is ours; no matter if it isn't there, or not wholly.
pub(crate) fn remove(tunnel: &NewTunnel<'_>) -> Result<()> {
    let mut links = Links::open()?;
    if let Maker::Userspace(program) = tunnel.maker {
        userspace::end(program, tunnel.dir, tunnel.interface)?;
    }
    remove_nameless(&mut links, tunnel.nameless)?;
    links.remove(tunnel.interface, tunnel.mark, None)
}

/// What a device of WireGuard's is and has done; `None`: there is no such one.
pub(crate) fn read(interface: &IfName) -> Result<Option<DeviceFacts>> {
    let failed = |e| failed("asking the tunnel", interface.as_str(), e);
    if let Some(mut kernel) = Kernel::open().map_err(failed)?
        && let Some(facts) = kernel.read(interface).map_err(failed)?
    {
        return Ok(Some(facts));
    }
    uapi::read(interface).map_err(failed)
}

/// The refusal of a device that has our tunnel's name.
pub(crate) fn taken(interface: &IfName, alias: Option<&str>) -> Error {
    let whose = match alias {
        Some(alias) => format!("it belongs to {alias:?}"),
        None => "smartvm didn't make it".into(),
    };
    Error::new(
        ErrorKind::WrongState,
        format!("there is a network interface {interface} already, and {whose}"),
    )
    .hint(
        "use another name: the option `wireguard.interfaceName`; or use the tunnel that is there: \
         `wireguard.existingInterface`",
    )
}

fn configure(interface: &IfName, maker: &Maker, settings: &Settings) -> Result<()> {
    let set = match maker {
        Maker::Kernel => Kernel::open().and_then(|kernel| match kernel {
            Some(mut kernel) => kernel.configure(interface, settings),
            None => Err(std::io::ErrorKind::Unsupported.into()),
        }),
        Maker::Userspace(_) => uapi::configure(interface, settings),
    };
    set.map_err(|e| {
        let in_use = e.kind() == std::io::ErrorKind::AddrInUse;
        let error = failed("setting up the tunnel", interface.as_str(), e);
        match in_use {
            true => error.hint("its ListenPort is taken: choose another, or leave it out"),
            false => error,
        }
    })
}

fn remove_nameless(links: &mut Links, name: &IfName) -> Result<()> {
    match links.find(name.as_str())? {
        Some(device) if device.kind.as_deref() == Some("wireguard") => links.delete(&device),
        _ => Ok(()),
    }
}

fn failed(what: &str, name: &str, cause: std::io::Error) -> Error {
    let error = Error::io(what, name, cause);
    match error.kind() {
        ErrorKind::Host => error.hint("tunnels need root's rights (CAP_NET_ADMIN)"),
        _ => error,
    }
}
