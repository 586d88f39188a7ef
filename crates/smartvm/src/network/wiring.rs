//! What a plan needs to know of the network, as data; and what follows for the guest. Pure.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Lease, NetworkStep, Subnet};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{IfName, MacAddress, VmId};
use crate::spec::MicroVmSpec;

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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::network::Network;
    use crate::network::firewall::Ruleset;
    use crate::network::state::Instance;
    use crate::spec::{FirewallConfig, HostService, SmartVmOptions};

    fn rules() -> FirewallConfig {
        serde_json::from_value(json!({ "egress": { "defaultAction": "deny", "rules": [{
            "action": "allow", "to": "10.0.0.0/8", "protocol": "tcp", "ports": [80, 443],
            "comment": "office",
        }] } }))
        .unwrap()
    }

    fn firewall(options: &SmartVmOptions) -> Ruleset {
        let id = "0a1b2c".into();
        network(options).rules(&Instance { id }, None)
    }

    fn network(options: &SmartVmOptions) -> Network {
        Network::new(Path::new("/run/vms"), options).unwrap()
    }

    #[test]
    fn the_guests_own_rules_reach_the_steps() {
        let id: VmId = "web".parse().unwrap();
        let spec: MicroVmSpec = serde_json::from_value(json!({
            "bootSource": { "kernelImagePath": "/k" },
            "machineConfig": { "vcpuCount": 1, "memSizeMib": 128 },
            "networkInterfaces": [{ "ifaceId": "net0", "guestMac": "06:aa:00:00:00:01" }],
            "firewall": rules(),
        }))
        .unwrap();
        let network = network(&SmartVmOptions::default());
        let wiring = network.preview(&id, &["net0".to_owned()]).unwrap();
        let wired = wiring.connect(&id, &spec, &[]).unwrap();
        let NetworkStep::LeaseAddress { firewall, mac, .. } = &wired.leases[0] else {
            panic!("{:?}", wired.leases);
        };
        assert_eq!(firewall, &rules().egress);
        assert_eq!(mac.unwrap().to_string(), "06:aa:00:00:00:01");
        // The step that is taken when the VM is made is the plan's.
        let taken = network.lease_step(
            &id,
            &spec.network_interfaces[0],
            spec.firewall.as_ref(),
            None,
        );
        assert_eq!(taken.unwrap(), wired.leases[0]);
    }

    #[test]
    fn the_options_rules_reach_the_firewall() {
        let mut options = SmartVmOptions::default();
        assert_eq!(firewall(&options).egress, None);
        options.firewall = Some(rules());
        assert_eq!(firewall(&options).egress, rules().egress);
    }

    #[test]
    fn options_open_what_is_closed_by_default() {
        let mut options = SmartVmOptions::default();
        let closed = firewall(&options);
        assert!(!closed.guests_may_talk && closed.host_services.is_empty());
        options.guests_may_talk = Some(true);
        options.host_services = vec!["dns".into(), "tcp/8080".into()];
        let open = firewall(&options);
        let services = ["dns", "tcp/8080"].map(|text| HostService::parse(text).unwrap());
        assert_eq!(open.host_services, services.concat());
        assert!(open.guests_may_talk);
        let preview = network(&options).preview(&"a".parse().unwrap(), &[]);
        assert!(!preview.unwrap().isolated);
    }
}
