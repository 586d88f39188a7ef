//! IPv4 settings of single devices, set in the message that says all else about them: by files of
//! /proc each would cost as much as that.

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_route::link::LinkAttribute;

// linux/if_link.h, linux/ip.h
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET_CONF: u16 = 1;
const AF_INET: u16 = 2;

/// A setting of /proc/sys/net/ipv4/conf.
#[derive(Debug, Clone, Copy)]
#[repr(u16)]
pub(super) enum Setting {
    Forwarding = 1,
    /// 1: what comes from an address is only taken where the way back leads.
    ReturnPathFilter = 8,
}

/// These settings, as an attribute of their device.
pub(super) fn ipv4(settings: &[(Setting, u32)]) -> LinkAttribute {
    let values: Vec<DefaultNla> = (settings.iter())
        .map(|(setting, value)| DefaultNla::new(*setting as u16, value.to_ne_bytes().into()))
        .collect();
    let settings = nest(IFLA_INET_CONF, values.as_slice());
    let family = nest(AF_INET, [settings].as_slice());
    LinkAttribute::Other(nest(IFLA_AF_SPEC, [family].as_slice()))
}

fn nest(kind: u16, inner: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; inner.buffer_len()];
    inner.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}
