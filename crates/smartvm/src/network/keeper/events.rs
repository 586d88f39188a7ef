//! What the kernel tells of changes to networks.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags};

use super::filter;
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
    links: Links,
}

impl Events {
    /// `guests` is how the names of guests' own devices begin, which come and go.
    pub(super) fn listen(guests: &[String]) -> Result<Self> {
        let failed = |e| Error::new(ErrorKind::Host, "listening to changes of networks").because(e);
        let route = open(NETLINK_ROUTE, &ROUTE_GROUPS).map_err(failed)?;
        let nftables = open(NETLINK_NETFILTER, &[NFTABLES_GROUP]).ok();
        let filtered = filter::without_devices(&route, guests);
        let filtered = filtered.and(nftables.as_ref().map_or(Ok(()), filter::without_elements));
        if let Err(e) = filtered {
            tracing::debug!("changes that don't matter are told, too: {e}");
        }
        Ok(Self {
            route,
            nftables,
            links: Links::default(),
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
        let links = &mut self.links;
        let mut any = drain(&self.route, |bytes| links.matter(bytes, names));
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

fn drain(socket: &Socket, mut matters: impl FnMut(&[u8]) -> bool) -> bool {
    let mut any = false;
    loop {
        match socket.recv_from_full() {
            Ok((bytes, _)) => {
                // Each is looked at: it may say what is compared with the next.
                any |= messages(&bytes).filter(|one| matters(one)).count() > 0;
            }
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

/// The links that matter, as they were told of last.
#[derive(Default)]
struct Links(HashMap<String, Link>);

/// What of a link matters. A bridge tells of itself with each guest that comes or goes.
#[derive(PartialEq)]
struct Link {
    index: u32,
    up: bool,
    attributes: Vec<LinkAttribute>,
}

impl Links {
    /// Whether a message of rtnetlink's tells of something that may matter.
    fn matter(&mut self, bytes: &[u8], names: &[String]) -> bool {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else {
            return true;
        };
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                // Guests' own devices come and go.
                let Some(name) = name_of(&link).filter(|name| names.contains(name)) else {
                    return false;
                };
                let now = Link::of(link);
                self.0.get(&name) != Some(&now) && {
                    self.0.insert(name, now);
                    true
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                let name = name_of(&link).filter(|name| names.contains(name));
                name.is_some_and(|name| {
                    self.0.remove(&name);
                    true
                })
            }
            _ => true,
        }
    }
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
}

impl Link {
    fn of(link: LinkMessage) -> Self {
        let matters = |attribute: &LinkAttribute| {
            matches!(
                attribute,
                LinkAttribute::IfAlias(_)
                    | LinkAttribute::Address(_)
                    | LinkAttribute::Controller(_)
                    | LinkAttribute::Mtu(_)
            )
        };
        Self {
            index: link.header.index,
            up: link.header.flags.contains(LinkFlags::Up),
            attributes: link.attributes.into_iter().filter(matters).collect(),
        }
    }
}

fn nftables_matters(bytes: &[u8]) -> bool {
    let kind = bytes
        .get(4..6)
        .and_then(|kind| kind.try_into().ok())
        .map_or(0, u16::from_ne_bytes);
    kind >> 8 == NFTABLES && TELLING.contains(&(kind & 0xff))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkHeader;

    use super::*;

    fn told(message: RouteNetlinkMessage) -> Vec<u8> {
        let payload = NetlinkPayload::InnerMessage(message);
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn link(name: &str, flags: LinkFlags) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = 4;
        link.header.flags = flags;
        link.attributes = vec![LinkAttribute::IfName(name.into())];
        link
    }

    #[test]
    fn only_changes_of_links_that_matter_are_looked_into() {
        let mut links = Links::default();
        let mut matter = |message| links.matter(&told(message), &["svbr0".into()]);
        let up = || link("svbr0", LinkFlags::Up);
        assert!(!matter(RouteNetlinkMessage::NewLink(link(
            "tap0",
            LinkFlags::Up
        ))));
        assert!(matter(RouteNetlinkMessage::NewLink(up())), "the first");
        let guest = link("svbr0", LinkFlags::Up | LinkFlags::LowerUp);
        assert!(!matter(RouteNetlinkMessage::NewLink(guest)), "of a guest");
        let mut marked = up();
        marked
            .attributes
            .push(LinkAttribute::IfAlias("mine".into()));
        assert!(matter(RouteNetlinkMessage::NewLink(marked)), "another's");
        assert!(matter(RouteNetlinkMessage::NewLink(link(
            "svbr0",
            LinkFlags::empty()
        ))));
        assert!(!matter(RouteNetlinkMessage::DelLink(link(
            "tap0",
            LinkFlags::Up
        ))));
        assert!(matter(RouteNetlinkMessage::DelLink(up())));
        assert!(matter(RouteNetlinkMessage::NewLink(up())), "made again");
    }
}
