//! The elements by which the firewall knows guests, by nfnetlink: an `nft` process for each guest
//! would take longer than all else that is done for it.

use netlink_packet_core::{DefaultNla, Emitable, NLM_F_CREATE};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::VmPort;
use super::render::table;
use crate::error::{Error, ErrorKind, Result};
use crate::name::IfName;
use crate::network::netfilter::{Family, Message, Subsystem};
use crate::network::netlink::{Socket, is_missing};

// linux/netfilter/nf_tables.h
const GET_TABLE: u8 = 1;
const GET_CHAIN: u8 = 4;
const NEW_ELEMENT: u8 = 12;
const DELETE_ELEMENT: u8 = 14;
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEM: u16 = 1;
const ELEM_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;

/// The name of an interface in a set: with zeros behind it.
const NAME_BYTES: usize = 16;

/// The kernel's tables, as far as single things of them are looked at or changed.
pub(super) struct Tables {
    socket: Socket,
    bridge: IfName,
}

impl Tables {
    pub(super) fn open(bridge: &IfName) -> Result<Self> {
        let socket = Socket::open(NETLINK_NETFILTER);
        let socket = socket
            .map_err(|e| Error::new(ErrorKind::Host, "opening a netlink socket").because(e))?;
        Ok(Self {
            socket,
            bridge: bridge.clone(),
        })
    }

    /// Whether both tables are there.
    pub(super) fn are_there(&mut self) -> Result<bool> {
        let name = text(&table(&self.bridge));
        for family in [Family::Inet, Family::Bridge] {
            let attributes = [DefaultNla::new(TABLE_NAME, name.clone())];
            if !self.has(GET_TABLE, family, &attributes)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the table for IP has a chain.
    pub(super) fn has_chain(&mut self, chain: &str) -> Result<bool> {
        let attributes = [
            DefaultNla::new(CHAIN_TABLE, text(&table(&self.bridge))),
            DefaultNla::new(CHAIN_NAME, text(chain)),
        ];
        self.has(GET_CHAIN, Family::Inet, &attributes)
    }

    fn has(&mut self, kind: u8, family: Family, attributes: &[DefaultNla]) -> Result<bool> {
        let message = Message::new(Subsystem::Tables, kind, family, attributes);
        match self.socket.get(message) {
            Ok(found) => Ok(found.is_some()),
            Err(e) => Err(failed("looking at the firewall", e)),
        }
    }

    /// Has the bridge's table judge a guest's TAP device, and admit its own addresses there.
    pub(super) fn admit(&mut self, vm: &VmPort) -> Result<()> {
        let messages = self.elements(vm, NEW_ELEMENT);
        let done = self.socket.transaction(messages);
        done.map_err(|e| failed(&format!("admitting the guest {}", vm.ip), e))
    }

    /// Has it forget both; no matter if they aren't there.
    pub(super) fn shut_out(&mut self, vm: &VmPort) -> Result<()> {
        // Added first, so that there is something to delete.
        let mut messages = self.elements(vm, NEW_ELEMENT);
        messages.extend(self.elements(vm, DELETE_ELEMENT));
        match self.socket.transaction(messages) {
            Err(e) if !is_missing(&e) => {
                Err(failed(&format!("shutting out the guest {}", vm.ip), e))
            }
            _ => Ok(()),
        }
    }

    fn elements(&self, vm: &VmPort, kind: u8) -> Vec<(Message, u16)> {
        let mut guest = name(&vm.tap);
        // Each part fills whole words.
        guest.extend(vm.mac.bytes());
        guest.extend([0; 2]);
        guest.extend(vm.ip.octets());
        let flags = match kind {
            NEW_ELEMENT => NLM_F_CREATE,
            _ => 0,
        };
        [("taps", name(&vm.tap)), ("guests", guest)]
            .map(|(set, key)| {
                let value = DefaultNla::new(DATA_VALUE, key);
                let element = nest(LIST_ELEM, &nest(ELEM_KEY, &value));
                let attributes = [
                    DefaultNla::new(LIST_TABLE, text(&table(&self.bridge))),
                    DefaultNla::new(LIST_SET, text(set)),
                    nest(LIST_ELEMENTS, &element),
                ];
                let message = Message::new(Subsystem::Tables, kind, Family::Bridge, &attributes);
                (message, flags)
            })
            .into()
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn name(interface: &IfName) -> Vec<u8> {
    let mut bytes = interface.as_str().as_bytes().to_vec();
    bytes.resize(NAME_BYTES, 0);
    bytes
}

fn nest(kind: u16, inner: &DefaultNla) -> DefaultNla {
    let mut bytes = vec![0; inner.buffer_len()];
    inner.emit(&mut bytes);
    DefaultNla::new(kind | netlink_packet_core::NLA_F_NESTED, bytes)
}

fn failed(what: &str, cause: std::io::Error) -> Error {
    let missing = is_missing(&cause);
    let error = Error::io(what, "nf_tables", cause);
    match error.kind() {
        ErrorKind::Host => error.hint("the firewall needs root's rights"),
        _ if missing => error.hint("our tables are gone: smartvm network up"),
        _ => error,
    }
}
