//! KVM, without which there is no microVM.

use std::os::fd::AsFd;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::device::{self, Access};

/// The only version of KVM's interface that there has ever been since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// Whether KVM can run guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Kvm {
    /// There is no /dev/kvm, or nothing behind it.
    Missing,
    /// /dev/kvm is there, but this process may not open it.
    Forbidden,
    /// /dev/kvm can't be used for another reason, which is told.
    Broken(String),
    /// /dev/kvm opens, but the processor lacks `vmx` and `svm`: a paravirtual KVM, which runs
    /// guests made for it and not a stock kernel.
    NoHardwareVirtualization,
    /// It can run guests.
    Usable,
}

impl Kvm {
    /// Opens `path` and asks for the version of the interface.
    pub(super) fn probe(path: &Path, hardware_virtualization: bool) -> Self {
        let kvm = match device::open(path) {
            Ok(kvm) => kvm,
            Err(Access::Forbidden) => return Self::Forbidden,
            Err(Access::Broken(why)) => return Self::Broken(why),
            Err(_) => return Self::Missing,
        };
        // SAFETY: KVM_GET_API_VERSION takes no argument and writes nothing; the struct's
        // implementation says just that.
        let version = unsafe { rustix::ioctl::ioctl(kvm.as_fd(), GetApiVersion) };
        match version {
            Ok(API_VERSION) if hardware_virtualization => Self::Usable,
            Ok(API_VERSION) => Self::NoHardwareVirtualization,
            Ok(version) => Self::Broken(format!("its interface has version {version}, not 12")),
            Err(error) => Self::Broken(format!("asking it for its version: {error}")),
        }
    }
}

/// The ioctl KVM_GET_API_VERSION, whose result is its return value.
struct GetApiVersion;

// SAFETY: the opcode takes no argument (a null pointer is passed, which KVM demands), and only
// the return value is used.
unsafe impl rustix::ioctl::Ioctl for GetApiVersion {
    type Output = i32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> rustix::ioctl::Opcode {
        rustix::ioctl::opcode::none(0xae, 0x00)
    }

    fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(
        out: rustix::ioctl::IoctlOutput,
        _: *mut rustix::ffi::c_void,
    ) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_missing_node_from_one_that_is_not_kvm() {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("kvm");
        assert_eq!(Kvm::probe(&node, true), Kvm::Missing);
        std::fs::write(&node, "").unwrap();
        assert!(matches!(Kvm::probe(&node, true), Kvm::Broken(_)));
    }

    #[test]
    fn a_real_kvm_is_judged_by_the_processor() {
        let node = Path::new("/dev/kvm");
        if Kvm::probe(node, true) == Kvm::Usable {
            assert_eq!(Kvm::probe(node, false), Kvm::NoHardwareVirtualization);
        }
    }
}
