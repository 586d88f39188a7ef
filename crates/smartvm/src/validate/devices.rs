//! The devices of which a microVM has at most one.

use std::path::Path;

use super::rate_limiter;
use super::report::Report;
use crate::spec::{Balloon, MicroVmSpec, Vsock};

/// Longest file name of a socket, in bytes. The kernel takes socket paths of 107 bytes;
/// Firecracker gets a short path to the directory, and appends `_` and a port to the name.
const MAX_SOCKET_NAME_BYTES: usize = 90;

pub(super) fn check(spec: &MicroVmSpec, report: &mut Report) {
    if let Some(vsock) = &spec.vsock {
        check_vsock(vsock, report);
    }
    if let Some(balloon) = &spec.balloon {
        check_balloon(balloon, spec.machine_config.mem_size_mib, report);
    }
    if let Some(logger) = &spec.logger {
        report.file("logger.logPath", &logger.log_path);
    }
    if let Some(metrics) = &spec.metrics {
        report.file("metrics.metricsPath", &metrics.metrics_path);
    }
    if let Some(entropy) = &spec.entropy {
        rate_limiter::check(entropy.rate_limiter.as_ref(), "entropy.rateLimiter", report);
    }
    if let Some(serial) = &spec.serial {
        report.file("serial.path", &serial.path);
        rate_limiter::bucket(serial.rate_limiter.as_ref(), "serial.rateLimiter", report);
    }
    outputs(spec, report);
}

fn check_vsock(vsock: &Vsock, report: &mut Report) {
    let cid = vsock.guest_cid;
    report.demand(
        (3..u32::MAX).contains(&cid),
        "vsock.guestCid",
        || format!("is {cid}, which is reserved"),
        "3 to 4294967294 (0 to 2 are the hypervisor, this machine and the host)",
    );
    report.file("vsock.udsPath", &vsock.uds_path);
    socket_name("vsock.udsPath", &vsock.uds_path, report);
}

/// A socket that a short path to its directory can lead to.
pub(super) fn socket_name(path: &str, socket: &Path, report: &mut Report) {
    if socket.as_os_str().is_empty() {
        return;
    }
    match socket.file_name() {
        None => report.wrong(path, "doesn't name a file", "the path of a socket"),
        Some(name) => report.demand(
            name.len() <= MAX_SOCKET_NAME_BYTES,
            path,
            || format!("has a file name of {} bytes", name.len()),
            "a file name of at most 90 bytes, in a directory of any length",
        ),
    }
}

fn check_balloon(balloon: &Balloon, memory: u64, report: &mut Report) {
    let amount = balloon.amount_mib;
    report.demand(
        // A memory of 0 is a problem of its own.
        amount < memory || memory == 0,
        "balloon.amountMib",
        || format!("is {amount}, which leaves nothing of the memory of {memory} MiB"),
        "less than `machineConfig.memSizeMib`",
    );
    if let Some(interval) = balloon.stats_polling_interval_s {
        report.demand(
            interval <= u64::from(u16::MAX),
            "balloon.statsPollingIntervalS",
            || format!("is {interval}"),
            "0 to 65535 seconds",
        );
    }
}

/// Three writers, three files: in one they would overwrite each other.
fn outputs(spec: &MicroVmSpec, report: &mut Report) {
    let files = [
        (
            "logger.logPath",
            spec.logger.as_ref().map(|it| &it.log_path),
        ),
        (
            "metrics.metricsPath",
            spec.metrics.as_ref().map(|it| &it.metrics_path),
        ),
        ("serial.path", spec.serial.as_ref().map(|it| &it.path)),
    ];
    report.unique(
        files
            .into_iter()
            .filter_map(|(path, file)| Some((path.to_owned(), file?))),
        |file| format!("{:?}", file.display().to_string()),
    );
}
