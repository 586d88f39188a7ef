//! Frames as they are, out of a device.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A device of the calling thread's namespace, to send by.
pub(crate) struct Wire {
    socket: OwnedFd,
    device: libc::sockaddr_ll,
}

// No library wraps packet sockets.
#[allow(unsafe_code)]
impl Wire {
    pub(crate) fn of(device: &str) -> Self {
        // SAFETY: a plain system call.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(socket >= 0, "{}", io::Error::last_os_error());
        // SAFETY: it was just made, and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let name = CString::new(device).unwrap();
        // SAFETY: all bytes zero is a valid value of this plain C structure.
        let mut device: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        device.sll_family = libc::AF_PACKET as u16;
        // SAFETY: the name is a C string.
        device.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
        Self { socket, device }
    }

    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: frame and address are borrowed for the call.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const self.device).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        match usize::try_from(sent) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}
