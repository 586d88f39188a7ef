//! The elements by which the firewall knows guests, by nfnetlink: an `nft` process for each guest
//! would take longer than all else that is done for it.

use netlink_packet_core::{DefaultNla, Emitable, NLM_F_CREATE};

use super::VmPort;
use super::render::{table, vm_policy};
use crate::error::{Error, ErrorKind, Result};
use crate::name::IfName;
use crate::network::namespace::Namespace;
use crate::network::netfilter::{Family, Message, Subsystem, ask};
use crate::network::netlink::is_missing;

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
    /// Whose they are.
    namespace: Namespace,
    bridge: IfName,
}

impl Tables {
    /// Those of the network namespace that this thread is in.
    pub(super) fn of(namespace: Namespace, bridge: &IfName) -> Self {
        Self {
            namespace,
            bridge: bridge.clone(),
        }
    }

    /// Whether both tables are there.
    pub(super) fn are_there(&self) -> Result<bool> {
        let name = text(&table(&self.bridge));
        let table = |family| about(GET_TABLE, family, &[(TABLE_NAME, &name)]);
        let there = self.have([Family::Inet, Family::Bridge].map(table))?;
        Ok(there == [true; 2])
    }

    /// Whether a guest has a policy of its own; `None`: there is no table for IP.
    pub(super) fn own_policy(&self, vm: &VmPort) -> Result<Option<bool>> {
        let table = text(&table(&self.bridge));
        let chain = text(&format!("{}_out", vm_policy(vm)));
        let [there, own] = self.have([
            about(GET_TABLE, Family::Inet, &[(TABLE_NAME, &table)]),
            about(
                GET_CHAIN,
                Family::Inet,
                &[(CHAIN_TABLE, &table), (CHAIN_NAME, &chain)],
            ),
        ])?;
        Ok(there.then_some(own))
    }

    /// Whether there is what these ask for.
    fn have<const N: usize>(&self, messages: [Message; N]) -> Result<[bool; N]> {
        let found = ask(self.namespace, |socket| socket.get_each(messages));
        let found = found.map_err(|e| failed("looking at the firewall", e))?;
        Ok(found.map(|one| one.is_some()))
    }

    /// Has the bridge's table judge a guest's TAP device, and admit its own addresses there. False
    /// if there is no such table.
    pub(super) fn admit(&self, vm: &VmPort) -> Result<bool> {
        let messages = self.elements(vm, NEW_ELEMENT);
        match ask(self.namespace, |socket| socket.transaction(messages)) {
            Ok(()) => Ok(true),
            Err(e) if is_missing(&e) => Ok(false),
            Err(e) => Err(failed(&format!("admitting the guest {}", vm.ip), e)),
        }
    }

    /// Has it forget both; no matter if they aren't there.
    pub(super) fn shut_out(&self, vm: &VmPort) -> Result<()> {
        // Added first, so that there is something to delete.
        let mut messages = self.elements(vm, NEW_ELEMENT);
        messages.extend(self.elements(vm, DELETE_ELEMENT));
        match ask(self.namespace, |socket| socket.transaction(messages)) {
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

/// A message about what has these names.
fn about(kind: u8, family: Family, names: &[(u16, &Vec<u8>)]) -> Message {
    let names = names
        .iter()
        .map(|(kind, name)| DefaultNla::new(*kind, (*name).clone()));
    let names: Vec<DefaultNla> = names.collect();
    Message::new(Subsystem::Tables, kind, family, &names)
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
