//! Other programs' chains that drop forwarded traffic: an accept of ours can't overrule them.

use std::process::{Command, Stdio};

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::name::IfName;

/// A chain of another program that drops what guests send beyond the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ForeignChain {
    /// Whose it seems to be: `Docker`, `ufw`, `firewalld`, or the table's name.
    pub owner: String,
    /// Family, table and chain, as nft names them.
    pub chain: String,
    /// The command that admits the bridge.
    pub admit: String,
}

/// The chains on the forward hook that drop at their end, and don't admit the bridge.
pub(super) fn find(bridge: &IfName) -> Result<Vec<ForeignChain>> {
    let listed = Command::new("nft")
        .args(["-j", "list", "chains"])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::new(ErrorKind::Host, "running nft").because(e))?;
    let Ok(chains) = serde_json::from_slice::<Value>(&listed.stdout) else {
        return Ok(Vec::new());
    };
    let found = judge(&chains, bridge, &|family, table, chain| {
        let listed = Command::new("nft")
            .args(["-j", "list", "chain", family, table, chain])
            .stdin(Stdio::null())
            .output();
        listed
            .ok()
            .and_then(|out| serde_json::from_slice(&out.stdout).ok())
    });
    Ok(found)
}

/// Judges the chains; `list` tells the rules of one.
fn judge(
    chains: &Value,
    bridge: &IfName,
    list: &dyn Fn(&str, &str, &str) -> Option<Value>,
) -> Vec<ForeignChain> {
    let objects = chains["nftables"].as_array().map_or(&[][..], Vec::as_slice);
    let chains: Vec<&Value> = objects.iter().filter_map(|one| one.get("chain")).collect();
    let named = |name: &str| chains.iter().any(|chain| chain["name"] == name);
    let mut found = Vec::new();
    for chain in &chains {
        let text = |key: &str| chain[key].as_str().unwrap_or_default();
        let (family, table, name) = (text("family"), text("table"), text("name"));
        let ours = table.starts_with("smartvm_");
        if chain["hook"] != "forward" || family == "ip6" || family == "bridge" || ours {
            continue;
        }
        let rules = list(family, table, name).unwrap_or_default();
        let rules: Vec<&Value> = rules["nftables"]
            .as_array()
            .map_or(&[][..], Vec::as_slice)
            .iter()
            .filter_map(|one| one.get("rule"))
            .collect();
        let drops = text("policy") == "drop" || rules.last().is_some_and(|rule| ends(rule));
        if !drops || rules.iter().any(|rule| admits(rule, bridge)) {
            continue;
        }
        let (owner, admit) = match (table, name) {
            (_, "FORWARD") if named("DOCKER-USER") => (
                "Docker",
                format!(
                    "iptables -I DOCKER-USER -i {bridge} -j ACCEPT; \
                     iptables -I DOCKER-USER -o {bridge} -j ACCEPT"
                ),
            ),
            (_, "FORWARD") if named("ufw-before-forward") => (
                "ufw",
                format!("ufw route allow in on {bridge}; ufw route allow out on {bridge}"),
            ),
            ("firewalld", _) => (
                "firewalld",
                format!(
                    "firewall-cmd --permanent --zone=trusted --add-interface={bridge}; \
                     firewall-cmd --reload"
                ),
            ),
            _ => (
                table,
                format!(
                    "nft insert rule {family} {table} {name} iifname {bridge} accept; \
                     nft insert rule {family} {table} {name} oifname {bridge} accept"
                ),
            ),
        };
        found.push(ForeignChain {
            owner: owner.to_owned(),
            chain: format!("{family} {table} {name}"),
            admit,
        });
    }
    found
}

/// Whether a rule is an unconditional drop or reject.
fn ends(rule: &Value) -> bool {
    let expressions = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
    let is = |key: &str| expressions.iter().any(|one| one.get(key).is_some());
    (is("drop") || is("reject")) && !is("match") && !is("xt")
}

/// Whether a rule accepts what comes from the bridge, whatever it is; or sends it to where
/// Docker's users say so.
fn admits(rule: &Value, bridge: &IfName) -> bool {
    let expressions = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
    let accepts = expressions.iter().any(|one| one.get("accept").is_some());
    let mut matches = expressions.iter().filter_map(|one| one.get("match"));
    let only = matches.next();
    accepts
        && matches.next().is_none()
        && only.is_some_and(|one| {
            one["left"]["meta"]["key"] == "iifname" && one["right"] == bridge.as_str()
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chain(table: &str, name: &str, policy: Option<&str>) -> Value {
        match policy {
            Some(policy) => json!({ "chain": { "family": "ip", "table": table, "name": name,
                "hook": "forward", "type": "filter", "policy": policy } }),
            None => json!({ "chain": { "family": "ip", "table": table, "name": name } }),
        }
    }

    fn found(chains: &[Value], rules: &[Value]) -> Vec<ForeignChain> {
        let bridge = "svbr0".parse().unwrap();
        let rules: Vec<Value> = rules
            .iter()
            .map(|expr| json!({ "rule": { "expr": expr } }))
            .collect();
        judge(&json!({ "nftables": chains }), &bridge, &|_, _, _| {
            Some(json!({ "nftables": rules }))
        })
    }

    #[test]
    fn programs_that_drop_forwarded_traffic_are_named_with_their_way_out() {
        let docker = [
            chain("filter", "FORWARD", Some("drop")),
            chain("filter", "DOCKER-USER", None),
        ];
        let docker = found(&docker, &[]);
        assert_eq!(docker[0].owner, "Docker");
        assert!(
            docker[0].admit.contains("DOCKER-USER -i svbr0"),
            "{docker:?}"
        );
        let ufw = [
            chain("filter", "FORWARD", Some("drop")),
            chain("filter", "ufw-before-forward", None),
        ];
        assert_eq!(found(&ufw, &[])[0].owner, "ufw");
        let firewalld = [chain("firewalld", "filter_FORWARD", Some("accept"))];
        let reject = json!([{ "reject": { "type": "icmpx" } }]);
        assert_eq!(found(&firewalld, &[reject])[0].owner, "firewalld");
        let other = found(&[chain("mine", "fwd", Some("drop"))], &[]);
        assert_eq!(other[0].chain, "ip mine fwd");
        assert!(
            other[0]
                .admit
                .contains("nft insert rule ip mine fwd iifname svbr0 accept")
        );
    }

    #[test]
    fn chains_that_let_the_bridge_pass_are_no_finding() {
        let drops = [chain("mine", "fwd", Some("drop"))];
        let iif = |name: &str| {
            json!([{ "match": { "op": "==", "left": { "meta": { "key": "iifname" } },
                "right": name } }, { "accept": null }])
        };
        assert!(found(&drops, &[iif("svbr0")]).is_empty());
        assert_eq!(found(&drops, &[iif("docker0")]).len(), 1);
        assert!(found(&[chain("mine", "fwd", Some("accept"))], &[]).is_empty());
        assert!(found(&[chain("smartvm_svbr0", "forward", Some("drop"))], &[]).is_empty());
    }
}
