//! A running VM's figures.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::{MicroVm, blocking};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::model::{Action, BalloonStats};
use crate::rundir::Operation;

/// What is read of the metrics at most: one line of them has some 10 KB.
const MOST_METRICS_BYTES: u64 = 256 << 10;

/// A running VM's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Stats {
    /// Of Firecracker's process, guest included.
    pub vmm: VmmUsage,
    /// Of the guest's memory, if its balloon has statistics.
    pub balloon: Option<BalloonStats>,
    /// Firecracker's own metrics as of now, if its spec sends them to a regular file (a FIFO's
    /// content is its reader's). Counters count from the metrics before.
    pub metrics: Option<Value>,
}

/// What Firecracker's process uses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct VmmUsage {
    /// Its id.
    pub pid: u32,
    /// Processor time so far, in seconds: that of the guest, too.
    pub cpu_seconds: f64,
    /// Memory in use, in bytes: that of the guest, too, as far as it was touched.
    pub resident_bytes: u64,
    /// Its threads: one for each virtual processor, and its own.
    pub threads: u32,
}

impl MicroVm {
    /// Its figures, as of now.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`] if it doesn't run.
    pub async fn stats(&self) -> Result<Stats> {
        let held = self.begin(Operation::Stats).await?;
        let vmm = held.state().vmm.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::WrongState,
                format!("VM {} has no process", self.id()),
            )
        })?;
        let pid = vmm.pid;
        let spec = &held.state().spec;
        let mut client = self.client();
        let polled = spec
            .balloon
            .as_ref()
            .and_then(|it| it.stats_polling_interval_s);
        let balloon = match polled.unwrap_or(0) {
            0 => None,
            _ => Some(client.ask(&BalloonStats::request()).await?),
        };
        let metrics = match &spec.metrics {
            Some(metrics) => {
                client.send(&Action::FlushMetrics.request()?).await?;
                let path = metrics.metrics_path.clone();
                blocking(move || last_metrics(pid, &path)).await?
            }
            None => None,
        };
        let vmm = usage(pid)?;
        Ok(Stats {
            vmm,
            balloon,
            metrics,
        })
    }
}

fn usage(pid: u32) -> Result<VmmUsage> {
    let path = format!("/proc/{pid}/stat");
    let text =
        std::fs::read_to_string(&path).map_err(|e| Error::io("reading the figures", &path, e))?;
    // The name, in brackets, may hold anything; what follows is state (field 3) and numbers.
    let fields: Vec<&str> = text
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_ascii_whitespace().collect())
        .unwrap_or_default();
    let field = |number: usize| -> Result<u64> {
        let value = fields.get(number - 3).and_then(|field| field.parse().ok());
        value.ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("{path} has no field {number}")))
    };
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    Ok(VmmUsage {
        pid,
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
        resident_bytes: field(24)? * rustix::param::page_size() as u64,
        threads: u32::try_from(field(20)?).unwrap_or(u32::MAX),
    })
}

/// The line that Firecracker wrote last. Older versions write a file over from its beginning,
/// so that its end isn't where they are: their open file tells.
fn last_metrics(pid: u32, path: &Path) -> Result<Option<Value>> {
    let failed = |e| Error::io("reading the metrics", path, e);
    let found = path.metadata().map_err(failed)?;
    if !found.is_file() {
        return Ok(None);
    }
    let end = position(pid, path).unwrap_or(found.len());
    let start = end.saturating_sub(MOST_METRICS_BYTES);
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(start))
        .and_then(|_| file.take(end - start).read_to_end(&mut bytes))
        .map_err(failed)?;
    let lines = bytes.split(|&byte| byte == b'\n');
    let last = lines.rev().find(|line| !line.is_empty());
    match last {
        Some(line) => serde_json::from_slice(line).map(Some).map_err(|e| {
            Error::new(
                ErrorKind::Corrupt,
                "Firecracker's metrics can't be understood",
            )
            .because(e)
        }),
        None => Ok(None),
    }
}

/// Where the process is in this file, if it has it open.
fn position(pid: u32, path: &Path) -> Option<u64> {
    let path = path.canonicalize().ok()?;
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    open.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target == path))
        .find_map(|fd| {
            let info = format!("/proc/{pid}/fdinfo/{}", fd.file_name().to_str()?);
            let info = std::fs::read_to_string(info).ok()?;
            info.lines()
                .find_map(|line| line.strip_prefix("pos:")?.trim().parse().ok())
        })
}
