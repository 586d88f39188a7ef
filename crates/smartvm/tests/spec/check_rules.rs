//! What needs the host: a host that lacks it, and the problem with its place and kind.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::{Value, json};
use smartvm::ErrorKind;
use smartvm::host::{Access, CheckContext, CpuVendor, HostFacts, Kvm, check};
use smartvm::spec::{self, Arch, Format, MicroVmSpec, RuntimeOptions};
use smartvm::validate::{ValidateContext, validate};

struct Host {
    dir: tempfile::TempDir,
    facts: HostFacts,
    context: CheckContext,
    spec: Value,
}

impl Host {
    /// A host that can run a spec with everything, and that spec.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        // The smallest whole executable: a header, and one segment of nothing.
        let mut kernel = vec![0; 120];
        kernel[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        kernel[16] = 2;
        kernel[18] = 62;
        kernel[20] = 1;
        kernel[32] = 64;
        kernel[52] = 64;
        kernel[54] = 56;
        kernel[56] = 1;
        kernel[64] = 1;
        fs::write(at("vmlinux"), kernel).unwrap();
        fs::write(at("initrd"), "x").unwrap();
        fs::write(at("root.img"), "x").unwrap();
        let tap = dir.path().join("net/tap0");
        fs::create_dir_all(&tap).unwrap();
        fs::write(tap.join("tun_flags"), "0x1802\n").unwrap();
        fs::write(tap.join("owner"), "-1\n").unwrap();
        fs::create_dir(at("staging")).unwrap();

        let mut facts = HostFacts::gather_at(Path::new("/nowhere"), &[]);
        facts.arch = Some(Arch::X86_64);
        facts.kernel = "6.1.0".into();
        facts.kvm = Kvm::Usable;
        facts.tun = Access::Usable;
        facts.cpu.vendor = CpuVendor::Intel;
        facts.huge_pages.free = 128;
        facts.cgroup_controllers = Some(Vec::new());
        facts.euid = 0;
        let mut context = CheckContext::default();
        context.sys_class_net = dir.path().join("net");
        let spec = json!({
            "bootSource": {"kernelImagePath": at("vmlinux"), "initrdPath": at("initrd")},
            "machineConfig": {"vcpuCount": 1, "memSizeMib": 256, "cpuTemplate": "T2", "hugePages": "2M"},
            "drives": [{"driveId": "root", "pathOnHost": at("root.img"), "isRootDevice": true, "ioEngine": "Async"}],
            "networkInterfaces": [{"ifaceId": "eth0", "hostDevName": "tap0"}],
            "vsock": {"guestCid": 3, "udsPath": at("v.sock")},
            "logger": {"logPath": at("log")},
            "metrics": {"metricsPath": at("metrics")},
            "serial": {"path": at("console")},
            "stagingDir": at("staging"),
            "jail": {"mode": "required", "cgroup": {}}
        });
        Self {
            dir,
            facts,
            context,
            spec,
        }
    }

    fn set(&mut self, pointer: &str, value: Value) {
        *self.spec.pointer_mut(pointer).unwrap() = value;
    }

    fn path(&self, name: &str) -> Value {
        json!(self.dir.path().join(name))
    }

    fn problems(&self, arch: Arch) -> Vec<(String, ErrorKind)> {
        let spec: MicroVmSpec = spec::load(&self.spec.to_string(), Format::Json).unwrap();
        let context = ValidateContext::new(arch, RuntimeOptions::default());
        let spec = validate(&spec, &context).unwrap();
        match check(&spec, &self.facts, &self.context) {
            Ok(()) => Vec::new(),
            Err(problems) => problems.into_iter().map(|it| (it.path, it.kind)).collect(),
        }
    }
}

type Fault = fn(&mut Host);

#[test]
fn a_host_that_has_everything_runs_everything() {
    assert_eq!(Host::new().problems(Arch::X86_64), []);
}

