//! Messages of nfnetlink: a family, and attributes; and the socket for them.

use std::io;
use std::sync::{Mutex, PoisonError};

use netlink_packet_core::{
    DefaultNla, Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator,
    Parseable,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::namespace::Namespace;
use super::netlink::Socket;

/// This process's socket, and the network namespace that it belongs to.
///
/// It is kept: the kernel closes none before everything that was deleted from the tables is let
/// go of, and lets nobody change them meanwhile. That takes longer than all else that is done for
/// a guest that goes.
static SOCKET: Mutex<Option<(Namespace, Socket)>> = Mutex::new(None);

/// Asks something of the network namespace that this thread is in, by the process's socket.
pub(super) fn ask<T>(
    namespace: Namespace,
    ask: impl FnOnce(&mut Socket) -> io::Result<T>,
) -> io::Result<T> {
    let mut slot = SOCKET.lock().unwrap_or_else(PoisonError::into_inner);
    // Taken out: after a failure there may be more to be read than anybody waits for.
    let mut socket = match slot.take() {
        Some((of, socket)) if of == namespace => socket,
        _ => Socket::open(NETLINK_NETFILTER)?,
    };
    let answer = ask(&mut socket)?;
    *slot = Some((namespace, socket));
    Ok(answer)
}

/// A part of netfilter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Subsystem {
    Conntrack = 1,
    Tables = 10,
}

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Family {
    Inet = 1,
    Ipv4 = 2,
    Bridge = 7,
}

/// Family, version 0, resource: the header of every message.
const HEADER_BYTES: usize = 4;

// linux/netfilter/nfnetlink.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// One message.
#[derive(Debug, Clone)]
pub(super) struct Message {
    kind: u16,
    /// The header, then the attributes.
    body: Vec<u8>,
}

impl Message {
    pub(super) fn new(
        subsystem: Subsystem,
        kind: u8,
        family: Family,
        attributes: &[DefaultNla],
    ) -> Self {
        let mut body = vec![0; HEADER_BYTES + attributes.buffer_len()];
        body[0] = family as u8;
        attributes.emit(&mut body[HEADER_BYTES..]);
        Self {
            kind: u16::from_be_bytes([subsystem as u8, kind]),
            body,
        }
    }

    /// What begins a transaction of the tables, and what ends it.
    pub(super) fn batch() -> [Self; 2] {
        [BATCH_BEGIN, BATCH_END].map(|kind| Self {
            kind,
            body: vec![0, 0, 0, Subsystem::Tables as u8],
        })
    }

    /// Its attributes, up to the first that is none.
    pub(super) fn attributes(&self) -> impl Iterator<Item = DefaultNla> {
        let bytes = self.body.get(HEADER_BYTES..).unwrap_or_default();
        NlasIterator::new(bytes)
            .map_while(|one| one.ok())
            .map_while(|one| DefaultNla::parse(&one).ok())
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Message {
    type Error = io::Error;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> io::Result<Self> {
        Ok(Self {
            kind: header.message_type,
            body: payload.to_vec(),
        })
    }
}
