use super::*;
use crate::host::{Cpu, CpuVendor, FirecrackerFacts, Kvm, Program};

/// A host without a fault.
fn sound() -> HostFacts {
    let mut facts = HostFacts::gather_at(std::path::Path::new("/nowhere"), &[]);
    facts.kernel = "6.1.0-56-amd64".into();
    facts.cpu = Cpu::parse("vendor_id : GenuineIntel\nmodel name : Xeon\nflags : vmx\n");
    facts.kvm = Kvm::Usable;
    facts.tun = Access::Usable;
    facts.userfaultfd = Access::Usable;
    facts.cgroup_controllers = Some(["cpu", "memory", "pids", "io"].map(Into::into).into());
    facts.open_files.hard = Some(65536);
    facts.ip_forward = true;
    facts
}

fn of(facts: &HostFacts, name: &str) -> Finding {
    let mut found = doctor(facts).into_iter().filter(|it| it.name == name);
    found.next().unwrap_or_else(|| panic!("no finding {name}"))
}

#[test]
fn a_sound_host_has_nothing_to_do() {
    for finding in doctor(&sound()) {
        assert_eq!(finding.status, Status::Ok, "{finding:?}");
        assert_eq!(finding.advice, "", "{finding:?}");
    }
}

#[test]
fn each_way_of_lacking_kvm_is_told_apart_with_its_own_advice() {
    let told = |kvm: Kvm| {
        let mut facts = sound();
        facts.kvm = kvm;
        let found = of(&facts, "kvm");
        assert_eq!(found.status, Status::Fail);
        found
    };
    let missing = told(Kvm::Missing);
    assert!(missing.found.contains("/dev/kvm is missing"), "{missing:?}");
    assert!(missing.advice.contains("modprobe"), "{missing:?}");
    let forbidden = told(Kvm::Forbidden);
    assert!(
        forbidden.found.contains("may not be opened"),
        "{forbidden:?}"
    );
    assert!(
        forbidden.advice.contains("usermod -aG kvm"),
        "{forbidden:?}"
    );
    let bare = told(Kvm::NoHardwareVirtualization);
    assert!(
        bare.found.contains("no hardware virtualization"),
        "{bare:?}"
    );
    assert!(bare.advice.contains("smartvm emulate -- "), "{bare:?}");
    let broken = told(Kvm::Broken("odd".into()));
    assert!(broken.found.contains("odd"), "{broken:?}");
}

#[test]
fn what_the_processor_shows_stands_beside_a_missing_kvm() {
    let mut facts = sound();
    facts.kvm = Kvm::Missing;
    facts.cpu.hardware_virtualization = false;
    assert!(of(&facts, "kvm").found.contains("neither vmx nor svm"));
    facts.cpu.is_guest = true;
    assert!(of(&facts, "kvm").found.contains("itself a virtual machine"));
    assert_eq!(facts.cpu.vendor, CpuVendor::Intel);
}

#[test]
fn every_fault_is_found_and_comes_with_advice() {
    type Fault = fn(&mut HostFacts);
    let faults: [(&str, Fault); 15] = [
        ("kernel", |it| it.kernel = "4.19.0".into()),
        ("kernel", |it| it.kernel = String::new()),
        ("tun", |it| it.tun = Access::Missing),
        ("tun", |it| it.tun = Access::Forbidden),
        ("userfaultfd", |it| {
            it.userfaultfd = Access::Broken("odd".into())
        }),
        ("swap", |it| it.memory.swap_kib = 1024),
        ("ksm", |it| it.ksm = true),
        ("smt", |it| it.smt = true),
        ("vulnerabilities", |it| {
            it.vulnerabilities = vec!["mds".into()]
        }),
        ("cgroup-v2", |it| it.cgroup_controllers = None),
        ("cgroup-v2", |it| {
            it.cgroup_controllers = Some(vec!["cpu".into()])
        }),
        ("open-files", |it| it.open_files.hard = Some(1024)),
        ("ip-forward", |it| it.ip_forward = false),
        ("nft", |it| {
            it.programs = vec![Program {
                name: "nft".into(),
                purpose: "networks".into(),
                path: None,
                version: None,
            }];
        }),
        ("firecracker", |it| {
            it.firecracker = Some(FirecrackerFacts {
                path: "/bin/fc".into(),
                version: Some("1.12.1".into()),
                jailer_version: Some("1.11.0".into()),
            });
        }),
    ];
    for (name, fault) in faults {
        let mut facts = sound();
        fault(&mut facts);
        let found = of(&facts, name);
        assert_eq!(found.status, Status::Warn, "{found:?}");
        assert!(!found.advice.is_empty(), "{found:?}");
    }
}

#[test]
fn directories_are_judged_by_space_and_by_who_may_exchange_them() {
    let mut facts = sound();
    facts.dirs = vec![crate::host::DirFacts {
        path: "/srv/vm".into(),
        free_bytes: Some(5 << 20),
        unsafe_part: Some("/srv".into()),
    }];
    let space = of(&facts, "space");
    assert_eq!(
        (space.status, space.found.as_str()),
        (Status::Warn, "/srv/vm: 5 MiB free")
    );
    assert!(of(&facts, "directory").found.contains("/srv"));
}
