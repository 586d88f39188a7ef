//! Whether the kill switch stands in the forward chain.

use serde_json::Value;

use super::nft::list;
use super::render::table;
use crate::error::Result;
use crate::name::IfName;

/// Whether nothing of the guests may be forwarded beside the tunnel, in either direction, as
/// far as the bridge's table says so. Without a table it isn't.
pub fn is_closed(bridge: &IfName) -> Result<bool> {
    let listed = list(&["-t", "list", "table", "inet", &table(bridge)])?;
    let listed = listed.unwrap_or_default();
    let rules: Vec<&Value> = listed.iter().map(|one| &one["rule"]).collect();
    let closed = |chain: &str| {
        let leads_there = |rule: &&Value| {
            let expressions = rule["expr"].as_array().into_iter().flatten();
            rule["chain"] == "forward"
                && expressions.clone().any(|it| it["goto"]["target"] == chain)
        };
        let drops = |rule: &&Value| rule["chain"] == chain && rule["comment"] == "kill switch";
        rules.iter().any(leads_there) && rules.iter().any(drops)
    };
    Ok(closed("from_guests") && closed("to_guests"))
}
