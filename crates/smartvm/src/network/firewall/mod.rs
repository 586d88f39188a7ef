//! Our nftables table: the guests' way out.

use std::io::Write;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::subnet::Subnet;
use crate::error::{Error, ErrorKind, Result};
use crate::name::IfName;

/// What our tables say, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Ruleset {
    /// The bridge.
    pub bridge: IfName,
    /// The guests' subnet.
    pub subnet: Subnet,
}

impl Ruleset {
    /// Rules for this bridge and subnet.
    pub fn new(bridge: IfName, subnet: Subnet) -> Self {
        Self { bridge, subnet }
    }
}

fn table_of(bridge: &IfName) -> String {
    let plain = |it: char| if it.is_ascii_alphanumeric() { it } else { '_' };
    let name: String = bridge.as_str().chars().map(plain).collect();
    format!("smartvm_{name}")
}

/// The table as nft takes it: added, deleted and added again in one transaction, so that
/// there is no moment without it.
pub fn document(rules: &Ruleset) -> Value {
    let table = table_of(&rules.bridge);
    let named = json!({ "family": "ip", "name": table });
    let chain = |name: &str, kind: &str, hook: &str, prio: i32| {
        json!({ "add": { "chain": { "family": "ip", "table": table, "name": name, "type": kind,
            "hook": hook, "prio": prio, "policy": "accept" } } })
    };
    let interface = |key: &str, op: &str| {
        json!({ "match": { "op": op, "left": { "meta": { "key": key } },
            "right": rules.bridge.as_str() } })
    };
    let subnet = json!({ "prefix": { "addr": rules.subnet.net().network().to_string(),
        "len": rules.subnet.prefix() } });
    let source = |op: &str| {
        json!({ "match": { "op": op, "left": { "payload": { "protocol": "ip",
            "field": "saddr" } }, "right": subnet } })
    };
    let rule = |chain: &str, expr: Value| {
        json!({ "add": { "rule": { "family": "ip", "table": table, "chain": chain,
            "expr": expr } } })
    };
    json!({ "nftables": [
        { "add": { "table": named } },
        { "delete": { "table": named } },
        { "add": { "table": named } },
        chain("forward", "filter", "forward", 0),
        // Nobody beyond the bridge sees an address that isn't a guest's, and guests don't
        // reach each other by way of the gateway.
        rule("forward", json!([interface("iifname", "=="), source("!="), { "drop": null }])),
        rule("forward", json!([interface("iifname", "=="), interface("oifname", "=="),
            { "drop": null }])),
        // Whichever interface the default route leads out of: it is followed by itself.
        chain("postrouting", "nat", "postrouting", 100),
        rule("postrouting", json!([interface("oifname", "!="), source("=="),
            { "masquerade": null }])),
    ] })
}

/// Replaces our table whole.
pub(crate) fn apply(rules: &Ruleset) -> Result<()> {
    nft(&document(rules))
}

/// Removes our table, where it is there.
pub(crate) fn remove(bridge: &IfName) -> Result<()> {
    let named = json!({ "family": "ip", "name": table_of(bridge) });
    nft(&json!({ "nftables": [{ "add": { "table": named } }, { "delete": { "table": named } }] }))
}

/// Whether our table is there.
pub(crate) fn is_there(bridge: &IfName) -> Result<bool> {
    let listed = Command::new("nft")
        .args(["-j", "list", "table", "ip", &table_of(bridge)])
        .stdin(Stdio::null())
        .output()
        .map_err(missing)?;
    Ok(listed.status.success())
}

fn nft(document: &Value) -> Result<()> {
    let mut child = Command::new("nft")
        .args(["-j", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // Where nft ends early, what it says tells more than the broken pipe.
        let _broken = stdin.write_all(document.to_string().as_bytes());
    }
    let done = child
        .wait_with_output()
        .map_err(|e| Error::new(ErrorKind::Io, "waiting for nft").because(e))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(Error::new(
        ErrorKind::Host,
        format!("nft refused our table: {}", said.trim()),
    )
    .hint("the network needs root's rights, nft 1.0 or newer, and a kernel with nf_tables and NAT"))
}

fn missing(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Host, "running nft")
        .because(cause)
        .hint("install nftables")
}
