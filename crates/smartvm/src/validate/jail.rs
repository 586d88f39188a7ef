//! Confinement.

use super::report::Report;
use crate::spec::{CgroupLimits, IdRange, Jail, NetworkInterface};

pub(super) fn check(jail: &Jail, interfaces: &[NetworkInterface], report: &mut Report) {
    for (index, interface) in interfaces.iter().enumerate() {
        report.demand(
            jail.net_ns.is_none() || interface.host_dev_name.is_some(),
            format!("networkInterfaces[{index}].hostDevName"),
            || "is left out, and the bridge isn't in the network namespace of `jail.netNs`".into(),
            "a TAP device in that namespace",
        );
    }
    ids(jail.uid_range.as_ref(), "jail.uidRange", report);
    ids(jail.gid_range.as_ref(), "jail.gidRange", report);
    report.file_if_given("jail.chrootBase", jail.chroot_base.as_deref());
    report.file_if_given("jail.netNs", jail.net_ns.as_deref());
    if let Some(limits) = &jail.cgroup {
        cgroup(limits, report);
    }
    if let Some(limits) = &jail.resource_limits {
        at_least_one("jail.resourceLimits.openFiles", limits.open_files, report);
    }
}

fn ids(range: Option<&IdRange>, path: &str, report: &mut Report) {
    let Some(range) = range else { return };
    report.demand(
        range.first > 0,
        format!("{path}.first"),
        || "is 0, which is root".into(),
        "1 or more",
    );
    // The last id, 4294967295, means "no change" to the kernel.
    let end = range.first.checked_add(range.count);
    report.demand(
        range.count > 0 && end.is_some(),
        format!("{path}.count"),
        || format!("is {}, counted from {}", range.count, range.first),
        "1 or more, all below 4294967295",
    );
}

fn cgroup(limits: &CgroupLimits, report: &mut Report) {
    if let Some(cpus) = limits.cpus {
        report.demand(
            (0.01..=4096.0).contains(&cpus),
            "jail.cgroup.cpus",
            || format!("is {cpus}"),
            "0.01 to 4096 processors",
        );
    }
    at_least_one("jail.cgroup.memoryMib", limits.memory_mib, report);
    at_least_one("jail.cgroup.pids", limits.pids, report);
    if !report.few("jail.cgroup.io", limits.io.len()) {
        return;
    }
    for (index, io) in limits.io.iter().enumerate() {
        let path = format!("jail.cgroup.io[{index}]");
        report.file(format!("{path}.device"), &io.device);
        let rates = [
            ("readBytesPerS", io.read_bytes_per_s),
            ("writeBytesPerS", io.write_bytes_per_s),
            ("readOpsPerS", io.read_ops_per_s),
            ("writeOpsPerS", io.write_ops_per_s),
        ];
        report.demand(
            rates.iter().any(|(_, rate)| rate.is_some()),
            &path,
            || "limits nothing".into(),
            "at least one of readBytesPerS, writeBytesPerS, readOpsPerS, writeOpsPerS",
        );
        for (field, rate) in rates {
            at_least_one(&format!("{path}.{field}"), rate, report);
        }
    }
    report.unique(
        limits
            .io
            .iter()
            .enumerate()
            .map(|(index, io)| (format!("jail.cgroup.io[{index}].device"), &io.device)),
        |device| format!("{:?}", device.display().to_string()),
    );
}

fn at_least_one(path: &str, value: Option<u64>, report: &mut Report) {
    report.demand(
        value != Some(0),
        path,
        || "is 0, which leaves nothing to run with".into(),
        "1 or more; leave it out for no limit",
    );
}
