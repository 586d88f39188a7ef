//! Leases: which address and TAP device belong to which VM. One file for each in the
//! network's directory, taken under the network's lock by any process.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::remembered::Remembered;
use super::{Lease, Subnet, mac_of};
use crate::durable::{self, Staged};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{IfName, MacAddress, VmId};
use crate::spec::FirewallEgress;

const FORMAT: u32 = 1;

/// What a lease is taken for.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) vm: &'a VmId,
    pub(super) iface_id: &'a str,
    pub(super) mac: Option<MacAddress>,
    pub(super) firewall: Option<FirewallEgress>,
    /// The address that it had in another life.
    pub(super) before: Option<Ipv4Addr>,
}

/// The leases on disk.
#[derive(Debug, Clone)]
pub(super) struct Leases(PathBuf);

impl Leases {
    pub(super) fn in_dir(network: &Path) -> Self {
        Self(network.join("leases"))
    }

    /// Takes the address that it had before, if that is free, else the first that is; then the
    /// MAC address is another, too. The network's lock is held.
    pub(super) fn take(
        &self,
        subnet: Subnet,
        instance: &str,
        wanted: Wanted<'_>,
    ) -> Result<(Lease, File)> {
        let taken: std::collections::HashSet<Ipv4Addr> = self.addresses()?.into_iter().collect();
        let all =
            || (0..subnet.guests()).filter_map(|number| Some((number, subnet.guest(number)?)));
        let free = |(_, ip): &(u32, Ipv4Addr)| !taken.contains(ip);
        let again = wanted.before;
        let again = again.and_then(|ip| Some((subnet.number_of(ip)?, ip)));
        let free = again.filter(free).or_else(|| all().find(free));
        let Some((number, ip)) = free else {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!(
                    "no address is free in {subnet}: all {} are leased",
                    subnet.guests()
                ),
            )
            .hint("end a VM (`smartvm network status` lists them), or use a larger subnet"));
        };
        let lease = Lease {
            vm: wanted.vm.clone(),
            iface_id: wanted.iface_id.to_owned(),
            tap: tap_name(instance, number)?,
            ip,
            mac: match (wanted.mac, wanted.before) {
                (_, Some(before)) if before != ip => mac_of(ip),
                (mac, _) => mac.unwrap_or_else(|| mac_of(ip)),
            },
            firewall: wanted.firewall,
        };
        let file = match self.write(&lease) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                durable::private_dir(&self.0)?;
                self.write(&lease)?
            }
            written => written?,
        };
        Ok((lease, file))
    }

    /// Writes down what a lease has become. Started anew, the host has no VM that it was for.
    pub(super) fn write(&self, lease: &Lease) -> Result<File> {
        Staged::state(&self.file(lease.ip), FORMAT, lease)?.publish_open()
    }

    /// The lease of this address, unless it is known already.
    pub(super) fn known(&self, known: &Remembered<Lease>, ip: Ipv4Addr) -> Result<Option<Lease>> {
        known.read(&self.file(ip), FORMAT)
    }

    /// The lease of this address.
    pub(super) fn of(&self, ip: Ipv4Addr) -> Result<Option<Lease>> {
        durable::read_state(&self.file(ip), FORMAT)
    }

    /// Gives back what this interface of the VM has, if it has something: at this address, where
    /// that is known.
    pub(super) fn give_back(
        &self,
        vm: &VmId,
        iface_id: &str,
        known: Option<Ipv4Addr>,
    ) -> Result<()> {
        let leases = match known {
            // A damaged one keeps its address.
            Some(ip) => self.of(ip).ok().flatten().into_iter().collect(),
            None => self.all()?.into_iter().flatten().collect::<Vec<_>>(),
        };
        for lease in leases {
            if lease.vm == *vm && lease.iface_id == iface_id {
                let file = self.file(lease.ip);
                std::fs::remove_file(&file)
                    .or_else(|e| match e.kind() {
                        std::io::ErrorKind::NotFound => Ok(()),
                        _ => Err(e),
                    })
                    .map_err(|e| Error::io("giving back", &file, e))?;
            }
        }
        Ok(())
    }

    /// All leases; one that can't be read doesn't hide the others.
    pub(super) fn all(&self) -> Result<Vec<Result<Lease>>> {
        let mut addresses = self.addresses()?;
        addresses.sort();
        let read = |ip| durable::read_state(&self.file(ip), FORMAT).transpose();
        Ok(addresses.into_iter().filter_map(read).collect())
    }

    fn addresses(&self) -> Result<Vec<Ipv4Addr>> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("reading", &self.0, e)),
        };
        Ok(entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect())
    }

    fn file(&self, ip: Ipv4Addr) -> PathBuf {
        self.0.join(ip.to_string())
    }
}

