//! Messages of nfnetlink: a family, and attributes.

use std::io;

use netlink_packet_core::{
    DefaultNla, Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator,
    Parseable,
};

/// A part of netfilter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Subsystem {
    Conntrack = 1,
}

/// AF_INET, version 0, no resource: the header of every message.
const HEADER: [u8; 4] = [2, 0, 0, 0];

/// One message.
#[derive(Debug, Clone)]
pub(super) struct Message {
    kind: u16,
    /// The header, then the attributes.
    body: Vec<u8>,
}

impl Message {
    pub(super) fn new(subsystem: Subsystem, kind: u8, attributes: &[DefaultNla]) -> Self {
        let mut body = vec![0; HEADER.len() + attributes.buffer_len()];
        body[..HEADER.len()].copy_from_slice(&HEADER);
        attributes.emit(&mut body[HEADER.len()..]);
        Self {
            kind: u16::from_be_bytes([subsystem as u8, kind]),
            body,
        }
    }

    /// Its attributes, up to the first that is none.
    pub(super) fn attributes(&self) -> impl Iterator<Item = DefaultNla> {
        let bytes = self.body.get(HEADER.len()..).unwrap_or_default();
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
