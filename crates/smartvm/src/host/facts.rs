//! What this host is and has.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::device::{self, Access};
use super::{Cpu, FirecrackerFacts, HugePagePool, Kvm, Memory, OpenFiles, Program};
use super::{programs, space};
use crate::spec::Arch;

/// Most of a file under /proc and /sys that is looked at: the first processors of many.
const MAX_FILE_BYTES: u64 = 16 << 10;

/// What this host is and has: plain data, gathered in a few milliseconds.
///
/// ```
/// use smartvm::host::{HostFacts, doctor};
///
/// let facts = HostFacts::gather(&[]);
/// for finding in doctor(&facts) {
///     println!("{}: {} {}", finding.name, finding.found, finding.advice);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HostFacts {
    /// Architecture; `None`: one that Firecracker doesn't run on.
    pub arch: Option<Arch>,
    /// Release of the kernel, such as `6.1.0-56-amd64`.
    pub kernel: String,
    /// The processor.
    pub cpu: Cpu,
    /// Whether KVM can run guests.
    pub kvm: Kvm,
    /// /dev/net/tun, which network interfaces need.
    pub tun: Access,
    /// /dev/userfaultfd, which restoring a snapshot page by page needs.
    pub userfaultfd: Access,
    /// Memory and swap.
    pub memory: Memory,
    /// The pool of huge pages of 2 MiB.
    pub huge_pages: HugePagePool,
    /// Whether the kernel merges equal pages (KSM), which tells guests about each other.
    pub ksm: bool,
    /// Whether two threads share a core (SMT), which tells guests about each other.
    pub smt: bool,
    /// Vulnerabilities of the processor that nothing is done against: the names of the files
    /// under /sys/devices/system/cpu/vulnerabilities. Empty after
    /// [`HostFacts::gather_to_check`].
    pub vulnerabilities: Vec<String>,
    /// Controllers of cgroup v2; `None`: there is no cgroup v2.
    pub cgroup_controllers: Option<Vec<String>>,
    /// Limit on file descriptors.
    pub open_files: OpenFiles,
    /// Whether IPv4 is forwarded.
    pub ip_forward: bool,
    /// Effective user id of this process.
    pub euid: u32,
    /// The directories asked about.
    pub dirs: Vec<DirFacts>,
    /// Programs; empty unless [`HostFacts::with_programs`] looked for them.
    pub programs: Vec<Program>,
    /// Firecracker and its jailer, where [`HostFacts::with_firecracker`] asked.
    pub firecracker: Option<FirecrackerFacts>,
}

/// What is known of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DirFacts {
    /// The directory; it may not exist yet.
    pub path: PathBuf,
    /// Free bytes of its file system.
    pub free_bytes: Option<u64>,
    /// The directory itself or one above it that others than its owner may write to (without
    /// the sticky bit), or that is owned by neither root nor this user.
    pub unsafe_part: Option<PathBuf>,
}

impl HostFacts {
    /// The facts of this host, and of these directories.
    pub fn gather(dirs: &[&Path]) -> Self {
        Self::gather_at(Path::new("/"), dirs)
    }

    /// The facts that can keep a microVM from running: all but the vulnerabilities, which take
    /// longer to look up than all else together.
    pub fn gather_to_check(dirs: &[&Path]) -> Self {
        Self::without_vulnerabilities(Path::new("/"), dirs)
    }

    /// The facts that the /proc, /sys and /dev under `root` tell.
    pub fn gather_at(root: &Path, dirs: &[&Path]) -> Self {
        Self {
            vulnerabilities: vulnerabilities(&root.join("sys/devices/system/cpu/vulnerabilities")),
            ..Self::without_vulnerabilities(root, dirs)
        }
    }

    fn without_vulnerabilities(root: &Path, dirs: &[&Path]) -> Self {
        let text = |path: &str| read(&root.join(path));
        let cpu = cpu(root);
        let euid = rustix::process::geteuid().as_raw();
        Self {
            arch: Arch::host(),
            kernel: text("proc/sys/kernel/osrelease").trim().to_owned(),
            kvm: Kvm::probe(&root.join("dev/kvm"), cpu.hardware_virtualization),
            cpu,
            tun: device::access(&root.join("dev/net/tun")),
            userfaultfd: device::access(&root.join("dev/userfaultfd")),
            memory: Memory::parse(&text("proc/meminfo")),
            huge_pages: HugePagePool {
                total: number(&text(
                    "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
                )),
                free: number(&text(
                    "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
                )),
            },
            ksm: text("sys/kernel/mm/ksm/run").trim() == "1",
            smt: text("sys/devices/system/cpu/smt/active").trim() == "1",
            vulnerabilities: Vec::new(),
            cgroup_controllers: controllers(&root.join("sys/fs/cgroup/cgroup.controllers")),
            open_files: OpenFiles::gather(),
            ip_forward: text("proc/sys/net/ipv4/ip_forward").trim() == "1",
            euid,
            dirs: dirs.iter().map(|dir| DirFacts::gather(dir, euid)).collect(),
            programs: Vec::new(),
            firecracker: None,
        }
    }

    /// Looks for programs and asks for their versions, which takes some 10 milliseconds each.
    #[must_use]
    pub fn with_programs(mut self) -> Self {
        self.programs = programs::gather(&std::env::var_os("PATH").unwrap_or_default());
        self
    }

    /// Asks this Firecracker, and the jailer beside it, for their versions.
    #[must_use]
    pub fn with_firecracker(mut self, binary: &Path) -> Self {
        self.firecracker = Some(FirecrackerFacts::gather(binary));
        self
    }

    /// The first two numbers of the kernel's release.
    pub fn kernel_version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.kernel.split(|it: char| !it.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl DirFacts {
    fn gather(dir: &Path, euid: u32) -> Self {
        Self {
            path: dir.to_owned(),
            free_bytes: space::measure(dir).ok().map(|(_, free)| free),
            unsafe_part: unsafe_part(dir, euid),
        }
    }
}

/// The topmost directory on the way to `dir` through which others could exchange it.
pub(crate) fn unsafe_part(dir: &Path, euid: u32) -> Option<PathBuf> {
    let mut ancestors: Vec<&Path> = dir.ancestors().collect();
    ancestors.reverse();
    ancestors
        .into_iter()
        .find(|part| {
            part.metadata().is_ok_and(|found| {
                let mode = found.permissions().mode();
                let foreign = found.uid() != 0 && found.uid() != euid;
                foreign || (mode & 0o022 != 0 && mode & 0o1000 == 0)
            })
        })
        .map(Path::to_owned)
}

/// The processor, which stays the same as long as this process runs; asking the kernel takes
/// longer than all the other facts together.
fn cpu(root: &Path) -> Cpu {
    static OURS: OnceLock<Cpu> = OnceLock::new();
    let ask = || Cpu::parse(&read(&root.join("proc/cpuinfo")));
    match root == Path::new("/") {
        true => OURS.get_or_init(ask).clone(),
        false => ask(),
    }
}

/// The start of a file; empty where it can't be read, which is a fact like any other.
fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What was read before an error counts.
        let _ = file.take(MAX_FILE_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

fn controllers(path: &Path) -> Option<Vec<String>> {
    path.exists()
        .then(|| read(path).split_whitespace().map(str::to_owned).collect())
}

fn vulnerabilities(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| read(&entry.path()).starts_with("Vulnerable"))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
#[path = "facts_tests.rs"]
mod tests;
