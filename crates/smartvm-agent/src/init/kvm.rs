//! A virtual machine without anything in it, held for as long as the kernel runs.
//!
//! With the first virtual machine that comes and the last that goes, the kernel rewrites the
//! instructions by which it goes from one task to another. An emulated processor (QEMU's TCG, with
//! a thread for each) may go on with what they were while they are rewritten, for ever: both
//! processors were seen to trap there without end, so that nothing else ran.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::log;

// linux/kvm.h: _IO(0xAE, 0x01)
const KVM_CREATE_VM: libc::c_ulong = 0xae01;

/// Makes it; without one, virtual machines run all the same. It is held until what this returns
/// is dropped.
pub(super) fn hold() -> Option<OwnedFd> {
    match make() {
        Ok(machine) => Some(machine),
        Err(error) => {
            log::info(&format!("holding a virtual machine by /dev/kvm: {error}"));
            None
        }
    }
}

fn make() -> io::Result<OwnedFd> {
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
    // SAFETY: takes a number, the kind of machine, and returns a descriptor of its own.
    match unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, 0) } {
        // SAFETY: the descriptor was made just now, for nobody else.
        machine @ 0.. => Ok(unsafe { OwnedFd::from_raw_fd(machine) }),
        _ => Err(io::Error::last_os_error()),
    }
}
