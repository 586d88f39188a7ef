//! The tables in the kernel, through nft, in the calling thread's network namespace.

use std::io::{Seek, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::elements::Tables;
use super::render::{self, SUBNET_POLICY, Scope, table, vm_policy};
use super::{Ruleset, VmPort, render as whole};
use crate::error::{Error, ErrorKind, Result};
use crate::name::IfName;
use crate::network::namespace::Namespace;
use crate::spec::FirewallEgress;
use crate::storage::program;

/// Ten thousand rules take about a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the tables what the ruleset says, whatever they were, in one transaction.
pub fn apply(ruleset: &Ruleset) -> Result<()> {
    transaction(&whole(ruleset)?, "setting the firewall")
}

/// Removes the tables; no matter if they aren't there.
pub fn remove(bridge: &IfName) -> Result<()> {
    let name = table(bridge);
    let mut text = String::new();
    for family in ["inet", "bridge"] {
        text.push_str(&format!(
            "table {family} {name}\ndelete table {family} {name}\n"
        ));
    }
    transaction(&text, "removing the firewall")
}

/// Whether both tables are there.
pub fn is_there(bridge: &IfName) -> Result<bool> {
    Tables::of(Namespace::here()?, bridge).are_there()
}

/// Admits one guest. Nothing that stands is rendered again: elements are added, and the
/// guest's own policy where it has one. False if the tables are gone.
pub fn add_vm(bridge: &IfName, vm: &VmPort) -> Result<bool> {
    admit(Namespace::here()?, bridge, vm)
}

/// The same in the network namespace that this thread is in.
pub(in crate::network) fn admit(here: Namespace, bridge: &IfName, vm: &VmPort) -> Result<bool> {
    let tables = Tables::of(here, bridge);
    let Some(has_own_policy) = tables.own_policy(vm)? else {
        return Ok(false);
    };
    // Once more is once: what it may have left is taken away first.
    if vm.policy.is_some() || has_own_policy {
        replace_vm_policy(bridge, vm)?;
    }
    tables.admit(vm)
}

/// Shuts one guest out, and forgets its policy; no matter if it or the tables aren't there.
pub fn remove_vm(bridge: &IfName, vm: &VmPort) -> Result<()> {
    let tables = Tables::of(Namespace::here()?, bridge);
    tables.shut_out(vm)?;
    if tables.own_policy(vm)? != Some(true) {
        return Ok(());
    }
    let vm = VmPort {
        policy: None,
        ..vm.clone()
    };
    replace_vm_policy(bridge, &vm)
}

/// Puts another policy of its own, or none, in the place of a guest's, in one transaction.
pub fn replace_vm_policy(bridge: &IfName, vm: &VmPort) -> Result<()> {
    let name = table(bridge);
    let known = objects("inet", &name)?.ok_or_else(|| not_up(bridge))?;
    let text = forget_own(&name, vm, &known) + &own_policy(&name, vm)?;
    transaction(&text, &format!("setting the rules of the guest {}", vm.ip))
}

/// The chains of a guest's own policy, and the way to them; nothing where it has none.
fn own_policy(table: &str, vm: &VmPort) -> Result<String> {
    let Some(egress) = &vm.policy else {
        return Ok(String::new());
    };
    let chain = vm_policy(vm);
    let chains = render::policy(&chain, Some(egress), Scope::Vm)?;
    let mut text = format!("table inet {table} {{\n{chains}}}\n");
    for direction in ["out", "back"] {
        text.push_str(&format!(
            "add element inet {table} vm_{direction} {{ {} : jump {chain}_{direction} }}\n",
            vm.ip
        ));
    }
    Ok(text)
}

/// Takes them away, where they are known.
fn forget_own(table: &str, vm: &VmPort, known: &[(String, String)]) -> String {
    let chain = vm_policy(vm);
    let mut text = String::new();
    let out = format!("{chain}_out");
    if known.iter().any(|(_, object)| *object == out) {
        for direction in ["out", "back"] {
            let element = format!("vm_{direction} {{ {} : jump {chain}_{direction} }}", vm.ip);
            text.push_str(&format!("add element inet {table} {element}\n"));
            text.push_str(&format!("delete element inet {table} {element}\n"));
        }
        text.push_str(&forget(table, &chain, known, true));
    }
    text
}

/// Puts another policy in the place of the subnet's, in one transaction: what it denies ends
/// at once, what it allows goes on.
pub fn replace_policy(bridge: &IfName, egress: &FirewallEgress) -> Result<()> {
    let name = table(bridge);
    let known = objects("inet", &name)?.ok_or_else(|| not_up(bridge))?;
    let chains = render::policy(SUBNET_POLICY, Some(egress), Scope::Subnet)?;
    let mut text = forget(&name, SUBNET_POLICY, &known, false);
    text.push_str(&format!("table inet {name} {{\n{chains}}}\n"));
    transaction(&text, "setting the firewall's rules")
}

/// Empties a policy's chains and deletes its maps, and the chains too where they go.
fn forget(table: &str, policy: &str, known: &[(String, String)], chains: bool) -> String {
    let mut text = String::new();
    for direction in ["out", "back"] {
        text.push_str(&format!("flush chain inet {table} {policy}_{direction}\n"));
    }
    for (kind, object) in known {
        let number = object
            .strip_prefix(policy)
            .and_then(|it| it.strip_prefix('_'));
        let is_map = kind == "map"
            && number.is_some_and(|rest| rest.starts_with(|it: char| it.is_ascii_digit()));
        if is_map {
            text.push_str(&format!("delete map inet {table} {object}\n"));
        }
    }
    for direction in ["out", "back"].iter().filter(|_| chains) {
        text.push_str(&format!("delete chain inet {table} {policy}_{direction}\n"));
    }
    text
}

/// Kinds and names of a table's maps and chains; `None`: there is no such table.
fn objects(family: &str, table: &str) -> Result<Option<Vec<(String, String)>>> {
    let Some(listed) = list(&["-t", "list", "table", family, table])? else {
        return Ok(None);
    };
    let objects = listed.iter().filter_map(|object| {
        let (kind, object) = object.as_object()?.iter().next()?;
        Some((kind.clone(), object.get("name")?.as_str()?.to_owned()))
    });
    Ok(Some(objects.collect()))
}

/// What nft lists as JSON; `None`: there is no such thing.
pub(super) fn list(what: &[&str]) -> Result<Option<Vec<serde_json::Value>>> {
    let nft = find()?;
    let mut said = tempfile::tempfile().map_err(|e| Error::io("running", &nft, e))?;
    let mut command = Command::new(&nft);
    command.arg("-j").args(what);
    let status = program::run_with(
        command,
        Stdio::null(),
        said.try_clone()
            .map_err(|e| Error::io("running", &nft, e))?,
        PATIENCE,
        &|| false,
    )?;
    if status.status != Some(0) {
        if status.stderr.contains("No such file or directory") {
            return Ok(None);
        }
        return Err(refused(&nft, "listing the firewall", &status));
    }
    said.rewind().map_err(|e| Error::io("running", &nft, e))?;
    let text = std::io::read_to_string(std::io::Read::take(said, 64 << 20))
        .map_err(|e| Error::io("running", &nft, e))?;
    let damaged = |e| Error::new(ErrorKind::Corrupt, "reading what nft lists").because(e);
    let mut listed: serde_json::Value = serde_json::from_str(&text).map_err(damaged)?;
    match listed["nftables"].take() {
        serde_json::Value::Array(objects) => Ok(Some(objects)),
        _ => Ok(Some(Vec::new())),
    }
}

fn transaction(text: &str, doing: &str) -> Result<()> {
    let nft = find()?;
    let failed = |e| Error::io("running", &nft, e);
    let mut input = tempfile::tempfile().map_err(failed)?;
    input.write_all(text.as_bytes()).map_err(failed)?;
    input.rewind().map_err(failed)?;
    let mut command = Command::new(&nft);
    command.args(["-f", "-"]);
    let unread = tempfile::tempfile().map_err(failed)?;
    let ended = program::run_with(command, Stdio::from(input), unread, PATIENCE, &|| false)?;
    match ended.status {
        Some(0) => Ok(()),
        _ => Err(refused(&nft, doing, &ended)),
    }
}

fn not_up(bridge: &IfName) -> Error {
    let message = format!("the firewall of {bridge} isn't there");
    Error::new(ErrorKind::WrongState, message).hint("smartvm network up")
}

fn find() -> Result<PathBuf> {
    program::find("nft", "nftables")
}

fn refused(nft: &std::path::Path, doing: &str, ended: &program::Ended) -> Error {
    let error = program::refused(nft, doing, ended, &ended.stderr);
    if ended.stderr.contains("Operation not permitted") {
        return error.hint("the firewall needs root's rights");
    }
    error
}
