//! What `smartvm doctor` says of the network.

use super::Network;
use super::wireguard::Maker;
use crate::host::Status;
use crate::host::{Finding, doctor_finding as finding, doctor_judge as judge};

impl Network {
    /// How the network is: free addresses, what is not as it should be, and other programs
    /// that drop what guests send.
    pub fn findings(&self) -> Vec<Finding> {
        let status = match self.status() {
            Ok(status) => status,
            Err(e) => {
                let advice = e.way_out().unwrap_or("see the message").to_owned();
                return vec![judge("network", false, e.to_string(), &advice)];
            }
        };
        let leased = status.leases.len();
        let up = if status.up { "up" } else { "down" };
        let told = format!(
            "{up}; bridge {}, {} with {} addresses free, {leased} leased",
            status.bridge, status.subnet, status.free
        );
        let advice = "end a VM, or use a larger subnet";
        let mut findings = vec![judge("network", status.free > 0, told, advice)];
        findings.extend(self.tunnel_finding(&status));
        let drift = status.drift.iter();
        findings.extend(drift.map(|drift| judge("network", false, drift, "smartvm network up")));
        let foreign = status.foreign.iter();
        findings.extend(foreign.map(|chain| {
            let told = format!("{} ({}) drops what guests send", chain.owner, chain.chain);
            finding("network", Status::Warn, told, &chain.admit)
        }));
        findings
    }

    /// Who makes the tunnel that the options ask for.
    fn tunnel_finding(&self, status: &super::Status) -> Option<Finding> {
        let asked = self.tunnel.as_ref()?;
        let interface = &asked.interface;
        let up = status.tunnel.as_ref().map(|tunnel| &tunnel.implementation);
        let by = match (up, &asked.config) {
            (Some(Some(implementation)), _) => Ok(implementation.clone()),
            (_, None) => Ok("its owner".to_owned()),
            (_, Some(_)) => Maker::choose().map(|maker| maker.name()),
        };
        Some(match by {
            Ok(by) => judge(
                "tunnel",
                true,
                format!("WireGuard, {interface}, made by {by}"),
                "",
            ),
            Err(e) => {
                let advice = e.way_out().unwrap_or("see the message").to_owned();
                judge("tunnel", false, e.to_string(), &advice)
            }
        })
    }
}
