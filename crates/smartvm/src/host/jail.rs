//! What a jail needs of this host.

use std::path::Path;

use super::check::CheckContext;
use super::doctor::{Finding, judge};
use super::{HostFacts, files};
use crate::ErrorKind;
use crate::spec::{CgroupLimits, Jail, JailMode, MicroVmSpec, Problem, Problems};

pub(super) fn check(
    spec: &MicroVmSpec,
    facts: &HostFacts,
    context: &CheckContext,
    add: &mut impl FnMut(Result<(), Problem>),
) {
    let Some(jail) = &spec.jail else { return };
    if !crate::plan::jailed(spec, facts.euid == 0 && !context.no_jail) {
        // Limits that nobody would enforce are no limits.
        if jail.mode != Some(JailMode::Off) && jail.cgroup.is_some() {
            let problem = "limits need a jail, and that needs root rights and a jailer";
            add(Err(refuse(
                "jail.cgroup",
                problem,
                "run as root, with the jailer beside Firecracker, or leave the limits out",
            )));
        }
        return;
    }
    if facts.euid != 0 {
        let problem = "the jailer needs root rights";
        add(Err(refuse("jail.mode", problem, "run as root, or `auto`")));
    }
    if let Some(limits) = &jail.cgroup {
        cgroup(limits, facts, add);
    }
    if let Err((problem, advice)) = crate::jail::usable_root() {
        add(Err(refuse("jail.mode", &problem, advice)));
    }
    chroot(jail, context, add);
    let Some(net_ns) = &jail.net_ns else { return };
    if !net_ns.exists() {
        let problem = format!("{} doesn't exist", net_ns.display());
        let advice = "the file of a network namespace, such as /run/netns/blue";
        add(Err(
            Problem::new("jail.netNs", problem, advice).kind(ErrorKind::NotFound)
        ));
    }
}

/// Whether chroots can be made, and below this directory, for the doctor.
pub fn doctor_jail(base: &Path) -> Finding {
    match crate::jail::usable_root().and_then(|()| crate::jail::usable_base(base)) {
        Ok(()) => {
            let found = format!("{} allows device nodes and execution", base.display());
            judge("jail", true, found, "")
        }
        Err((problem, advice)) => judge("jail", false, problem, advice),
    }
}

/// The same by itself, for a VM whose other needs are known to be met.
pub(crate) fn check_jail(
    spec: &MicroVmSpec,
    facts: &HostFacts,
    context: &CheckContext,
) -> Result<(), Problems> {
    let mut problems = Problems::default();
    check(spec, facts, context, &mut |result| {
        problems.extend(result.err());
    });
    problems.into_result()
}

fn cgroup(limits: &CgroupLimits, facts: &HostFacts, add: &mut impl FnMut(Result<(), Problem>)) {
    let advice = "leave the limits out, or boot with systemd.unified_cgroup_hierarchy=1";
    let Some(controllers) = &facts.cgroup_controllers else {
        let problem = "this host has no cgroup v2";
        return add(Err(refuse("jail.cgroup", problem, advice)));
    };
    for (field, controller, wanted) in [
        ("jail.cgroup.cpus", "cpu", limits.cpus.is_some()),
        (
            "jail.cgroup.memoryMib",
            "memory",
            limits.memory_mib.is_some(),
        ),
        ("jail.cgroup.pids", "pids", limits.pids.is_some()),
        ("jail.cgroup.io", "io", !limits.io.is_empty()),
    ] {
        if wanted && !controllers.iter().any(|it| it == controller) {
            let problem = format!("this host's cgroup v2 has no controller {controller}");
            add(Err(refuse(field, &problem, advice)));
        }
    }
    for (index, io) in limits.io.iter().enumerate() {
        add(files::block_device(
            &format!("jail.cgroup.io[{index}].device"),
            &io.device,
        ));
    }
}

fn chroot(jail: &Jail, context: &CheckContext, add: &mut impl FnMut(Result<(), Problem>)) {
    let base = jail.chroot_base.as_ref().unwrap_or(&context.chroot_base);
    if let Err((problem, advice)) = crate::jail::usable_base(base) {
        add(Err(refuse("jail.chrootBase", &problem, advice)));
    }
}

fn refuse(field: &str, problem: &str, allowed: &str) -> Problem {
    Problem::new(field, problem, allowed).kind(ErrorKind::Host)
}