/// The name of a guest's TAP device: unique on the host by the instance, in the instance by
/// the guest's number, and never longer than 15 bytes.
pub(super) fn tap_name(instance: &str, number: u32) -> Result<IfName> {
    let host = number + 2;
    let [short, long] = tap_prefixes(instance);
    let name = match host {
        0..1_000_000 => format!("{short}{host}"),
        _ => format!("{long}{host:x}"),
    };
    Ok(name.parse()?)
}

/// How such names begin: those of small numbers, and of others.
pub(super) fn tap_prefixes(instance: &str) -> [String; 2] {
    [
        format!("sv{instance}-"),
        format!("sv{}x", instance.get(..4).unwrap_or(instance)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> VmId {
        text.parse().unwrap()
    }

    fn for_eth0(vm: &VmId) -> Wanted<'_> {
        Wanted {
            vm,
            iface_id: "eth0",
            mac: None,
            firewall: None,
            before: None,
        }
    }

    #[test]
    fn the_first_free_address_is_taken_given_back_and_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::in_dir(dir.path());
        let subnet: Subnet = "10.9.0.0/29".parse().unwrap();
        let take = |vm: &str| {
            let taken = leases.take(subnet, "abc123", for_eth0(&id(vm)));
            taken.map(|(lease, _)| lease)
        };
        for number in 2..7 {
            let lease = take(&format!("vm{number}")).unwrap();
            assert_eq!(lease.ip, Ipv4Addr::new(10, 9, 0, number));
            assert_eq!(lease.tap.as_str(), format!("svabc123-{number}"));
        }
        let full = take("late").unwrap_err();
        assert_eq!(full.kind(), ErrorKind::WrongState);
        assert!(full.to_string().contains("all 5 are leased"), "{full}");
        leases.give_back(&id("vm4"), "eth1", None).unwrap();
        assert!(
            take("late").is_err(),
            "another interface's lease was given back"
        );
        let own = Some(Ipv4Addr::new(10, 9, 0, 4));
        leases.give_back(&id("vm5"), "eth0", own).unwrap();
        assert!(take("late").is_err(), "another VM's lease was given back");
        leases.give_back(&id("vm4"), "eth0", own).unwrap();
        leases.give_back(&id("vm4"), "eth0", None).unwrap();
        assert_eq!(take("late").unwrap().ip, Ipv4Addr::new(10, 9, 0, 4));
        assert_eq!(leases.all().unwrap().len(), 5);
    }

    #[test]
    fn an_address_of_another_life_is_leased_again_where_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::in_dir(dir.path());
        let subnet: Subnet = "10.9.0.0/29".parse().unwrap();
        let mac: MacAddress = "06:11:22:33:44:55".parse().unwrap();
        let take = |vm: &str, before: [u8; 4]| {
            let vm = id(vm);
            let mut wanted = for_eth0(&vm);
            (wanted.before, wanted.mac) = (Some(before.into()), Some(mac));
            let (lease, _) = leases.take(subnet, "abc123", wanted).unwrap();
            (lease.ip.octets(), lease.mac == mac)
        };
        assert_eq!(take("a", [10, 9, 0, 5]), ([10, 9, 0, 5], true));
        assert_eq!(take("b", [10, 9, 0, 5]), ([10, 9, 0, 2], false), "taken");
        assert_eq!(
            take("c", [10, 9, 0, 1]),
            ([10, 9, 0, 3], false),
            "the gateway"
        );
        assert_eq!(
            take("d", [10, 8, 0, 6]),
            ([10, 9, 0, 4], false),
            "of another subnet"
        );
    }

    #[test]
    fn a_damaged_lease_keeps_its_address_and_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::in_dir(dir.path());
        let subnet: Subnet = "10.9.0.0/29".parse().unwrap();
        leases.take(subnet, "abc123", for_eth0(&id("a"))).unwrap();
        std::fs::write(dir.path().join("leases/10.9.0.2"), "{").unwrap();
        let (next, _) = leases.take(subnet, "abc123", for_eth0(&id("b"))).unwrap();
        assert_eq!(next.ip, Ipv4Addr::new(10, 9, 0, 3));
        let all = leases.all().unwrap();
        assert!(
            matches!(all.as_slice(), [Err(_), Ok(one)] if *one == next),
            "{all:?}"
        );
    }

    #[test]
    fn names_of_taps_fit_and_differ_up_to_the_largest_subnet() {
        let names = [0, 1, 999_997, 999_998, 0x7fff_fffc].map(|n| tap_name("abcdef", n).unwrap());
        assert_eq!(names[3].as_str(), "svabcdxf4240");
        let mut unique = names.to_vec();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
        assert!(names.iter().all(|name| name.as_str().len() <= 15));
    }
}
