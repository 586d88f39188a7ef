//! Changing the devices of a running VM. What it is then stands in its state.

use std::path::{Path, PathBuf};

use super::held::Held;
use super::swap::swap;
use super::{MicroVm, blocking, finish};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Client;
use crate::firecracker::client::Request;
use crate::firecracker::model::{
    BalloonStatsUpdate, BalloonUpdate, DriveUpdate, NetworkInterfaceUpdate, RateLimiterBody,
};
use crate::jail::Seen;
use crate::name::VmId;
use crate::network::Network;
use crate::rundir::{Operation, RunDir, VmState};
use crate::spec::{Balloon, Drive, FirewallConfig, RateLimiter};
use crate::validate::{ValidateContext, validate};

/// A change of one device.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// Another file behind a drive, copied or not as the one before.
    SwapDrive {
        /// The drive.
        drive_id: String,
        /// The new file; a relative path is relative to the current directory.
        path_on_host: PathBuf,
    },
    /// A drive's file is made larger, and the guest told.
    GrowDrive {
        /// The drive.
        drive_id: String,
        /// The new size, larger than the old one, a multiple of 512.
        size_bytes: u64,
    },
    /// The guest is told of a size that somebody else changed.
    RefreshDrive {
        /// The drive.
        drive_id: String,
    },
    /// A drive's limits are replaced, or taken away.
    LimitDrive {
        /// The drive.
        drive_id: String,
        /// The new ones.
        limits: Option<RateLimiter>,
    },
    /// A network interface's limits in one direction are replaced, or taken away.
    LimitInterface {
        /// The interface.
        iface_id: String,
        /// Which way.
        direction: Direction,
        /// The new ones.
        limits: Option<RateLimiter>,
    },
    /// The balloon gets another size.
    Balloon {
        /// In MiB; less than the VM's memory.
        amount_mib: u64,
    },
    /// The time between two statistics of the balloon.
    BalloonStatistics {
        /// In seconds, 1 to 65535.
        interval_s: u64,
    },
    /// What the VM alone may reach is replaced: what is denied now ends at once, what is
    /// allowed goes on.
    Firewall {
        /// The new rules; without egress rules, those of the subnet alone hold.
        firewall: FirewallConfig,
    },
}

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the guest.
    Rx,
    /// From the guest.
    Tx,
}

impl MicroVm {
    /// Changes a device. What is begun is brought to its end even if this future is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such device; [`ErrorKind::Invalid`] for what its
    /// spec could not be either; [`ErrorKind::WrongState`] if the VM doesn't run. The VM is
    /// then as before.
    pub async fn update(&self, change: Change) -> Result<()> {
        let held = self.begin(Operation::Update).await?;
        let (run_dir, client) = (self.run_dir().clone(), self.client());
        let network = self.network.clone();
        finish::even_if_dropped(apply(run_dir, client, network, held, change)).await
    }
}

async fn apply(
    run_dir: RunDir,
    mut client: Client,
    network: Network,
    mut held: Held,
    change: Change,
) -> Result<()> {
    let request = match change {
        Change::Firewall { firewall } => {
            return set_firewall(run_dir.id().clone(), network, held, firewall).await;
        }
        Change::SwapDrive {
            drive_id,
            path_on_host,
        } => {
            return swap(run_dir, client, held, &drive_id, path_on_host).await;
        }
        Change::GrowDrive {
            drive_id,
            size_bytes,
        } => {
            let index = find_drive(held.state(), &drive_id)?;
            let state = held.state().clone();
            blocking(move || {
                let file = Seen::find(&run_dir, &state, &state.paths.drives[index])?;
                grow(&state.spec.drives[index], file.path(), size_bytes)
            })
            .await?;
            refresh(held.state(), index)?
        }
        Change::RefreshDrive { drive_id } => {
            let index = find_drive(held.state(), &drive_id)?;
            refresh(held.state(), index)?
        }
        Change::LimitDrive { drive_id, limits } => {
            let index = find_drive(held.state(), &drive_id)?;
            held.change().spec.drives[index].rate_limiter = limits.clone();
            DriveUpdate {
                drive_id: &drive_id,
                path_on_host: None,
                rate_limiter: Some(RateLimiterBody::replacing(limits.as_ref())),
            }
            .request()?
        }
        Change::LimitInterface {
            iface_id,
            direction,
            limits,
        } => limit_interface(held.change(), &iface_id, direction, limits)?,
        Change::Balloon { amount_mib } => {
            balloon(held.change())?.amount_mib = amount_mib;
            BalloonUpdate { amount_mib }.request()?
        }
        Change::BalloonStatistics { interval_s } => {
            let balloon = balloon(held.change())?;
            if interval_s == 0 || balloon.stats_polling_interval_s.unwrap_or(0) == 0 {
                let message = "the balloon's statistics can't be switched on or off while it runs";
                return Err(Error::new(ErrorKind::Invalid, message)
                    .hint("give balloon.statsPollingIntervalS in the spec"));
            }
            balloon.stats_polling_interval_s = Some(interval_s);
            let stats_polling_interval_s = interval_s;
            BalloonStatsUpdate {
                stats_polling_interval_s,
            }
            .request()?
        }
    };
    still_valid(held.state())?;
    client.send(&request).await?;
    held.done().await
}

