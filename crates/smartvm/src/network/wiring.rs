//! What a plan needs to know of the network, as data; and what follows for the guest. Pure.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::{Lease, NetworkStep, Subnet};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{IfName, VmId};
use crate::spec::MicroVmSpec;

/// What Firecracker boots with where the spec says nothing: `ip=` comes on top of it.
const DEFAULT_BOOT_ARGS: &str = "reboot=k panic=1 pci=off nomodule 8250.nr_uarts=0 i8042.noaux \
                                 i8042.nomux i8042.dumbkbd";

/// The network as one VM's plan sees it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Wiring {
    /// The network's directory.
    pub dir: PathBuf,
    /// The bridge.
    pub bridge: IfName,
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
    /// The steps that connect the guest.
    pub steps: Vec<NetworkStep>,
}

impl Wired {
    /// A spec that needs nothing of the network.
    pub fn untouched(spec: &MicroVmSpec) -> Self {
        Self {
            spec: spec.clone(),
            steps: Vec::new(),
        }
    }
}

impl Wiring {
    /// Connects the interfaces that name no TAP device.
    ///
    /// # Errors
    /// An interface for which nothing is leased.
    pub fn connect(&self, vm: &VmId, spec: &MicroVmSpec) -> Result<Wired> {
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
            let mac = own_mac.unwrap_or(lease.mac);
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
            });
            taps.push(NetworkStep::MakeTap {
                tap: lease.tap.clone(),
                owner: None,
                bridge: self.bridge.clone(),
                mac,
                ip: lease.ip,
                mark: self.mark.clone(),
            });
        }
        let mut steps = leases;
        if let Some((ip, device)) = first {
            self.tell_guest(&mut spec, ip, &device);
            steps.push(NetworkStep::Join {
                dir: self.dir.clone(),
                vm: vm.clone(),
            });
        }
        steps.extend(taps);
        Ok(Wired { spec, steps })
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
