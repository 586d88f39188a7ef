//! The conversations that the kernel remembers, by nfnetlink.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_core::{DefaultNla, NLA_TYPE_MASK, Nla, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::firewall::{Packet, Protocol};
use super::netfilter::{Family, Message, Subsystem};
use super::netlink::{Socket, is_missing};
use crate::error::{Error, ErrorKind, Result};

// linux/netfilter/nfnetlink_conntrack.h
const GET: u8 = 1;
const DELETE: u8 = 2;
const TUPLE_ORIG: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;

/// Has the kernel forget the conversations that guests of this subnet began and that are
/// `denied` now.
pub(super) fn end(subnet: Ipv4Net, denied: impl Fn(Ipv4Addr, Packet) -> bool) -> Result<()> {
    let failed = |e| Error::new(ErrorKind::Host, "ending denied conversations").because(e);
    let mut socket = Socket::open(NETLINK_NETFILTER).map_err(failed)?;
    let all = Message::new(Subsystem::Conntrack, GET, Family::Ipv4, &[]);
    let found: Vec<Message> = match socket.dump(all) {
        Ok(found) => found,
        // A kernel that can't tell its conversations: the rules hold all the same.
        Err(e) if is_unknown(&e) => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    for conversation in &found {
        let Some((guest, packet)) = first_packet(conversation) else {
            continue;
        };
        if !subnet.contains(&guest) || !denied(guest, packet) {
            continue;
        }
        let known = conversation.attributes();
        let named: Vec<_> = known
            .filter(|one| [TUPLE_ORIG, ID, ZONE].contains(&(one.kind() & NLA_TYPE_MASK)))
            .collect();
        let message = Message::new(Subsystem::Conntrack, DELETE, Family::Ipv4, &named);
        match socket.request(message, 0) {
            Err(e) if !is_missing(&e) => return Err(failed(e)),
            _ => {}
        }
    }
    Ok(())
}

fn is_unknown(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::OPNOTSUPP, Errno::INVAL, Errno::PROTONOSUPPORT]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Who began a conversation, and where it goes.
fn first_packet(conversation: &Message) -> Option<(Ipv4Addr, Packet)> {
    let mut known = conversation.attributes();
    let tuple = known.find(|one| one.kind() & NLA_TYPE_MASK == TUPLE_ORIG)?;
    let tuple = value(&tuple);
    let (ip, protocol) = (inner(&tuple, TUPLE_IP)?, inner(&tuple, TUPLE_PROTO)?);
    let address = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(inner(&ip, kind)?).ok()?));
    let port = || {
        let port = inner(&protocol, PROTO_DST_PORT)?.try_into().ok()?;
        Some(u16::from_be_bytes(port))
    };
    let packet = Packet {
        to: address(IP_V4_DST)?,
        protocol: match inner(&protocol, PROTO_NUM)?.first()? {
            6 => Protocol::Tcp(port()?),
            17 => Protocol::Udp(port()?),
            1 => Protocol::Icmp,
            _ => Protocol::Other,
        },
    };
    Some((address(IP_V4_SRC)?, packet))
}

fn inner(nest: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut inner = NlasIterator::new(nest).map_while(|one| one.ok());
    let found = inner.find(|one| one.kind() == kind)?;
    Some(found.value().to_vec())
}

fn value(attribute: &DefaultNla) -> Vec<u8> {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    value
}
