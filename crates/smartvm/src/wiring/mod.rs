//! What a plan needs to know of the network, as data; and what follows for the guest. Pure, and
//! there with or without the cargo feature `network`: whatever is on disk of VMs with a network can
//! be read.

pub mod firewall;
mod lease;
mod maker;
mod route;
mod step;
mod subnet;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use lease::Lease;
pub use maker::Maker;
pub use route::{GuestTable, TunnelRoutes};
pub use step::NetworkStep;
pub use subnet::{Subnet, mac_of};

use crate::error::{Error, ErrorKind, Result};
use crate::name::{IfName, MacAddress, VmId};
use crate::spec::MicroVmSpec;

/// Whether this build has the network.
pub(crate) const HAS_NETWORK: bool = cfg!(feature = "network");
/// What is wrong where it doesn't.
pub(crate) const NO_NETWORK: &str = "this build of smartvm has no network";
/// The way out.
pub(crate) const WITH_NETWORK: &str =
    "build with the cargo feature `network`, or name a TAP device of your own in `hostDevName`";

/// The fields of a spec by which it asks for the network.
pub(crate) fn asked_for(spec: &MicroVmSpec) -> Vec<String> {
    let interfaces = spec.network_interfaces.iter().enumerate();
    let leased = interfaces.filter(|(_, one)| one.host_dev_name.is_none());
    let mut fields: Vec<_> = leased
        .map(|(index, _)| format!("networkInterfaces[{index}].hostDevName"))
        .collect();
    fields.extend(spec.firewall.as_ref().map(|_| "firewall".to_owned()));
    fields
}

/// What Firecracker boots with where the spec says nothing: `ip=` comes on top of it.
const DEFAULT_BOOT_ARGS: &str = "reboot=k panic=1 pci=off nomodule 8250.nr_uarts=0 i8042.noaux \
                                 i8042.nomux i8042.dumbkbd";

/// What a restored guest has to make of its address: another one, since the one it had is
/// somebody else's by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// The interface.
    pub iface_id: String,
    /// The address that the guest has.
    pub from: Ipv4Addr,
    /// The one that it gets.
    pub to: Ipv4Addr,
    /// With this netmask,
    pub netmask: Ipv4Addr,
    /// this gateway,
    pub gateway: Ipv4Addr,
    /// and this MAC address.
    pub mac: MacAddress,
}

/// The address that an interface had in another life.
pub(crate) fn address_before(had: &[Lease], iface_id: &str) -> Option<Ipv4Addr> {
    let found = had.iter().find(|one| one.iface_id == iface_id);
    found.map(|one| one.ip)
}

/// The network as one VM's plan sees it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Wiring {
    /// The network's directory.
    pub dir: PathBuf,
    /// The bridge.
    pub bridge: IfName,
    /// Whether guests reach no other guest.
    pub isolated: bool,
    /// The guests' subnet.
    pub subnet: Subnet,
    /// What devices of ours carry.
    pub mark: String,
    /// The name servers for guests.
    pub dns: Vec<Ipv4Addr>,
    /// What the VM's interfaces have.
    pub leases: Vec<Lease>,
}

/// What comes of a spec's interfaces without a TAP device.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Wired {
    /// The spec as Firecracker is told of it.
    pub spec: MicroVmSpec,
    /// The steps that lease what is leased when the VM is made.
    pub leases: Vec<NetworkStep>,
    /// The steps that connect the guest.
    pub steps: Vec<NetworkStep>,
}

impl Wired {
    /// A spec that needs nothing of the network.
    pub fn untouched(spec: &MicroVmSpec) -> Self {
        Self {
            spec: spec.clone(),
            leases: Vec::new(),
            steps: Vec::new(),
        }
    }
}

impl Wiring {
    /// Connects the interfaces that name no TAP device. `had` is what they had in another
    /// life, and want again.
    ///
    /// # Errors
    /// An interface for which nothing is leased.
    pub fn connect(&self, vm: &VmId, spec: &MicroVmSpec, had: &[Lease]) -> Result<Wired> {
        let mut spec = spec.clone();
        let (mut leases, mut taps, mut first) = (Vec::new(), Vec::new(), None);
        let firewall = spec.firewall.clone().and_then(|it| it.egress);
        let several = spec.network_interfaces.len() > 1;
        for (index, interface) in spec.network_interfaces.iter_mut().enumerate() {
            if interface.host_dev_name.is_some() {
                continue;
            }
            let lease = self
                .leases
                .iter()
                .find(|one| one.iface_id == interface.iface_id);
            let lease = lease.ok_or_else(|| {
                Error::new(
                    ErrorKind::Invalid,
                    format!(
                        "interface {} has neither TAP device nor lease",
                        interface.iface_id
                    ),
                )
            })?;
            let own_mac = match &interface.guest_mac {
                Some(mac) => Some(mac.parse()?),
                None => None,
            };
            let mac = match had.is_empty() {
                true => own_mac.unwrap_or(lease.mac),
                false => lease.mac,
            };
            interface.host_dev_name = Some(lease.tap.to_string());
            interface.guest_mac = Some(mac.to_string());
            let device = if several {
                format!("eth{index}")
            } else {
                String::new()
            };
            first.get_or_insert((lease.ip, device));
            leases.push(NetworkStep::LeaseAddress {
                dir: self.dir.clone(),
                vm: vm.clone(),
                iface_id: interface.iface_id.clone(),
                mac: own_mac,
                firewall: firewall.clone(),
                before: address_before(had, &interface.iface_id),
            });
            taps.push(NetworkStep::MakeTap {
                tap: lease.tap.clone(),
                owner: None,
                bridge: self.bridge.clone(),
                mac,
                ip: lease.ip,
                isolated: self.isolated,
                mark: self.mark.clone(),
            });
        }
        let mut steps = Vec::new();
        if let Some((ip, device)) = first {
            self.tell_guest(&mut spec, ip, &device);
            steps.push(NetworkStep::Join {
                dir: self.dir.clone(),
                vm: vm.clone(),
            });
        }
        steps.extend(taps);
        Ok(Wired {
            spec,
            leases,
            steps,
        })
    }

    /// What guests have to change that had these leases in another life.
    pub fn moves(&self, had: &[Lease]) -> Vec<Move> {
        let change = |lease: &Lease| {
            let before = had.iter().find(|one| one.iface_id == lease.iface_id)?;
            (before.ip != lease.ip).then(|| Move {
                iface_id: lease.iface_id.clone(),
                from: before.ip,
                to: lease.ip,
                netmask: self.subnet.mask(),
                gateway: self.subnet.gateway(),
                mac: lease.mac,
            })
        };
        self.leases.iter().filter_map(change).collect()
    }

    /// Adds the kernel's `ip=` word, unless the user gave one.
    fn tell_guest(&self, spec: &mut MicroVmSpec, ip: Ipv4Addr, device: &str) {
        let args = spec
            .boot_source
            .boot_args
            .get_or_insert_with(|| DEFAULT_BOOT_ARGS.into());
        if args.split_whitespace().any(|word| word.starts_with("ip=")) {
            return;
        }
        let (gateway, mask) = (self.subnet.gateway(), self.subnet.mask());
        let mut word = format!(" ip={ip}::{gateway}:{mask}::{device}:off");
        for server in &self.dns {
            word.push_str(&format!(":{server}"));
        }
        args.push_str(&word);
    }
}
