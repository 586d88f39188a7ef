//! What a jail adds to a plan.

use std::path::{Path, PathBuf};

use super::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::jailer::{self, Jailer};
use crate::jail::{self, DEFAULT_IDS, JailStep};
use crate::spec::{IdRange, Jail, JailMode, MicroVmSpec};
use crate::step::Step;

/// The cgroup that has all VMs' cgroups.
const PARENT_CGROUP: &str = "/sys/fs/cgroup/smartvm";

/// How VMs are jailed on this host.
#[derive(Debug, Clone, Copy)]
pub struct JailContext<'a> {
    /// The jailer.
    pub jailer: &'a Path,
    /// The directory of chroots, where the spec names none.
    pub chroot_base: &'a Path,
}

/// Whether a spec's VM is to be jailed, by a process with root rights or one without.
pub fn jailed(spec: &MicroVmSpec, root_rights: bool) -> bool {
    spec.jail
        .as_ref()
        .is_some_and(|jail| match jail.mode.unwrap_or_default() {
            JailMode::Required => true,
            JailMode::Auto => root_rights,
            JailMode::Off => false,
        })
}

/// Where chroots are below this data directory, for specs that don't say.
pub fn chroot_base(data_dir: &Path) -> PathBuf {
    data_dir.join("jail")
}

/// The jail of one VM.
pub(super) struct Confined<'a> {
    jail: &'a Jail,
    base: PathBuf,
    /// Where a base of the spec's own is written down.
    note: Option<PathBuf>,
    /// The VM's directory below the base.
    pub(super) directory: PathBuf,
    pub(super) jailer: Jailer,
    pub(super) cgroup: Option<PathBuf>,
}

/// The jail of the VM, if it is to have one.
pub(super) fn confined<'a>(
    spec: &'a MicroVmSpec,
    context: &Context<'_>,
) -> Result<Option<Confined<'a>>> {
    let Some(jail) = spec.jail.as_ref() else {
        return Ok(None);
    };
    let Some(host) = &context.jail else {
        return match jail.mode.unwrap_or_default() {
            JailMode::Required => {
                let message = "a jail is required, and the jailer needs root rights";
                Err(Error::new(ErrorKind::Host, message)
                    .hint("run as root, or take `mode: auto` (--jail auto)"))
            }
            JailMode::Auto | JailMode::Off => Ok(None),
        };
    };
    if !jailed(spec, true) {
        return Ok(None);
    }
    let base = jail
        .chroot_base
        .clone()
        .unwrap_or_else(|| host.chroot_base.to_owned());
    let id = context.id.as_str();
    let limits = jail.resource_limits.as_ref();
    let limit = |name: &str, value: Option<u64>| value.map(|value| format!("{name}={value}"));
    let resource_limits = [
        limit("fsize", limits.and_then(|it| it.file_size_bytes)),
        limit("no-file", limits.and_then(|it| it.open_files)),
    ];
    let limited = jail
        .cgroup
        .as_ref()
        .is_some_and(|limits| !jail::cgroup_settings(limits).is_empty());
    Ok(Some(Confined {
        jail,
        directory: jailer::directory(&base, context.firecracker, id),
        jailer: Jailer {
            executable: host.jailer.to_owned(),
            id: id.to_owned(),
            chroot_base: base.clone(),
            net_ns: jail.net_ns.clone(),
            new_pid_ns: jail.new_pid_ns.unwrap_or(false),
            resource_limits: resource_limits.into_iter().flatten().collect(),
        },
        note: jail::note(host.chroot_base, &base),
        base,
        cgroup: limited.then(|| Path::new(PARENT_CGROUP).join(id)),
    }))
}

impl Confined<'_> {
    /// What comes before all that is put into the jail.
    pub(super) fn steps(&self, context: &Context<'_>) -> Vec<Step> {
        let (first, count) = DEFAULT_IDS;
        let uids = self.jail.uid_range.unwrap_or(IdRange { first, count });
        let (vm, runtime_dir) = (context.id.to_string(), context.runtime_dir.to_owned());
        let mut steps = vec![
            Step::Jail(JailStep::LeaseIds {
                leases: jail::leases(&self.base),
                uids,
                gids: self.jail.gid_range.unwrap_or(uids),
                vm: vm.clone(),
                runtime_dir: runtime_dir.clone(),
            }),
            Step::Jail(JailStep::MakeChroot {
                path: self.directory.clone(),
                vm,
                runtime_dir,
                note: self.note.clone(),
            }),
        ];
        if let (Some(path), Some(limits)) = (&self.cgroup, &self.jail.cgroup) {
            steps.push(Step::Jail(JailStep::MakeCgroup {
                path: path.clone(),
                settings: jail::cgroup_settings(limits),
            }));
        }
        steps
    }
}
