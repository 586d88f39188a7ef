//! What our tables look like in the kernel, so that changes by others are found.

use serde_json::Value;

use super::nft::list;
use super::render::table;
use crate::error::Result;
use crate::name::IfName;
use crate::network::state::digest;

/// A checksum of chains, rules and sets, without what comes and goes with guests. `None`: a table
/// is missing.
pub(in crate::network) fn fingerprint(bridge: &IfName) -> Result<Option<String>> {
    let name = table(bridge);
    let mut whole = Vec::new();
    for family in ["inet", "bridge"] {
        let Some(objects) = list(&["-s", "-t", "list", "table", family, &name])? else {
            return Ok(None);
        };
        whole.extend(objects.into_iter().filter_map(lasting));
    }
    digest(&whole).map(Some)
}

/// The TAP devices that the firewall judges.
pub(in crate::network) fn admitted(bridge: &IfName) -> Result<Vec<IfName>> {
    let listed = list(&["list", "set", "bridge", &table(bridge), "taps"])?;
    let objects = listed.unwrap_or_default();
    let elements = objects.iter().find_map(|one| one["set"]["elem"].as_array());
    let names = elements.into_iter().flatten().filter_map(Value::as_str);
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// An object without its number and its elements, unless it is a guest's or of this listing.
fn lasting(mut object: Value) -> Option<Value> {
    let (kind, inner) = object.as_object_mut()?.iter_mut().next()?;
    let inner = inner.as_object_mut()?;
    let of_guest = |key: &str| {
        let name = inner.get(key).and_then(Value::as_str);
        name.is_some_and(|name| name.starts_with("vm_") && !["vm_out", "vm_back"].contains(&name))
    };
    if kind == "metainfo" || of_guest("name") || of_guest("chain") {
        return None;
    }
    inner.remove("handle");
    inner.remove("elem");
    Some(object)
}
