//! Is this host fit: each fact, what it means, and what to do about it.

use serde::{Deserialize, Serialize};

use super::check::kvm_problem;
use super::space::mib;
use super::{Access, HostFacts};

/// How a fact is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Works, with a risk or without a feature.
    Warn,
    /// No microVM can run.
    Fail,
}

/// One thing that the doctor looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// How it is judged.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where nothing needs to be done.
    pub advice: String,
}

/// Free space below which a data or runtime directory is worth a warning: 1 GiB.
const LITTLE_SPACE: u64 = 1 << 30;
/// File descriptors below which many microVMs run into the limit.
const FEW_FILES: u64 = 4096;
/// The oldest kernel that Firecracker is tested on.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// Judges the facts. The host is unfit if a finding has [`Status::Fail`].
pub fn doctor(facts: &HostFacts) -> Vec<Finding> {
    let mut found = vec![arch(facts), kvm(facts), kernel(facts)];
    found.extend([
        device(
            "tun",
            "/dev/net/tun",
            &facts.tun,
            "network interfaces",
            "modprobe tun",
        ),
        device(
            "userfaultfd",
            "/dev/userfaultfd",
            &facts.userfaultfd,
            "restoring snapshots page by page",
            "Linux 6.1 or newer with CONFIG_USERFAULTFD, or sysctl vm.unprivileged_userfaultfd=1",
        ),
    ]);
    found.extend(isolation(facts));
    found.extend([
        cgroup(facts),
        open_files(facts),
        huge_pages(facts),
        ip_forward(facts),
    ]);
    for dir in &facts.dirs {
        let free = dir.free_bytes.unwrap_or(0);
        let told = format!("{}: {} free", dir.path.display(), mib(free));
        found.push(judge(
            "space",
            free >= LITTLE_SPACE,
            told,
            "free some space there",
        ));
        if let Some(part) = &dir.unsafe_part {
            let told = format!("others may exchange what is in {}", part.display());
            let advice = "take the right to write away from others, up to the root directory";
            found.push(judge("directory", false, told, advice));
        }
    }
    found.extend(facts.firecracker.as_ref().map(firecracker));
    found.extend(facts.programs.iter().map(program));
    found
}

pub(crate) fn finding(
    name: &str,
    status: Status,
    found: impl Into<String>,
    advice: &str,
) -> Finding {
    let advice = match status {
        Status::Ok => String::new(),
        _ => advice.to_owned(),
    };
    Finding {
        name: name.to_owned(),
        status,
        found: found.into(),
        advice,
    }
}

pub(crate) fn judge(name: &str, fine: bool, found: impl Into<String>, advice: &str) -> Finding {
    let status = if fine { Status::Ok } else { Status::Warn };
    finding(name, status, found, advice)
}

fn arch(facts: &HostFacts) -> Finding {
    match facts.arch {
        Some(arch) => finding("architecture", Status::Ok, arch.as_str(), ""),
        None => {
            let advice = "Firecracker runs on x86_64 and aarch64 only";
            finding("architecture", Status::Fail, std::env::consts::ARCH, advice)
        }
    }
}

fn kvm(facts: &HostFacts) -> Finding {
    match kvm_problem(&facts.kvm, false) {
        None => finding(
            "kvm",
            Status::Ok,
            format!("usable, {}", facts.cpu.model),
            "",
        ),
        Some((problem, advice)) => {
            let found = match (facts.cpu.hardware_virtualization, facts.cpu.is_guest) {
                (false, true) => format!(
                    "{problem} (the processor shows neither vmx nor svm; this host is itself a \
                     virtual machine, whose hypervisor could pass them on)"
                ),
                (false, false) => format!("{problem} (the processor shows neither vmx nor svm)"),
                (true, _) => problem,
            };
            finding("kvm", Status::Fail, found, advice)
        }
    }
}

fn kernel(facts: &HostFacts) -> Finding {
    let fine = facts.kernel_version().is_some_and(|it| it >= OLDEST_KERNEL);
    judge(
        "kernel",
        fine,
        facts.kernel.clone(),
        "Linux 5.10 or newer, which Firecracker is tested on",
    )
}

fn device(name: &str, path: &str, access: &Access, purpose: &str, how: &str) -> Finding {
    let (fine, found, advice) = match access {
        Access::Usable => (true, format!("{path} opens"), String::new()),
        Access::Missing => (
            false,
            format!("{path} is missing: no {purpose}"),
            format!("where that is wanted: {how}"),
        ),
        Access::Forbidden => (
            false,
            format!("{path} may not be opened by this user: no {purpose}"),
            format!("where that is wanted, give this user the right to open {path}"),
        ),
        Access::Broken(why) => (
            false,
            format!("{path} can't be used ({why}): no {purpose}"),
            format!("where that is wanted: {how}"),
        ),
    };
    judge(name, fine, found, &advice)
}

