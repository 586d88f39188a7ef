//! A cgroup (version 2) for one VM. The jailer could make one too, but can't set limits on
//! I/O, whose values hold an equals sign, and leaves it behind.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::spec::{CgroupLimits, IoLimit};

/// How long killed processes may take to leave a cgroup.
const PATIENCE: Duration = Duration::from_secs(10);
/// The period over which processor time is measured, in microseconds: the kernel's default.
const PERIOD_US: f64 = 100_000.0;

/// What is written into the cgroup's files for these limits. The value for a block device
/// begins with the device's path, which is looked up when it is written.
pub(crate) fn settings(limits: &CgroupLimits) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut set = |file: &str, value: String| all.push((file.to_owned(), value));
    if let Some(cpus) = limits.cpus {
        set("cpu.max", format!("{:.0} {PERIOD_US:.0}", cpus * PERIOD_US));
    }
    if let Some(mib) = limits.memory_mib {
        set("memory.max", mib.saturating_mul(1 << 20).to_string());
    }
    if let Some(pids) = limits.pids {
        set("pids.max", pids.to_string());
    }
    for io in &limits.io {
        set("io.max", io_max(io));
    }
    all
}

fn io_max(io: &IoLimit) -> String {
    let mut value = io.device.display().to_string();
    for (key, limit) in [
        ("rbps", io.read_bytes_per_s),
        ("wbps", io.write_bytes_per_s),
        ("riops", io.read_ops_per_s),
        ("wiops", io.write_ops_per_s),
    ] {
        if let Some(limit) = limit {
            value.push_str(&format!(" {key}={limit}"));
        }
    }
    value
}

pub(super) fn make(path: &Path, settings: &[(String, String)]) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/sys/fs/cgroup"));
    let top = parent.parent().unwrap_or(Path::new("/sys/fs/cgroup"));
    let mut controllers: Vec<&str> = settings
        .iter()
        .filter_map(|(file, _)| file.split('.').next())
        .collect();
    controllers.dedup();
    let wanted: String = controllers.iter().map(|name| format!("+{name} ")).collect();
    // Another VM's end may remove the shared parent at any moment.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let made = enable(top, &wanted)
            .and_then(|()| create(parent, true))
            .and_then(|()| enable(parent, &wanted))
            .and_then(|()| create(path, false));
        match made {
            Err(e) if e.kind() == ErrorKind::NotFound && Instant::now() < deadline => {}
            Err(e) => return Err(e),
            Ok(()) => break,
        }
    }
    for (file, value) in settings {
        let value = match file.as_str() {
            "io.max" => with_device_number(value)?,
            _ => value.clone(),
        };
        write(&path.join(file), &value)?;
    }
    Ok(())
}

/// Puts a process into the cgroup.
pub(crate) fn enter(path: &Path, pid: u32) -> Result<()> {
    write(&path.join("cgroup.procs"), &pid.to_string())
}

pub(super) fn remove(path: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match std::fs::remove_dir(path) {
            Ok(()) => break,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => break,
            // Its processes are dead, and may still be leaving.
            Err(e) if busy(&e) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(e) => return Err(Error::io("removing cgroup", path, e)),
        }
    }
    // The last one takes the shared parent along; others keep it.
    if let Some(parent) = path.parent()
        && let Err(e) = std::fs::remove_dir(parent)
    {
        tracing::trace!("{} stays: {e}", parent.display());
    }
    Ok(())
}

fn busy(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error())
}

fn enable(dir: &Path, wanted: &str) -> Result<()> {
    write(&dir.join("cgroup.subtree_control"), wanted.trim_end())
}

fn create(path: &Path, shared: bool) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(e) if shared && e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        done => done.map_err(|e| failed("making cgroup", path, &e)),
    }
}

fn write(file: &Path, value: &str) -> Result<()> {
    std::fs::write(file, value).map_err(|e| failed(&format!("writing {value:?} to"), file, &e))
}

fn failed(doing: &str, path: &Path, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Host,
    };
    Error::new(kind, format!("{doing} {}: {error}", path.display()))
        .at(path)
        .hint("limits need cgroup v2 with the controllers cpu, memory, pids and io")
}

/// `/dev/sda rbps=1` as the kernel wants it: `8:0 rbps=1`.
fn with_device_number(value: &str) -> Result<String> {
    let split = value.find(" r").into_iter().chain(value.find(" w")).min();
    let (device, limits) = value.split_at(split.unwrap_or(value.len()));
    let found = std::fs::metadata(device).map_err(|e| Error::io("looking at", device, e))?;
    if !found.file_type().is_block_device() {
        let message = format!("{device} is no block device, so its I/O can't be limited");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let (major, minor) = (
        rustix::fs::major(found.rdev()),
        rustix::fs::minor(found.rdev()),
    );
    Ok(format!("{major}:{minor}{limits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_what_the_kernel_reads() {
        let io = IoLimit::builder()
            .device("/dev/sda")
            .read_bytes_per_s(5)
            .write_bytes_per_s(6)
            .read_ops_per_s(7)
            .write_ops_per_s(8)
            .build();
        let limits = CgroupLimits::builder()
            .cpus(1.5)
            .memory_mib(256)
            .pids(32)
            .io(vec![io])
            .build();
        let told: Vec<_> = settings(&limits)
            .into_iter()
            .map(|(file, value)| format!("{file} {value}"))
            .collect();
        assert_eq!(
            told,
            [
                "cpu.max 150000 100000",
                "memory.max 268435456",
                "pids.max 32",
                "io.max /dev/sda rbps=5 wbps=6 riops=7 wiops=8"
            ]
        );
        assert!(settings(&CgroupLimits::default()).is_empty());
    }
}
