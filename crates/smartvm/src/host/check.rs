//! What needs the host: everything that would keep a valid spec from running here.

use std::path::{Path, PathBuf};

use super::{CpuVendor, HostFacts, Kvm, files, jail, kernel_image, tap};
use crate::ErrorKind;
use crate::spec::{
    Arch, Drive, HugePages, IoEngine, Problem, Problems, RuntimeOptions, SmartVmOptions,
};
use crate::validate::ValidSpec;
use crate::wiring::{HAS_NETWORK, NO_NETWORK, WITH_NETWORK, asked_for};

/// What [`check`] depends on besides the spec and the facts.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CheckContext {
    /// Take the host's KVM as it is, even without hardware virtualization.
    pub assume_kvm: bool,
    /// Whether drives are copied, which decides what must be writable.
    pub runtime: RuntimeOptions,
    /// Where the kernel lists network interfaces: /sys/class/net.
    pub sys_class_net: PathBuf,
    /// The directory of chroots, where the spec names none.
    pub chroot_base: PathBuf,
    /// VMs can't be jailed here, for want of root rights or of a jailer.
    pub no_jail: bool,
}

impl Default for CheckContext {
    fn default() -> Self {
        Self {
            assume_kvm: false,
            runtime: RuntimeOptions::default(),
            sys_class_net: "/sys/class/net".into(),
            chroot_base: crate::plan::chroot_base(SmartVmOptions::default().data_dir()),
            no_jail: false,
        }
    }
}

/// Checks what [`validate`](crate::validate::validate) can't: files, TAP devices, sockets, the
/// processor, KVM. Each problem's kind tells a wrong spec, a missing thing and an unfit host
/// apart. Space is checked by the plan, which knows what is copied: [`super::check_space`].
pub fn check(spec: &ValidSpec, facts: &HostFacts, context: &CheckContext) -> Result<(), Problems> {
    let mut problems = Problems::default();
    machine(spec, facts, context, &mut problems);
    let mut add = |result: Result<(), Problem>| problems.extend(result.err());
    boot_source(spec, &mut add);
    for (index, one) in spec.drives.iter().enumerate() {
        drive(one, &format!("drives[{index}]"), facts, context, &mut add);
    }
    interfaces(spec, facts, context, &mut add);
    if let Some(vsock) = &spec.vsock {
        add(files::new_socket("vsock.udsPath", &vsock.uds_path));
    }
    let outputs: [(&str, Option<&Path>); 3] = [
        (
            "logger.logPath",
            spec.logger.as_ref().map(|it| it.log_path.as_path()),
        ),
        (
            "metrics.metricsPath",
            spec.metrics.as_ref().map(|it| it.metrics_path.as_path()),
        ),
        (
            "serial.path",
            spec.serial.as_ref().map(|it| it.path.as_path()),
        ),
    ];
    for (field, path) in outputs {
        if let Some(path) = path {
            add(files::output(field, path));
        }
    }
    if let Some(dir) = &spec.staging_dir {
        add(files::directory("stagingDir", dir));
    }
    jail::check(spec, facts, context, &mut add);
    problems.into_result()
}

fn machine(spec: &ValidSpec, facts: &HostFacts, context: &CheckContext, problems: &mut Problems) {
    let mut host = |path: &str, problem: String, allowed: &str| {
        problems.push(Problem::new(path, problem, allowed).kind(ErrorKind::Host));
    };
    if facts.arch != Some(spec.arch()) {
        let found = facts.arch.map_or("another architecture", Arch::as_str);
        let problem = format!(
            "the microVM is for {}, and this host is {found}",
            spec.arch()
        );
        host("", problem, "the host's own architecture");
    } else if let Some((problem, advice)) = kvm_problem(&facts.kvm, context.assume_kvm) {
        host("", problem, advice);
    }
    let machine = &spec.machine_config;
    if let Some(template) = machine.cpu_template.as_deref()
        && let Some(vendor) = vendor_of(template)
        && vendor != facts.cpu.vendor
    {
        let problem = format!("{template} is for processors of another maker than this host's");
        let allowed = match facts.cpu.vendor {
            CpuVendor::Intel => "C3, T2, T2S, T2CL, None",
            CpuVendor::Amd => "T2A, None",
            CpuVendor::Arm => "V1N1, None",
            CpuVendor::Other => "None",
        };
        host("machineConfig.cpuTemplate", problem, allowed);
    }
    let pages = machine.mem_size_mib / 2;
    if machine.huge_pages == Some(HugePages::TwoMib) && facts.huge_pages.free < pages {
        let problem = format!(
            "needs {pages} huge pages of 2 MiB, and {} of {} are free",
            facts.huge_pages.free, facts.huge_pages.total
        );
        let advice = "less memory, or a larger pool: sysctl vm.nr_hugepages";
        host("machineConfig.hugePages", problem, advice);
    }
}