/// What lets guests learn about each other, or their secrets outlive them.
fn isolation(facts: &HostFacts) -> [Finding; 4] {
    let vulnerable = facts.vulnerabilities.join(", ");
    let swap = facts.memory.swap_kib;
    [
        judge(
            "swap",
            swap == 0,
            match swap {
                0 => "off".into(),
                kib => format!("on, {}", mib(kib << 10)),
            },
            "guests' memory may be written to disk: swapoff -a, or encrypt the swap",
        ),
        judge(
            "ksm",
            !facts.ksm,
            on(facts.ksm),
            "equal pages tell guests about each other: echo 0 > /sys/kernel/mm/ksm/run",
        ),
        judge(
            "smt",
            !facts.smt,
            on(facts.smt),
            "threads on one core tell guests about each other, where guests don't trust each \
             other: echo off > /sys/devices/system/cpu/smt/control",
        ),
        judge(
            "vulnerabilities",
            vulnerable.is_empty(),
            match vulnerable.as_str() {
                "" => "none open".into(),
                names => format!("nothing is done against {names}"),
            },
            "newer microcode and kernel, and no mitigations=off on its command line",
        ),
    ]
}

fn on(state: bool) -> &'static str {
    if state { "on" } else { "off" }
}

fn cgroup(facts: &HostFacts) -> Finding {
    let wanted = ["cpu", "memory", "pids", "io"];
    let advice = "limits need cgroup v2 with these controllers: on the kernel's command line, \
                  systemd.unified_cgroup_hierarchy=1";
    match &facts.cgroup_controllers {
        None => judge("cgroup-v2", false, "missing: no limits on microVMs", advice),
        Some(controllers) => {
            let missing: Vec<&str> = wanted
                .into_iter()
                .filter(|name| !controllers.iter().any(|it| it == name))
                .collect();
            let found = match missing.as_slice() {
                [] => controllers.join(" "),
                missing => format!("without {}", missing.join(", ")),
            };
            judge("cgroup-v2", missing.is_empty(), found, advice)
        }
    }
}

fn open_files(facts: &HostFacts) -> Finding {
    let hard = facts.open_files.hard;
    let told = |limit: Option<u64>| limit.map_or("no limit".to_owned(), |it| it.to_string());
    let found = format!("{}, at most {}", told(facts.open_files.soft), told(hard));
    let advice = "many microVMs need more file descriptors: ulimit -n 65536";
    judge(
        "open-files",
        hard.is_none_or(|it| it >= FEW_FILES),
        found,
        advice,
    )
}

/// No pool is no fault: only a microVM that asks for huge pages needs one.
fn huge_pages(facts: &HostFacts) -> Finding {
    let pool = facts.huge_pages;
    let found = match pool.total {
        0 => "no pool (needed for `hugePages` only)".to_owned(),
        total => format!("{} of {total} pages of 2 MiB free", pool.free),
    };
    finding("huge-pages", Status::Ok, found, "")
}

fn ip_forward(facts: &HostFacts) -> Finding {
    judge(
        "ip-forward",
        facts.ip_forward,
        on(facts.ip_forward),
        "guests reach nothing beyond this host until it is on: sysctl net.ipv4.ip_forward=1, or \
         let the network's set-up switch it",
    )
}

fn firecracker(found: &super::FirecrackerFacts) -> Finding {
    let path = found.path.display();
    match (&found.version, &found.jailer_version) {
        (None, _) => finding(
            "firecracker",
            Status::Fail,
            format!("{path} doesn't tell its version"),
            "a Firecracker binary for this architecture",
        ),
        (Some(version), None) => judge(
            "firecracker",
            false,
            format!("{version} at {path}, no jailer beside it"),
            "put the jailer of the same version beside it",
        ),
        (Some(version), Some(jailer)) => judge(
            "firecracker",
            version == jailer,
            match version == jailer {
                true => format!("{version} at {path}, with its jailer"),
                false => format!("{version} at {path}, but the jailer is {jailer}"),
            },
            "put the jailer of the same version beside it",
        ),
    }
}

fn program(program: &super::Program) -> Finding {
    let version = program.version.as_deref().unwrap_or("of unknown version");
    match &program.path {
        Some(path) => {
            let found = format!("{version} at {}", path.display());
            finding(&program.name, Status::Ok, found, "")
        }
        None => judge(
            &program.name,
            false,
            format!("missing: needed for {}", program.purpose),
            "install it where that is wanted",
        ),
    }
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;
