//! What this machine can run.

use std::fs::File;

use crate::progress::say;

/// What matters of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Host {
    /// /dev/kvm opens.
    kvm: bool,
    /// The processor has hardware virtualization.
    hardware: bool,
    /// This process is root's.
    pub(crate) root: bool,
}

impl Host {
    /// Looks at this machine.
    pub(crate) fn look() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            kvm: File::options()
                .read(true)
                .write(true)
                .open("/dev/kvm")
                .is_ok(),
            hardware: has_virtualization(&read("/proc/cpuinfo")),
            root: effective_user(&read("/proc/self/status")) == Some(0),
        }
    }

    /// Why Linux guests don't run here, if they don't. A KVM without hardware virtualization (a
    /// paravirtual nested host's) can't do that.
    pub(crate) fn why_no_linux(self) -> Option<&'static str> {
        match (self.kvm, self.hardware) {
            (true, true) => None,
            (true, false) => Some("this machine's processor has no hardware virtualization"),
            (false, _) => Some("/dev/kvm doesn't open"),
        }
    }

    /// Why the host tier doesn't run here, if it doesn't: the tiny guest is enough for it.
    pub(crate) fn why_no_host_tier(self) -> Option<&'static str> {
        match (self.kvm, self.root) {
            (true, true) => None,
            (false, _) => Some("/dev/kvm doesn't open"),
            (true, false) => Some("this isn't root"),
        }
    }
}

/// Says why the emulated host stands in for this machine.
pub(crate) fn say_emulated(why: &str) {
    say(format_args!(
        "{why}: using the emulated host, many times slower than a real one"
    ));
}

/// Whether /proc/cpuinfo names Intel's or AMD's virtualization among the flags.
fn has_virtualization(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.trim() == "flags")
        .flat_map(|(_, flags)| flags.split_whitespace())
        .any(|flag| matches!(flag, "vmx" | "svm"))
}

/// The effective user that /proc/self/status names.
fn effective_user(status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualization_is_a_flag_of_its_own() {
        let with = "processor\t: 0\nflags\t\t: fpu vme svm nx\nbugs\t\t: sysret_ss_attrs\n";
        assert!(has_virtualization(with));
        assert!(has_virtualization("flags\t\t: fpu vmx\n"));
        let without = "model name\t: svm vmx\nflags\t\t: fpu svm_lock vmx2\nvmx flags\t: vnmi\n";
        assert!(!has_virtualization(without));
        assert!(!has_virtualization(""));
    }

    #[test]
    fn the_effective_user_is_the_second() {
        assert_eq!(
            effective_user("Name:\tx\nUid:\t1000\t0\t1000\t1000\n"),
            Some(0)
        );
        assert_eq!(effective_user("Name:\tx\n"), None);
    }
}