#[test]
fn what_the_host_lacks_is_named_with_its_place_and_kind() {
    use ErrorKind::{Host as Unfit, Invalid, NotFound, WrongState};
    #[rustfmt::skip]
    let table: Vec<(&str, Fault, &str, ErrorKind)> = vec![
        ("kernel missing", |it| it.set("/bootSource/kernelImagePath", it.path("no")), "bootSource.kernelImagePath", NotFound),
        ("kernel a directory", |it| it.set("/bootSource/kernelImagePath", it.path("staging")), "bootSource.kernelImagePath", Invalid),
        ("not a kernel", |it| it.set("/bootSource/kernelImagePath", it.path("initrd")), "bootSource.kernelImagePath", Invalid),
        ("initrd missing", |it| it.set("/bootSource/initrdPath", it.path("no")), "bootSource.initrdPath", NotFound),
        ("initrd empty", |it| fs::write(it.dir.path().join("initrd"), "").unwrap(), "bootSource.initrdPath", Invalid),
        ("drive missing", |it| it.set("/drives/0/pathOnHost", it.path("no")), "drives[0].pathOnHost", NotFound),
        ("drive a directory", |it| it.set("/drives/0/pathOnHost", it.path("staging")), "drives[0].pathOnHost", Invalid),
        ("drive a device of characters", |it| it.set("/drives/0/pathOnHost", json!("/dev/null")), "drives[0].pathOnHost", Invalid),
        ("kernel too old for io_uring", |it| it.facts.kernel = "5.4.0".into(), "drives[0].ioEngine", Unfit),
        ("no vhost-user process", |it| it.set("/drives/0", json!({"driveId": "v", "isRootDevice": true, "socket": "/no"})), "drives[0].socket", NotFound),
        ("no tun", |it| it.facts.tun = Access::Missing, "networkInterfaces", Unfit),
        ("no such TAP", |it| it.set("/networkInterfaces/0/hostDevName", json!("tap1")), "networkInterfaces[0].hostDevName", NotFound),
        ("TAP in use", |it| fs::write(it.dir.path().join("net/tap0/carrier"), "1\n").unwrap(), "networkInterfaces[0].hostDevName", WrongState),
        ("vsock directory missing", |it| it.set("/vsock/udsPath", it.path("no/v.sock")), "vsock.udsPath", NotFound),
        ("vsock path taken", |it| it.set("/vsock/udsPath", it.path("initrd")), "vsock.udsPath", WrongState),
        ("stale socket", |it| drop(UnixListener::bind(it.dir.path().join("v.sock")).unwrap()), "vsock.udsPath", WrongState),
        ("log directory missing", |it| it.set("/logger/logPath", it.path("no/log")), "logger.logPath", NotFound),
        ("metrics a directory", |it| it.set("/metrics/metricsPath", it.path("staging")), "metrics.metricsPath", Invalid),
        ("serial directory missing", |it| it.set("/serial/path", it.path("no/x")), "serial.path", NotFound),
        ("staging missing", |it| it.set("/stagingDir", it.path("no")), "stagingDir", NotFound),
        ("staging a file", |it| it.set("/stagingDir", it.path("initrd")), "stagingDir", Invalid),
        ("template of another maker", |it| it.facts.cpu.vendor = CpuVendor::Amd, "machineConfig.cpuTemplate", Unfit),
        ("too few huge pages", |it| it.facts.huge_pages.free = 127, "machineConfig.hugePages", Unfit),
        ("no cgroup v2", |it| it.facts.cgroup_controllers = None, "jail.cgroup", Unfit),
        ("no root for the jailer", |it| it.facts.euid = 1000, "jail.mode", Unfit),
        ("network namespace missing", |it| it.set("/jail", json!({"netNs": "/no"})), "jail.netNs", NotFound),
        ("no KVM", |it| it.facts.kvm = Kvm::Missing, "", Unfit),
        ("KVM forbidden", |it| it.facts.kvm = Kvm::Forbidden, "", Unfit),
        ("KVM broken", |it| it.facts.kvm = Kvm::Broken("odd".into()), "", Unfit),
        ("KVM without hardware", |it| it.facts.kvm = Kvm::NoHardwareVirtualization, "", Unfit),
    ];
    for (name, fault, place, kind) in table {
        let mut host = Host::new();
        fault(&mut host);
        assert_eq!(
            host.problems(Arch::X86_64),
            [(place.to_owned(), kind)],
            "{name}"
        );
    }
}

#[test]
fn assume_kvm_is_about_hardware_virtualization_and_nothing_else() {
    let mut host = Host::new();
    host.context.assume_kvm = true;
    host.facts.kvm = Kvm::NoHardwareVirtualization;
    assert_eq!(host.problems(Arch::X86_64), []);
    host.facts.kvm = Kvm::Missing;
    assert_eq!(host.problems(Arch::X86_64).len(), 1);
}

#[test]
fn a_host_without_hardware_virtualization_names_the_emulated_host() {
    let mut host = Host::new();
    host.facts.kvm = Kvm::NoHardwareVirtualization;
    let spec: MicroVmSpec = spec::load(&host.spec.to_string(), Format::Json).unwrap();
    let spec = validate(&spec, &ValidateContext::default()).unwrap();
    let problems = check(&spec, &host.facts, &host.context).unwrap_err();
    let told = problems.to_string();
    assert!(
        told.contains("smartvm emulate -- ") && told.contains("--assume-kvm"),
        "{told}"
    );
}

#[test]
fn another_architecture_than_the_hosts_is_refused_here() {
    let mut host = Host::new();
    host.set("/machineConfig", json!({"vcpuCount": 1, "memSizeMib": 128}));
    let found = host.problems(Arch::Aarch64);
    let arch = (String::new(), ErrorKind::Host);
    assert!(found.contains(&arch), "{found:?}");
}

#[test]
fn a_socket_in_use_is_told_from_one_left_behind() {
    let host = Host::new();
    let listener = UnixListener::bind(host.dir.path().join("v.sock")).unwrap();
    let spec: MicroVmSpec = spec::load(&host.spec.to_string(), Format::Json).unwrap();
    let spec = validate(&spec, &ValidateContext::default()).unwrap();
    let told = || {
        check(&spec, &host.facts, &host.context)
            .unwrap_err()
            .to_string()
    };
    assert!(told().contains("is a socket in use"), "{}", told());
    drop(listener);
    assert!(told().contains("nobody listens on"), "{}", told());
}

#[test]
fn taps_in_another_network_namespace_are_not_looked_for_here() {
    let mut host = Host::new();
    host.set("/networkInterfaces/0/hostDevName", json!("tap9"));
    host.set("/jail", json!({"netNs": host.path("initrd")}));
    assert_eq!(host.problems(Arch::X86_64), []);
}