/// Refuses a host whose KVM can't run guests.
pub(crate) fn require_kvm(facts: &HostFacts, assume: bool) -> crate::Result<()> {
    match kvm_problem(&facts.kvm, assume) {
        None => Ok(()),
        Some((problem, advice)) => Err(crate::Error::new(ErrorKind::Host, problem).hint(advice)),
    }
}

/// What is wrong with the host's KVM, and what to do about it.
pub(super) fn kvm_problem(kvm: &Kvm, assume: bool) -> Option<(String, &'static str)> {
    match kvm {
        Kvm::Usable => None,
        Kvm::NoHardwareVirtualization if assume => None,
        Kvm::NoHardwareVirtualization => Some((
            "this host has no hardware virtualization: /dev/kvm opens, but a stock guest kernel \
             can't run on it"
                .into(),
            "a host with it; for development, run this in the emulated host: smartvm emulate -- \
             …; or --assume-kvm, if this KVM can run the kernel at hand",
        )),
        Kvm::Missing => Some((
            "this host has no KVM: /dev/kvm is missing".into(),
            "load the module (modprobe kvm_intel or kvm_amd) with virtualization switched on in \
             the firmware or in the hypervisor; for development, run this in the emulated host: \
             smartvm emulate -- …",
        )),
        Kvm::Forbidden => Some((
            "/dev/kvm may not be opened by this user".into(),
            "run as a member of the group that owns /dev/kvm (usermod -aG kvm USER, then log in \
             again), or as root; in a container, pass the device in",
        )),
        Kvm::Broken(why) => Some((
            format!("/dev/kvm can't be used: {why}"),
            "see what the kernel says about kvm in its log",
        )),
    }
}

fn vendor_of(template: &str) -> Option<CpuVendor> {
    match template {
        "C3" | "T2" | "T2S" | "T2CL" => Some(CpuVendor::Intel),
        "T2A" => Some(CpuVendor::Amd),
        "V1N1" => Some(CpuVendor::Arm),
        _ => None,
    }
}

fn boot_source(spec: &ValidSpec, add: &mut impl FnMut(Result<(), Problem>)) {
    const KERNEL: &str = "bootSource.kernelImagePath";
    let boot = &spec.boot_source;
    let readable = files::input(KERNEL, &boot.kernel_image_path, false, false);
    add(readable.and_then(|()| {
        kernel_image::check(&boot.kernel_image_path, spec.arch()).map_err(|(what, allowed)| {
            let problem = format!("{} {what}", boot.kernel_image_path.display());
            Problem::new(KERNEL, problem, allowed)
        })
    }));
    if let Some(initrd) = &boot.initrd_path {
        add(files::input("bootSource.initrdPath", initrd, false, false));
    }
}

fn drive(
    drive: &Drive,
    path: &str,
    facts: &HostFacts,
    context: &CheckContext,
    add: &mut impl FnMut(Result<(), Problem>),
) {
    if let Some(socket) = &drive.socket {
        add(files::served_socket(&format!("{path}.socket"), socket));
    }
    if let Some(image) = &drive.path_on_host {
        let write = !drive.read_only() && !drive.staged(&context.runtime);
        add(files::input(
            &format!("{path}.pathOnHost"),
            image,
            true,
            write,
        ));
    }
    let old = facts.kernel_version().is_some_and(|it| it < (5, 10));
    if drive.io_engine == Some(IoEngine::Async) && old {
        let problem = format!("Async needs Linux 5.10.51, and this is {}", facts.kernel);
        add(Err(Problem::new(
            format!("{path}.ioEngine"),
            problem,
            "Sync",
        )
        .kind(ErrorKind::Host)));
    }
}

fn interfaces(
    spec: &ValidSpec,
    facts: &HostFacts,
    context: &CheckContext,
    add: &mut impl FnMut(Result<(), Problem>),
) {
    if !spec.network_interfaces.is_empty() && facts.tun != super::Access::Usable {
        let problem = "this host has no usable /dev/net/tun, which network interfaces need";
        let advice = "load the module tun (modprobe tun); in a container, pass the device in";
        add(Err(
            Problem::new("networkInterfaces", problem, advice).kind(ErrorKind::Host)
        ));
    }
    if !HAS_NETWORK {
        for field in asked_for(spec) {
            add(Err(
                Problem::new(field, NO_NETWORK, WITH_NETWORK).kind(ErrorKind::Host)
            ));
        }
    }
    // In another network namespace its interfaces can't be seen from here.
    if spec.jail.as_ref().is_some_and(|jail| jail.net_ns.is_some()) {
        return;
    }
    for (index, interface) in spec.network_interfaces.iter().enumerate() {
        if let Some(name) = &interface.host_dev_name {
            let field = format!("networkInterfaces[{index}].hostDevName");
            let found = tap::check(&context.sys_class_net, name, facts.euid);
            add(found.map_err(|(kind, problem, advice)| {
                Problem::new(field, problem, advice).kind(kind)
            }));
        }
    }
}
