//! The processor.

use serde::{Deserialize, Serialize};

/// What is known of the processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Cpu {
    /// Who made it.
    pub vendor: CpuVendor,
    /// Its name, as far as the kernel tells it.
    pub model: String,
    /// Whether it can run guests by itself: the flags `vmx` or `svm`; on Arm, always said so,
    /// since its kernel offers /dev/kvm only then.
    pub hardware_virtualization: bool,
    /// Whether this host is itself a virtual machine, as its flag `hypervisor` says.
    pub is_guest: bool,
}

/// Makers of processors, as CPU templates tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum CpuVendor {
    /// Intel.
    Intel,
    /// AMD.
    Amd,
    /// Arm, or one who builds to its designs.
    Arm,
    /// Someone else.
    Other,
}

impl Cpu {
    /// From the text of /proc/cpuinfo; the first processor speaks for all.
    pub(super) fn parse(cpuinfo: &str) -> Self {
        let value = |name: &str| {
            cpuinfo
                .lines()
                .take_while(|line| !line.is_empty())
                .find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    (key.trim() == name).then(|| value.trim())
                })
        };
        let vendor = match value("vendor_id") {
            Some("GenuineIntel") => CpuVendor::Intel,
            Some("AuthenticAMD") => CpuVendor::Amd,
            None if value("CPU implementer").is_some() => CpuVendor::Arm,
            _ => CpuVendor::Other,
        };
        let flags: Vec<&str> = value("flags").unwrap_or("").split_whitespace().collect();
        Self {
            vendor,
            model: value("model name")
                .or(value("CPU part"))
                .unwrap_or("unknown")
                .to_owned(),
            hardware_virtualization: vendor == CpuVendor::Arm
                || flags.contains(&"vmx")
                || flags.contains(&"svm"),
            is_guest: flags.contains(&"hypervisor"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_whole_words() {
        let of = |flags: &str| Cpu::parse(&format!("vendor_id\t: GenuineIntel\nflags : {flags}\n"));
        assert!(of("fpu vmx sse").hardware_virtualization);
        assert!(of("svm").hardware_virtualization);
        assert!(!of("fpu svm_lock vmxoff hypervisor").hardware_virtualization);
        assert!(of("fpu hypervisor").is_guest);
    }

    #[test]
    fn the_first_processor_speaks_for_all() {
        let cpu =
            Cpu::parse("vendor_id: AuthenticAMD\nmodel name : EPYC 1\n\nmodel name: EPYC 2\n");
        assert_eq!((cpu.vendor, cpu.model.as_str()), (CpuVendor::Amd, "EPYC 1"));
        let arm = Cpu::parse("processor : 0\nCPU implementer : 0x41\nCPU part : 0xd40\n");
        assert_eq!(arm.vendor, CpuVendor::Arm);
        assert!(arm.hardware_virtualization);
    }
}
