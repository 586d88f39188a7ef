//! What passes a namespace's devices, frame by frame.

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};

/// ETH_P_ALL, in the order of the network's bytes.
const ALL: u32 = 0x0300;
/// So that a burst isn't lost.
const BUFFER: usize = 4 << 20;

/// All frames of all devices in the namespace of the thread that began it. One that crosses
/// several devices is seen at each of them.
pub(crate) struct Capture(OwnedFd);

impl Capture {
    pub(crate) fn begin() -> Self {
        let socket = rustix::net::socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            NonZeroU32::new(ALL).map(Protocol::from_raw),
        )
        .unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BUFFER).unwrap();
        Self(socket)
    }

    /// What was seen since the last call.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while let Ok((length, _)) =
            rustix::net::recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty())
        {
            frames.push(buffer[..length].to_vec());
        }
        frames
    }
}