async fn set_firewall(
    vm: VmId,
    network: Network,
    mut held: Held,
    firewall: FirewallConfig,
) -> Result<()> {
    for lease in &mut held.change().leases {
        lease.firewall.clone_from(&firewall.egress);
    }
    held.change().spec.firewall = Some(firewall.clone());
    still_valid(held.state())?;
    blocking(move || network.set_vm_firewall(&vm, firewall.egress.as_ref())).await?;
    held.done().await
}

/// What is changed must be what a spec could have asked for.
pub(super) fn still_valid(state: &VmState) -> Result<()> {
    validate(&state.spec, &ValidateContext::default()).map(drop)?;
    Ok(())
}

fn no_device(what: &str, id: &str, known: &[&str]) -> Error {
    let known = match known {
        [] => "it has none".to_owned(),
        known => format!("it has {}", known.join(", ")),
    };
    Error::new(ErrorKind::NotFound, format!("the VM has no {what} {id}")).hint(known)
}

pub(super) fn find_drive(state: &VmState, id: &str) -> Result<usize> {
    let drives = &state.spec.drives;
    let found = drives.iter().position(|drive| drive.drive_id == id);
    found.ok_or_else(|| {
        let known: Vec<_> = drives.iter().map(|it| it.drive_id.as_str()).collect();
        no_device("drive", id, &known)
    })
}

fn balloon(state: &mut VmState) -> Result<&mut Balloon> {
    let absent = || {
        Error::new(ErrorKind::NotFound, "the VM has no balloon")
            .hint("it is made before boot: give its spec `balloon`")
    };
    state.spec.balloon.as_mut().ok_or_else(absent)
}

fn limit_interface(
    state: &mut VmState,
    id: &str,
    direction: Direction,
    limits: Option<RateLimiter>,
) -> Result<Request> {
    let interfaces = &mut state.spec.network_interfaces;
    let Some(index) = interfaces
        .iter()
        .position(|interface| interface.iface_id == id)
    else {
        let known: Vec<_> = interfaces.iter().map(|it| it.iface_id.as_str()).collect();
        return Err(no_device("network interface", id, &known));
    };
    let body = Some(RateLimiterBody::replacing(limits.as_ref()));
    let (rx_rate_limiter, tx_rate_limiter) = match direction {
        Direction::Rx => {
            interfaces[index].rx_rate_limiter = limits;
            (body, None)
        }
        Direction::Tx => {
            interfaces[index].tx_rate_limiter = limits;
            (None, body)
        }
    };
    NetworkInterfaceUpdate {
        iface_id: id,
        rx_rate_limiter,
        tx_rate_limiter,
    }
    .request()
}

/// The request that has the guest look at a drive's size.
fn refresh(state: &VmState, index: usize) -> Result<Request> {
    let drive = &state.spec.drives[index];
    DriveUpdate {
        drive_id: &drive.drive_id,
        path_on_host: drive
            .socket
            .is_none()
            .then_some(&*state.paths.drives[index]),
        rate_limiter: None,
    }
    .request()
}

fn grow(drive: &Drive, path: &Path, size_bytes: u64) -> Result<()> {
    let refuse = |what: String, hint: &str| {
        let message = format!("growing drive {}: {what}", drive.drive_id);
        Err(Error::new(ErrorKind::Invalid, message).hint(hint))
    };
    if drive.read_only() || drive.socket.is_some() {
        return refuse(
            "smartvm may not write its file".into(),
            "grow it yourself, then refresh it",
        );
    }
    let failed = |e| Error::io("growing", path, e);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return refuse(
            "it isn't a regular file".into(),
            "grow it yourself, then refresh it",
        );
    }
    if size_bytes <= found.len() || !size_bytes.is_multiple_of(512) {
        let what = format!(
            "{size_bytes} isn't more than its {} bytes in sectors of 512",
            found.len()
        );
        return refuse(what, "drives only grow, by whole sectors");
    }
    file.set_len(size_bytes).map_err(failed)
}
