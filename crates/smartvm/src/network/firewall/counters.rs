//! What each rule has decided about, as the kernel counts it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::nft::list;
use super::render::{SUBNET_POLICY, table};
use crate::error::Result;
use crate::name::IfName;

/// Packets and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Tally {
    /// Packets, of both directions.
    pub packets: u64,
    /// Bytes, of both directions.
    pub bytes: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
    }
}

/// What a bridge's firewall has counted since its tables or its policy were set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// By the rule's number in the subnet's policy; the default action's is that of the rules.
    pub egress: BTreeMap<usize, Tally>,
    /// The same for guests with a policy of their own, by their address.
    pub vms: BTreeMap<String, BTreeMap<usize, Tally>>,
    /// What isolation and the kill switch dropped, by reason.
    pub dropped: BTreeMap<String, Tally>,
}

/// Reads the counters; `None`: the tables aren't there.
pub fn counters(bridge: &IfName) -> Result<Option<Counters>> {
    let name = table(bridge);
    let mut found = Counters::default();
    for family in ["inet", "bridge"] {
        let Some(objects) = list(&["list", "table", family, &name])? else {
            return Ok(None);
        };
        for object in &objects {
            found.take(object);
        }
    }
    Ok(Some(found))
}

impl Counters {
    fn take(&mut self, object: &Value) {
        if let Some(map) = object.get("map") {
            self.take_map(map);
        } else if let Some(rule) = object.get("rule") {
            let tally = rule["expr"]
                .as_array()
                .into_iter()
                .flatten()
                .find_map(tally);
            if let (Some(reason), Some(tally)) = (rule["comment"].as_str(), tally) {
                *self.dropped.entry(reason.to_owned()).or_default() += tally;
            }
        }
    }

    fn take_map(&mut self, map: &Value) {
        let name = map["name"].as_str().unwrap_or_default();
        let policy = if name.starts_with(SUBNET_POLICY) {
            &mut self.egress
        } else if let Some(vm) = name.strip_prefix("vm_") {
            let address: Vec<&str> = vm.split('_').take(4).collect();
            if address.len() < 4 {
                return;
            }
            self.vms.entry(address.join(".")).or_default()
        } else {
            return;
        };
        for pair in map["elem"].as_array().into_iter().flatten() {
            let element = &pair[0]["elem"];
            let number = element["comment"].as_str().and_then(|it| it.parse().ok());
            if let (Some(number), Some(tally)) = (number, tally(element)) {
                *policy.entry(number).or_default() += tally;
            }
        }
    }
}

fn tally(holder: &Value) -> Option<Tally> {
    let counter = holder.get("counter")?;
    Some(Tally {
        packets: counter["packets"].as_u64()?,
        bytes: counter["bytes"].as_u64()?,
    })
}
