use std::fs;

use super::*;
use crate::host::CpuVendor;

/// A made-up host: files below a temporary directory.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

#[test]
fn an_empty_host_has_nothing() {
    let root = tree(&[]);
    let facts = HostFacts::gather_at(root.path(), &[]);
    assert_eq!(facts.kvm, Kvm::Missing);
    assert_eq!(facts.tun, Access::Missing);
    assert_eq!(facts.cgroup_controllers, None);
    assert_eq!(facts.cpu.vendor, CpuVendor::Other);
    assert_eq!(facts.kernel_version(), None);
}

#[test]
fn a_host_is_told_by_its_files() {
    let root = tree(&[
        (
            "proc/cpuinfo",
            "vendor_id : AuthenticAMD\nmodel name : EPYC\nflags : svm hypervisor\n",
        ),
        ("proc/sys/kernel/osrelease", "6.1.0-56-amd64\n"),
        (
            "proc/meminfo",
            "MemTotal: 8000 kB\nMemAvailable: 4000 kB\nSwapTotal: 1000 kB\n",
        ),
        ("proc/sys/net/ipv4/ip_forward", "1\n"),
        ("sys/kernel/mm/ksm/run", "1\n"),
        (
            "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
            "64\n",
        ),
        (
            "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
            "60\n",
        ),
        ("sys/devices/system/cpu/smt/active", "1\n"),
        (
            "sys/devices/system/cpu/vulnerabilities/mds",
            "Vulnerable: no microcode\n",
        ),
        (
            "sys/devices/system/cpu/vulnerabilities/l1tf",
            "Mitigation: PTE Inversion\n",
        ),
        ("sys/fs/cgroup/cgroup.controllers", "cpu io memory\n"),
        ("dev/net/tun", ""),
    ]);
    let facts = HostFacts::gather_at(root.path(), &[]);
    assert_eq!(facts.cpu.vendor, CpuVendor::Amd);
    assert!(facts.cpu.hardware_virtualization && facts.cpu.is_guest);
    assert_eq!(facts.kernel_version(), Some((6, 1)));
    assert_eq!(facts.memory.total_kib, 8000);
    assert_eq!(facts.memory.available_kib, 4000);
    assert_eq!(facts.memory.swap_kib, 1000);
    assert!(facts.ip_forward && facts.ksm && facts.smt);
    assert_eq!((facts.huge_pages.total, facts.huge_pages.free), (64, 60));
    assert_eq!(facts.vulnerabilities, ["mds"]);
    assert_eq!(facts.cgroup_controllers.unwrap(), ["cpu", "io", "memory"]);
    assert_eq!(facts.tun, Access::Usable);
    assert_eq!(facts.userfaultfd, Access::Missing);
}

#[test]
fn a_directory_that_others_may_exchange_is_named() {
    let root = tempfile::tempdir().unwrap();
    let open = root.path().join("open");
    let inner = open.join("inner");
    fs::create_dir_all(&inner).unwrap();
    let euid = rustix::process::geteuid().as_raw();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(unsafe_part(&inner, euid), Some(open.clone()));
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(unsafe_part(&inner, euid), None);
}

#[test]
fn facts_survive_being_written_down() {
    let facts = HostFacts::gather(&[Path::new("/tmp")]);
    let text = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<HostFacts>(&text).unwrap(), facts);
    assert!(facts.dirs[0].free_bytes.is_some());
}
