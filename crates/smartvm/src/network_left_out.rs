//! The network, left out of this build: whoever needs it is told so, before anything is done.
//!
//! What is on disk of VMs with a network is read all the same, and given back by a smartvm that
//! has it: their own keepers, or `smartvm gc`.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::name::VmId;
use crate::spec::{
    FirewallConfig, FirewallEgress, NetworkInterface, NetworkManagerOptions, SmartVmOptions,
};
use crate::step::Outcome;
use crate::wiring::{Lease, NO_NETWORK, NetworkStep, WITH_NETWORK, Wiring};

const BUILD: &str = "build with the cargo feature `network`";

/// Stands for the network of a runtime directory, which this build can't make.
#[derive(Debug, Clone)]
pub struct Network(());

impl Network {
    /// # Errors
    /// [`ErrorKind::Host`]: the options have a tunnel or a firewall, on which somebody relies.
    pub(crate) fn new(_runtime_dir: &Path, options: &SmartVmOptions) -> Result<Self> {
        let options = NetworkManagerOptions::from(options);
        let asks = [
            ("wireguard", options.wireguard.is_some()),
            ("firewall", options.firewall.is_some()),
        ];
        match asks.into_iter().find(|(_, asks)| *asks) {
            Some((option, _)) => {
                let hint = "build with the cargo feature `network`, or leave the option out";
                Err(left_out(&format!("the option `{option}` is set")).hint(hint))
            }
            None => Ok(Self(())),
        }
    }

    pub(crate) fn kept_by(self, _executable: &Path) -> Self {
        self
    }

    pub(crate) fn wiring(&self, leases: Vec<Lease>) -> Result<Wiring> {
        let ids = leases.into_iter().map(|lease| lease.iface_id);
        Err(no_tap(&ids.collect::<Vec<_>>().join(", ")))
    }

    pub(crate) fn preview(&self, _vm: &VmId, iface_ids: &[String]) -> Result<Wiring> {
        Err(no_tap(&iface_ids.join(", ")))
    }

    pub(crate) fn lease_step(
        &self,
        _vm: &VmId,
        interface: &NetworkInterface,
        _firewall: Option<&FirewallConfig>,
        _before: Option<Ipv4Addr>,
    ) -> Result<NetworkStep> {
        Err(no_tap(&interface.iface_id))
    }

    pub(crate) fn set_vm_firewall(
        &self,
        vm: &VmId,
        _egress: Option<&FirewallEgress>,
    ) -> Result<()> {
        Err(left_out(&format!("the firewall of VM {vm} can't be set")).hint(BUILD))
    }

    /// A network that is there is another build's, and so is what is left of it.
    pub(crate) fn collect(
        &self,
        _is_there: &dyn Fn(&VmId) -> bool,
        _dry: bool,
    ) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

impl NetworkStep {
    pub(crate) fn apply(&self, _network: &Network) -> Result<Outcome> {
        Err(left_out(&format!("can't {self}")).hint(BUILD))
    }

    pub(crate) fn apply_for_vm(
        &self,
        network: &Network,
        _user: Option<u32>,
        _open: &mut Vec<File>,
    ) -> Result<Outcome> {
        self.apply(network)
    }

    /// # Errors
    /// Always: it stays in the ledger for who can.
    pub(crate) fn undo(&self, _outcome: Option<&Outcome>) -> Result<()> {
        let hint = "`smartvm gc`, or a build with the cargo feature `network`, gives it back";
        Err(left_out(&format!("can't undo \"{self}\"")).hint(hint))
    }
}

fn no_tap(iface_ids: &str) -> Error {
    left_out(&format!("interface {iface_ids} names no TAP device")).hint(WITH_NETWORK)
}

fn left_out(what: &str) -> Error {
    Error::new(ErrorKind::Host, format!("{what}, and {NO_NETWORK}"))
}
