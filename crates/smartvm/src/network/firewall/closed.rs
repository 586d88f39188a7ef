//! Whether the kill switch stands in the forward chain.

use super::nft::list;
use super::render::table;
use crate::error::Result;
use crate::name::IfName;

/// Whether nothing of the guests may be forwarded beside the tunnel, in either direction, as
/// far as the bridge's table says so.
pub fn is_closed(bridge: &IfName) -> Result<bool> {
    let name = table(bridge);
    let rules = |chain: &str| list(&["list", "chain", "inet", &name, chain]);
    let Some(forward) = rules("forward")? else {
        return Ok(false);
    };
    for chain in ["from_guests", "to_guests"] {
        let led_there = (forward.iter()).any(|one| {
            let expressions = one["rule"]["expr"].as_array();
            expressions.is_some_and(|all| all.iter().any(|it| it["goto"]["target"] == chain))
        });
        let closed = rules(chain)?
            .is_some_and(|rules| (rules.iter()).any(|one| one["rule"]["comment"] == "kill switch"));
        if !led_there || !closed {
            return Ok(false);
        }
    }
    Ok(true)
}
