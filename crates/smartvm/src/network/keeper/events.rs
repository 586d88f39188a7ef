//! What the kernel tells of changes to networks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags};

use crate::error::{Error, ErrorKind, Result};
use crate::process::timespec;

/// Links, their addresses, routes and rules of IPv4 (RTNLGRP_…).
const ROUTE_GROUPS: [u32; 4] = [1, 5, 7, 8];
/// Tables of nftables (NFNLGRP_NFTABLES).
const NFTABLES_GROUP: u32 = 7;
/// NFNL_SUBSYS_NFTABLES: the upper half of a message's type.
const NFTABLES: u16 = 10;
/// What takes something away, or adds a rule: DELTABLE, DELCHAIN, NEWRULE, DELRULE. Elements of
/// sets come and go with guests.
const TELLING: [u16; 4] = [2, 5, 6, 8];
/// How long changes may go on before they are looked at anyway.
const ENOUGH: Duration = Duration::from_secs(1);

/// The sockets that tell.
pub(super) struct Events {
    route: Socket,
    /// Missing where the kernel doesn't tell this.
    nftables: Option<Socket>,
}

impl Events {
    pub(super) fn listen() -> Result<Self> {
        let failed = |e| Error::new(ErrorKind::Host, "listening to changes of networks").because(e);
        Ok(Self {
            route: open(NETLINK_ROUTE, &ROUTE_GROUPS).map_err(failed)?,
            nftables: open(NETLINK_NETFILTER, &[NFTABLES_GROUP]).ok(),
        })
    }

    /// Waits until something has changed that may matter, and changes have paused, or for so
    /// long at most.
    pub(super) fn wait(
        &mut self,
        names: &[String],
        at_most: Option<Duration>,
        settle: Duration,
    ) -> Result<()> {
        let began = Instant::now();
        let mut first = None;
        loop {
            let timeout = match first {
                Some(first) if Instant::elapsed(&first) > ENOUGH => return Ok(()),
                Some(_) => Some(settle),
                None => at_most.map(|most| most.saturating_sub(began.elapsed())),
            };
            if !self.poll(timeout)? {
                return Ok(());
            }
            if self.read(names) && first.is_none() {
                first = Some(Instant::now());
            }
        }
    }

    /// Whether something is to be read within this time.
    fn poll(&self, timeout: Option<Duration>) -> Result<bool> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.route.as_fd(), PollFlags::IN)];
        let more: Option<BorrowedFd<'_>> = self.nftables.as_ref().map(AsFd::as_fd);
        fds.extend(more.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match rustix::event::poll(&mut fds, timeout.map(timespec).as_ref()) {
            Ok(0) => Ok(false),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(true),
            Err(e) => Err(Error::new(ErrorKind::Io, "waiting for changes").because(e)),
        }
    }

    /// Reads all that there is; whether any of it may matter.
    fn read(&mut self, names: &[String]) -> bool {
        let matters = |bytes: &[u8]| route_matters(bytes, names);
        let mut any = drain(&self.route, matters);
        if let Some(nftables) = &self.nftables {
            any |= drain(nftables, nftables_matters);
        }
        any
    }
}

fn open(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    groups
        .iter()
        .try_for_each(|group| socket.add_membership(*group))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

fn drain(socket: &Socket, matters: impl Fn(&[u8]) -> bool) -> bool {
    let mut any = false;
    loop {
        match socket.recv_from_full() {
            Ok((bytes, _)) => any |= messages(&bytes).any(&matters),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return any,
            // More than fits was told at once: something has changed.
            Err(_) => return true,
        }
    }
}

/// The messages in what was received at once.
fn messages(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?);
        let length = usize::try_from(length).ok()?.max(16);
        let message = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn route_matters(bytes: &[u8], names: &[String]) -> bool {
    let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else {
        return true;
    };
    match message.payload {
        // Guests' own devices come and go.
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link),
        ) => link.attributes.iter().any(
            |attribute| matches!(attribute, LinkAttribute::IfName(name) if names.contains(name)),
        ),
        _ => true,
    }
}

fn nftables_matters(bytes: &[u8]) -> bool {
    let kind = bytes
        .get(4..6)
        .and_then(|kind| kind.try_into().ok())
        .map_or(0, u16::from_ne_bytes);
    kind >> 8 == NFTABLES && TELLING.contains(&(kind & 0xff))
}
