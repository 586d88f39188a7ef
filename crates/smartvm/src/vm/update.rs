//! Changing the devices of a running VM. What it is then stands in its state.

use std::path::{Path, PathBuf};

use super::held::Held;
use super::{MicroVm, blocking, finish};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Client;
use crate::firecracker::client::Request;
use crate::firecracker::model::{
    BalloonStatsUpdate, BalloonUpdate, DriveUpdate, NetworkInterfaceUpdate, RateLimiterBody,
};
use crate::jail::{self, JailStep, Seen};
use crate::ledger::Ledger;
use crate::name::VmId;
use crate::network::Network;
use crate::plan::{self, Swap, Swapped};
use crate::rundir::{Operation, RunDir, VmState, file};
use crate::spec::{Balloon, Drive, FirewallConfig, RateLimiter};
use crate::step::{Hands, Step};
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
fn still_valid(state: &VmState) -> Result<()> {
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

fn find_drive(state: &VmState, id: &str) -> Result<usize> {
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

async fn swap(
    run_dir: RunDir,
    mut client: Client,
    mut held: Held,
    drive_id: &str,
    new: PathBuf,
) -> Result<()> {
    let index = find_drive(held.state(), drive_id)?;
    let new = std::path::absolute(&new).map_err(|e| Error::io("finding", &new, e))?;
    let drive = &mut held.change().spec.drives[index];
    let Some(old) = drive.path_on_host.replace(new.clone()) else {
        let message = format!("drive {drive_id} is a vhost-user device");
        return Err(Error::new(ErrorKind::Invalid, message)
            .hint("the process behind its socket decides what is in it"));
    };
    let read_only = drive.read_only();
    still_valid(held.state())?;
    let seen = held.state().paths.drives[index].clone();
    let (root, vmm) = (held.state().root(&run_dir), held.state().vmm.clone());
    let (id, jailed) = (drive_id.to_owned(), root.is_jail());
    let (swap, mut ledger, first) = blocking(move || {
        let ledger_path = run_dir.file(file::LEDGER);
        let mut ledger = Ledger::open(&ledger_path)?.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "the VM has no ledger").at(&ledger_path)
        })?;
        let first = ledger.entries().len();
        let place = root.file(&seen);
        let what = Swapped {
            drive_id: &id,
            seen: &seen,
            leads_to: match jailed {
                true => brought(&ledger, &place),
                false => std::fs::read_link(&place).ok(),
            },
            files: (&old, &new),
            writable: !read_only,
        };
        let swap = plan::swap(&root, what, first);
        crate::host::check_drive(&new, !read_only && !swap.staged)?;
        let before = ledger.entries().iter();
        let before: Vec<_> = before.filter_map(|entry| entry.outcome.clone()).collect();
        let mut binds = Vec::new();
        let done = swap.steps.iter().try_for_each(|step| {
            let mut hands = Hands {
                keeper: None,
                network: None,
                cancelled: &|| false,
                before: &before,
                open: &mut Vec::new(),
            };
            ledger.run(step, |step| {
                let outcome = step.apply(&mut hands)?;
                binds.extend(outcome.clone().into_binds());
                Ok(outcome)
            })
        });
        let done = done.and_then(|()| match &vmm {
            Some(vmm) => jail::mounts::bind_into(vmm, root.path(), &binds),
            None => Ok(()),
        });
        match done {
            Ok(()) => Ok((swap, ledger, first)),
            Err(e) => Err(e.with_cleanup(give_back(&mut ledger, |number, _| number >= first))),
        }
    })
    .await?;
    let request = DriveUpdate {
        drive_id,
        path_on_host: Some(&swap.path),
        rate_limiter: None,
    };
    if let Err(e) = client.send(&request.request()?).await {
        // Without an answer it isn't known which file Firecracker has: both stay until the end.
        if e.kind() != ErrorKind::Vmm {
            return Err(e);
        }
        let cleanup =
            blocking(move || Ok(give_back(&mut ledger, |number, _| number >= first))).await;
        return Err(e.with_cleanup(cleanup.unwrap_or_else(|e| vec![e])));
    }
    held.change().paths.drives[index] = swap.path.clone();
    held.done().await?;
    let left = blocking(move || {
        let mut left = give_back(&mut ledger, |number, step| {
            number < first && swap.replaces(step)
        });
        if jailed {
            // What is bound there goes with the place.
            let removed = std::fs::remove_file(&swap.old_path);
            let failed = removed
                .err()
                .filter(|e| e.kind() != std::io::ErrorKind::NotFound);
            left.extend(failed.map(|e| Error::io("removing", &swap.old_path, e)));
        }
        Ok(left)
    })
    .await?;
    match left.into_iter().next() {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

/// The file that was brought into the jail to this place.
fn brought(ledger: &Ledger, place: &Path) -> Option<PathBuf> {
    let entries = ledger.entries().iter().rev().filter(|entry| !entry.undone);
    entries
        .filter_map(|entry| match &entry.step {
            Step::Jail(JailStep::Bring { source, target, .. }) if target == place => Some(source),
            _ => None,
        })
        .next()
        .cloned()
}

fn give_back(ledger: &mut Ledger, which: impl Fn(usize, &Step) -> bool) -> Vec<Error> {
    ledger.undo_some(
        |number, entry| which(number, &entry.step),
        |entry| entry.step.undo(entry.outcome.as_ref()),
    )
}

impl Swap {
    /// Whether this step made what is no longer used.
    fn replaces(&self, step: &Step) -> bool {
        match step {
            Step::Link { path, .. } => *path == self.old_path,
            Step::StageDrive { target, .. } => *target == self.old_file,
            Step::Jail(JailStep::Bring { target, .. }) => *target == self.old_path,
            _ => false,
        }
    }
}
