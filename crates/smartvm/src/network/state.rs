//! What is known of the network, on disk: whose it is, what it was made with, who uses it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Subnet;
use super::namespace::Namespace;
use super::tunnel::TunnelState;
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{IfName, MacAddress, VmId};
use crate::process::boot_id;
use crate::random;
use crate::spec::{FirewallEgress, NetworkManagerOptions};

pub(super) const FORMAT: u32 = 1;
const UP: &str = "network-up";
const VM: &str = "vm-";

/// Where the network is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// Being made, or being given back: whoever finds this with the lock in hand knows that
    /// it was interrupted.
    Changing,
    /// Whole.
    Up,
}

/// The network's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) bridge: IfName,
    pub(super) subnet: Subnet,
    pub(super) data_dir: PathBuf,
    /// SHA-256 of all options: they hold secrets, which are in no file of ours.
    pub(super) options: String,
    pub(super) boot_id: String,
    /// The network namespace that it is in.
    pub(super) namespace: Namespace,
    /// The interface that traffic leaves by.
    pub(super) nat_interface: Option<String>,
    /// What guests may reach, where it was set in the place of the options'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) firewall: Option<FirewallEgress>,
    /// What the firewall's rules looked like when they were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rules: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tunnel: Option<TunnelState>,
}

/// Who this runtime directory is among others on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Instance {
    /// Six hexadecimal digits.
    pub(super) id: String,
}

impl Instance {
    /// The instance of this network directory, made at its first use.
    pub(super) fn of(dir: &Path) -> Result<Self> {
        let path = Self::file(dir);
        if let Some(instance) = durable::read_state(&path, FORMAT)? {
            return Ok(instance);
        }
        durable::private_dir(dir)?;
        let mut id = random::uuid()?.simple().to_string();
        id.truncate(6);
        let instance = Self { id };
        durable::write_state(&path, FORMAT, &instance)?;
        Ok(instance)
    }

    pub(super) fn file(dir: &Path) -> PathBuf {
        dir.join("instance.json")
    }

    /// What devices of ours carry as their alias.
    pub(super) fn mark(&self) -> String {
        format!("smartvm {}", self.id)
    }

    /// The bridge's address, by which it is ours from its first moment.
    pub(super) fn bridge_mac(&self) -> MacAddress {
        let number = u32::from_str_radix(&self.id, 16).unwrap_or_default();
        let [_, a, b, c] = number.to_be_bytes();
        MacAddress::new([0x06, 0x01, 0x00, a, b, c])
    }
}

impl State {
    pub(super) fn file(dir: &Path) -> PathBuf {
        dir.join("state.json")
    }

    pub(super) fn read(dir: &Path) -> Result<Option<Self>> {
        durable::read_state(&Self::file(dir), FORMAT)
    }

    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        durable::write_state(&Self::file(dir), FORMAT, self)
    }

    pub(super) fn remove(dir: &Path) -> Result<()> {
        let path = Self::file(dir);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("removing", &path, e))
            }
            _ => Ok(()),
        }
    }

    /// Whether what it describes is there at all: not after a restart of the host.
    pub(super) fn is_of_this_boot(&self) -> Result<bool> {
        Ok(self.boot_id == boot_id()?)
    }

    /// Refuses a caller with other options, of another data directory or another namespace.
    pub(super) fn require_same(
        &self,
        options: &NetworkManagerOptions,
        digest: &str,
        data_dir: &Path,
        namespace: Namespace,
    ) -> Result<()> {
        let differs = |what: String| {
            Err(Error::new(
                ErrorKind::WrongState,
                format!("the network is up with {what}"),
            )
            .hint("use the same options, or take it down first: smartvm network down"))
        };
        if self.data_dir != data_dir {
            return differs(format!("the data directory {}", self.data_dir.display()));
        }
        if self.bridge.as_str() != options.bridge_name() {
            return differs(format!("the bridge {}", self.bridge));
        }
        if self.subnet.to_string() != options.subnet() {
            return differs(format!("the subnet {}", self.subnet));
        }
        if self.namespace != namespace {
            return differs("another network namespace than this process's".into());
        }
        if self.options != digest {
            return differs("other firewall or WireGuard options".into());
        }
        Ok(())
    }
}

/// What tells these options from others.
pub(super) fn digest(of: &impl Serialize) -> Result<String> {
    let bytes = serde_json::to_vec(of)
        .map_err(|e| Error::new(ErrorKind::Invalid, "encoding for a checksum").because(e))?;
    Ok(Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Who uses the network: an empty file for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum User {
    /// `network up`, until `network down`.
    Up,
    /// A VM.
    Vm(VmId),
}

/// The users on disk.
pub(super) struct Users(PathBuf);

impl Users {
    pub(super) fn in_dir(network: &Path) -> Self {
        Self(network.join("users"))
    }

    pub(super) fn add(&self, user: &User) -> Result<()> {
        let path = self.file(user);
        let add = || std::fs::write(&path, []);
        let added = match add() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                durable::private_dir(&self.0)?;
                add()
            }
            other => other,
        };
        added.map_err(|e| Error::io("counting a user in", &path, e))
    }

    pub(super) fn remove(&self, user: &User) -> Result<()> {
        let path = self.file(user);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("removing a user from", &path, e))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn all(&self) -> Result<Vec<User>> {
        let mut users: Vec<User> = self.in_any_order()?.collect();
        users.sort();
        Ok(users)
    }

    /// Whether there is none.
    pub(super) fn are_gone(&self) -> Result<bool> {
        Ok(self.in_any_order()?.next().is_none())
    }

    fn in_any_order(&self) -> Result<impl Iterator<Item = User>> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => Some(entries),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::io("reading", &self.0, e)),
        };
        let user = |name: &str| match name.strip_prefix(VM) {
            Some(id) => id.parse().ok().map(User::Vm),
            None => (name == UP).then_some(User::Up),
        };
        let entries = entries.into_iter().flatten().flatten();
        Ok(entries.filter_map(move |entry| user(entry.file_name().to_str()?)))
    }

    fn file(&self, user: &User) -> PathBuf {
        match user {
            User::Up => self.0.join(UP),
            User::Vm(id) => self.0.join(format!("{VM}{id}")),
        }
    }
}
