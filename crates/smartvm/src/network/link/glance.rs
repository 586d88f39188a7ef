//! What is asked of a device by ioctl: that takes a tenth of what its whole description takes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::{Links, failed};
use crate::error::Result;
use crate::name::{IfName, MacAddress};
use crate::network::netlink::is_missing;

/// The number, the state and the address of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Glance {
    pub(crate) index: u32,
    pub(crate) up: bool,
    pub(crate) mac: MacAddress,
}

impl Links {
    /// Looks at the device of this name; `None` if there is none.
    pub(crate) fn glance(&self, name: &IfName) -> Result<Option<Glance>> {
        match glance(self.0.as_fd(), name) {
            Ok(found) => Ok(Some(found)),
            Err(e) if is_missing(&e) => Ok(None),
            Err(e) => Err(failed("looking at", name.as_str(), e)),
        }
    }
}

fn glance(socket: BorrowedFd<'_>, name: &IfName) -> io::Result<Glance> {
    let ask = |question| -> io::Result<libc::ifreq> {
        // SAFETY: all bytes zero is a valid value of this plain C structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // An `IfName` has at most 15 bytes, so that a zero follows.
        for (place, byte) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
            *place = libc::c_char::from_ne_bytes([byte]);
        }
        // SAFETY: these questions read and write an ifreq, which is borrowed for the call.
        match unsafe { libc::ioctl(socket.as_raw_fd(), question, &raw mut request) } {
            0.. => Ok(request),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let (index, flags, address) = (
        ask(libc::SIOCGIFINDEX)?,
        ask(libc::SIOCGIFFLAGS)?,
        ask(libc::SIOCGIFHWADDR)?,
    );
    // SAFETY: each question was answered in the part of the union that is its own.
    let (index, flags, address) = unsafe {
        (
            index.ifr_ifru.ifru_ifindex,
            flags.ifr_ifru.ifru_flags,
            address.ifr_ifru.ifru_hwaddr.sa_data,
        )
    };
    let [a, b, c, d, e, f, ..] = address.map(|byte| byte.to_ne_bytes()[0]);
    Ok(Glance {
        index: index.try_into().map_err(io::Error::other)?,
        up: libc::c_int::from(flags) & libc::IFF_UP != 0,
        mac: MacAddress::new([a, b, c, d, e, f]),
    })
}
