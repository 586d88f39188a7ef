//! Facts about this host, and what they mean for a spec.
//!
//! [`HostFacts`] is plain data, gathered once. [`check()`] adds to
//! [`validate`](crate::validate) what needs the host, and [`doctor()`] judges the host by itself.

mod check;
mod cpu;
mod device;
mod doctor;
mod facts;
mod files;
mod jail;
mod kernel_image;
mod kvm;
mod limits;
mod memory;
mod programs;
mod space;
mod tap;

pub(crate) use check::require_kvm;
pub use check::{CheckContext, check};
pub use cpu::{Cpu, CpuVendor};
pub use device::Access;
pub use doctor::{Finding, Status, doctor};
#[cfg(feature = "network")]
pub(crate) use doctor::{finding as doctor_finding, judge as doctor_judge};
pub(crate) use facts::unsafe_part;
pub use facts::{DirFacts, HostFacts};
pub(crate) use jail::check_jail;
pub use jail::doctor_jail;
pub use kvm::Kvm;
pub use limits::OpenFiles;
pub use memory::{HugePagePool, Memory};
pub use programs::{FirecrackerFacts, Program};
pub use space::{SpaceNeed, check_space};

/// Checks a file that is to be put behind a drive of a running VM.
pub(crate) fn check_drive(path: &std::path::Path, write: bool) -> crate::Result<()> {
    files::input("pathOnHost", path, true, write)
        .map_err(|problem| crate::spec::Problems::from(problem).about("the drive's new file"))
}
