//! Processors and memory.

use super::report::{Report, quoted};
use crate::spec::{Arch, HugePages, MachineConfig};

/// Largest memory in MiB: 16 TiB. Far above what a host has, and below where counting in
/// bytes would wrap around.
const MAX_MEMORY_MIB: u64 = 1 << 24;

pub(super) fn check(machine: &MachineConfig, arch: Arch, report: &mut Report) {
    let vcpus = machine.vcpu_count;
    report.demand(
        (1..=32).contains(&vcpus),
        "machineConfig.vcpuCount",
        || format!("is {vcpus}"),
        "1 to 32",
    );
    let smt = machine.smt == Some(true);
    report.demand(
        !smt || arch == Arch::X86_64,
        "machineConfig.smt",
        || format!("isn't there on {arch}"),
        "false, or x86_64",
    );
    report.demand(
        !smt || vcpus == 1 || vcpus.is_multiple_of(2),
        "machineConfig.vcpuCount",
        || format!("is {vcpus} with `smt`, where two processors share a core"),
        "1 or an even number with `smt`",
    );
    memory(machine, report);
    if let Some(template) = &machine.cpu_template {
        let allowed = templates(arch);
        report.demand(
            allowed.contains(&template.as_str()),
            "machineConfig.cpuTemplate",
            || format!("{} isn't a CPU template of {arch}", quoted(template)),
            &allowed.join(", "),
        );
    }
}

fn memory(machine: &MachineConfig, report: &mut Report) {
    let memory = machine.mem_size_mib;
    report.demand(
        (1..=MAX_MEMORY_MIB).contains(&memory),
        "machineConfig.memSizeMib",
        || format!("is {memory}"),
        "1 to 16777216 MiB",
    );
    report.demand(
        machine.huge_pages != Some(HugePages::TwoMib) || memory.is_multiple_of(2),
        "machineConfig.memSizeMib",
        || format!("is {memory}, which isn't a whole number of huge pages"),
        "a multiple of 2 with `hugePages` 2M",
    );
}

fn templates(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &["C3", "T2", "T2S", "T2CL", "T2A", "None"],
        Arch::Aarch64 => &["V1N1", "None"],
    }
}
