//! The policy in force, which a later call may have put in the place of the options' own.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Counters, counters, nft, replace_policy};
use crate::durable;
use crate::error::Result;
use crate::name::IfName;
use crate::spec::{FirewallEgress, NetworkManagerOptions, SmartVmOptions};

const FORMAT: u32 = 1;

/// The firewall of one bridge as it stands in the kernel.
#[derive(Debug, Clone)]
pub struct Live {
    bridge: IfName,
    file: PathBuf,
    options: FirewallEgress,
}

/// What was put in force, and in which table: another one has forgotten it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Set {
    table: u64,
    egress: FirewallEgress,
}

impl Live {
    /// That of these options. Nothing is touched.
    pub fn new(options: &SmartVmOptions) -> Result<Self> {
        let network = NetworkManagerOptions::from(options);
        let runtime_dir = options.runtime_dir(Path::new("/dev/shm").is_dir());
        let bridge: IfName = network.bridge_name().parse()?;
        Ok(Self {
            file: runtime_dir.join(format!(
                ".firewall-{}.json",
                bridge.as_str().replace('.', "_")
            )),
            bridge,
            options: network
                .firewall
                .and_then(|it| it.egress)
                .unwrap_or_default(),
        })
    }

    /// Puts another policy in force.
    ///
    /// # Errors
    /// [`crate::ErrorKind::WrongState`]: the network isn't up.
    pub fn set(&self, egress: &FirewallEgress) -> Result<()> {
        replace_policy(&self.bridge, egress)?;
        if let (Some(dir), Some(table)) = (self.file.parent(), nft::handle(&self.bridge)?) {
            durable::private_dir(dir)?;
            let set = Set {
                table,
                egress: egress.clone(),
            };
            durable::write_state(&self.file, FORMAT, &set)?;
        }
        Ok(())
    }

    /// The policy in force, and what it has decided about; `None`: the network isn't up.
    pub fn read(&self) -> Result<Option<(FirewallEgress, Counters)>> {
        let (Some(table), Some(counters)) = (nft::handle(&self.bridge)?, counters(&self.bridge)?)
        else {
            return Ok(None);
        };
        let set = durable::read_state::<Set>(&self.file, FORMAT)?;
        let egress = set
            .filter(|set| set.table == table)
            .map_or_else(|| self.options.clone(), |set| set.egress);
        Ok(Some((egress, counters)))
    }
}
