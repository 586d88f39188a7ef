//! TAP devices: by ioctl, as netlink can't make them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use crate::name::IfName;

const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb;
const TUNSETOWNER: libc::Ioctl = 0x4004_54cc;
const IFF_TAP: libc::c_short = 0x0002;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;
/// Refuses a name that is taken, instead of attaching to what has it.
const IFF_TUN_EXCL: libc::c_short = 0x8000_u16 as libc::c_short;

/// A new TAP device. Until it is kept, it goes away with this value, also when the process
/// dies.
#[derive(Debug)]
pub(super) struct Tap(File);

impl Tap {
    /// Makes it, for the user with this id.
    pub(super) fn make(name: &IfName, owner: u32) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")?;
        // SAFETY: all bytes zero is a valid value of this plain C structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // An `IfName` has at most 15 bytes, so that a zero follows.
        for (place, byte) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
            *place = libc::c_char::from_ne_bytes([byte]);
        }
        request.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL;
        // SAFETY: TUNSETIFF reads and writes an ifreq, which is borrowed for the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) })?;
        // SAFETY: TUNSETOWNER takes the user's id as its argument itself.
        check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOWNER, libc::c_ulong::from(owner)) })?;
        Ok(Self(file))
    }

    /// From now on it stays when its file is closed, which is returned.
    pub(super) fn keep(self) -> io::Result<File> {
        // SAFETY: TUNSETPERSIST takes 0 or 1 as its argument itself.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), TUNSETPERSIST, 1 as libc::c_ulong) })?;
        Ok(self.0)
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
