//! Devices as the kernel describes them. Of its hundreds of words on each, those that matter are
//! read: asking for one device is a good part of what is done for a guest.

use std::io;

use netlink_packet_core::{
    DefaultNla, Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator,
};

use crate::name::MacAddress;

// linux/rtnetlink.h, linux/if_link.h, linux/if.h
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const MASTER: u16 = 10;
const INFO: u16 = 18;
const ALIAS: u16 = 20;
const WANTED: u16 = 29;
const INFO_KIND: u16 = 1;
const INFO_PORT_KIND: u16 = 4;
const INFO_PORT: u16 = 5;
const PORT_ISOLATED: u16 = 33;
const UP: u32 = 1;
/// What devices have counted is not wanted.
const NO_STATISTICS: u32 = 1 << 3;

/// Family, type, index, flags, their mask.
const HEADER_BYTES: usize = 16;
const INDEX: std::ops::Range<usize> = 4..8;
const FLAGS: std::ops::Range<usize> = 8..12;

/// A device as the kernel describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    /// Who it belongs to, where it was marked (`ip link` shows it as the alias).
    pub(crate) alias: Option<String>,
    pub(crate) address: Vec<u8>,
    pub(crate) master: Option<u32>,
    /// `bridge`, `tun`, `veth`; none for a real one.
    pub(crate) kind: Option<String>,
    /// Whether it is a bridge's port that reaches no other such port.
    pub(crate) isolated: bool,
    /// In bytes.
    pub(crate) mtu: Option<u32>,
}

impl Device {
    /// Whether it carries our mark, or, not marked yet, the address that it was made with.
    pub(crate) fn is_ours(&self, mark: &str, mac: Option<MacAddress>) -> bool {
        match &self.alias {
            Some(alias) => alias == mark,
            None => mac.is_some_and(|mac| self.address == mac.bytes()),
        }
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let mut device = Self {
            index: number(body.get(INDEX)?)?,
            up: number(body.get(FLAGS)?)? & UP != 0,
            ..Self::default()
        };
        for (kind, value) in attributes(body.get(HEADER_BYTES..)?) {
            match kind {
                NAME => device.name = text(value),
                ALIAS => device.alias = Some(text(value)),
                ADDRESS => device.address = value.into(),
                MASTER => device.master = number(value),
                MTU => device.mtu = number(value),
                INFO => device.inform(value),
                _ => {}
            }
        }
        Some(device)
    }

    fn inform(&mut self, info: &[u8]) {
        let mut of_bridge = false;
        for (kind, value) in attributes(info) {
            match kind {
                INFO_KIND => self.kind = Some(text(value)),
                INFO_PORT_KIND => of_bridge = text(value) == "bridge",
                INFO_PORT if of_bridge => {
                    let mut port = attributes(value);
                    self.isolated = port.any(|one| one == (PORT_ISOLATED, &[1]));
                }
                _ => {}
            }
        }
    }
}

/// A message about devices.
#[derive(Debug)]
pub(super) enum Message {
    /// Asks for the device of this name, or else of this index; for all if there is neither.
    Asks { name: Option<String>, index: u32 },
    /// Tells of one.
    Tells(Device),
    /// Tells of something else.
    Other,
}

impl Message {
    fn attributes(&self) -> Vec<DefaultNla> {
        let Self::Asks { name, .. } = self else {
            return Vec::new();
        };
        let wanted = DefaultNla::new(WANTED, NO_STATISTICS.to_ne_bytes().into());
        let name = name.iter().map(|name| {
            let mut name = name.clone().into_bytes();
            name.push(0);
            DefaultNla::new(NAME, name)
        });
        name.chain([wanted]).collect()
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        GET_LINK
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES + self.attributes().as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(HEADER_BYTES);
        header.fill(0);
        if let Self::Asks { index, .. } = self {
            header[INDEX].copy_from_slice(&index.to_ne_bytes());
        }
        self.attributes().as_slice().emit(attributes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = io::Error;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> io::Result<Self> {
        match header.message_type {
            NEW_LINK => Device::parse(payload).map(Self::Tells).ok_or_else(|| {
                io::Error::other("the kernel's description of a device is cut short")
            }),
            _ => Ok(Self::Other),
        }
    }
}

/// Kinds and values, up to the first that is none.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes)
        .map_while(|one| one.ok())
        .map_while(|one| {
            let (kind, length) = (one.kind(), usize::from(one.length()));
            Some((kind, one.into_inner().get(HEADER..length)?))
        })
}

/// Of an attribute: its length and its kind.
const HEADER: usize = 4;

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// Up to its zero.
fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}
