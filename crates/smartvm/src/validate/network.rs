//! Network interfaces and the metadata service on them.

use std::net::Ipv4Addr;

use super::rate_limiter;
use super::report::{Report, quoted};
use crate::name::{DeviceId, IfName, MacAddress};
use crate::spec::{MicroVmSpec, Mmds, NetworkInterface};

/// Largest body of a request to Firecracker, in bytes, and so of the metadata in one.
const MAX_METADATA_BYTES: usize = 51_200;

pub(super) fn check(spec: &MicroVmSpec, report: &mut Report) {
    let interfaces = &spec.network_interfaces;
    let paths = ["networkInterfaces", "mmds.networkInterfaces"];
    let answering = spec
        .mmds
        .as_ref()
        .map_or(0, |it| it.network_interfaces.len());
    for (path, count) in paths.into_iter().zip([interfaces.len(), answering]) {
        if !report.few(path, count) {
            return;
        }
    }
    let mut macs = Vec::new();
    for (index, interface) in interfaces.iter().enumerate() {
        let path = format!("networkInterfaces[{index}]");
        if let Some(mac) = one(interface, &path, report) {
            macs.push((format!("{path}.guestMac"), mac));
        }
    }
    let at = |index: usize, field: &str| format!("networkInterfaces[{index}].{field}");
    report.unique(
        interfaces
            .iter()
            .enumerate()
            .map(|(index, one)| (at(index, "ifaceId"), one.iface_id.as_str())),
        |id| quoted(id),
    );
    report.unique(
        interfaces.iter().enumerate().filter_map(|(index, one)| {
            Some((at(index, "hostDevName"), one.host_dev_name.as_deref()?))
        }),
        |name| quoted(name),
    );
    report.unique(macs, MacAddress::to_string);
    if let Some(mmds) = &spec.mmds {
        mmds_interfaces(mmds, interfaces, report);
    }
    metadata(spec, report);
}

fn one(interface: &NetworkInterface, path: &str, report: &mut Report) -> Option<MacAddress> {
    report.name::<DeviceId>(format!("{path}.ifaceId"), &interface.iface_id);
    if let Some(name) = &interface.host_dev_name {
        report.name::<IfName>(format!("{path}.hostDevName"), name);
    }
    for (field, limiter) in [
        ("rxRateLimiter", &interface.rx_rate_limiter),
        ("txRateLimiter", &interface.tx_rate_limiter),
    ] {
        rate_limiter::check(limiter.as_ref(), &format!("{path}.{field}"), report);
    }
    report.demand(
        interface.mtu.is_none_or(|mtu| mtu >= 68),
        format!("{path}.mtu"),
        || "is smaller than the smallest packet that IPv4 allows".into(),
        "68 to 65535",
    );
    let text = interface.guest_mac.as_deref()?;
    let mac: MacAddress = report.name(format!("{path}.guestMac"), text)?;
    report.demand(
        mac.is_unicast(),
        format!("{path}.guestMac"),
        || format!("{mac} is the address of no single interface"),
        "a unicast address: the first byte even, not all zero",
    );
    Some(mac)
}

fn mmds_interfaces(mmds: &Mmds, interfaces: &[NetworkInterface], report: &mut Report) {
    report.demand(
        !mmds.network_interfaces.is_empty(),
        "mmds.networkInterfaces",
        || "is empty".into(),
        "at least one `ifaceId` of `networkInterfaces`",
    );
    if let Some(address) = &mmds.ipv4_address {
        let link_local = address
            .parse()
            .is_ok_and(|it: Ipv4Addr| matches!(it.octets(), [169, 254, 1..=254, _]));
        report.demand(
            link_local,
            "mmds.ipv4Address",
            || format!("{} isn't a link-local address", quoted(address)),
            "169.254.1.0 to 169.254.254.255",
        );
    }
    let known: Vec<&str> = interfaces.iter().map(|one| one.iface_id.as_str()).collect();
    for (index, id) in mmds.network_interfaces.iter().enumerate() {
        report.demand(
            known.contains(&id.as_str()),
            format!("mmds.networkInterfaces[{index}]"),
            || format!("{} isn't the `ifaceId` of a network interface", quoted(id)),
            &match known.as_slice() {
                [] => "one of `networkInterfaces`, which is empty".to_owned(),
                known => known.join(", "),
            },
        );
    }
    report.unique(
        mmds.network_interfaces
            .iter()
            .enumerate()
            .map(|(index, id)| (format!("mmds.networkInterfaces[{index}]"), id.as_str())),
        |id| quoted(id),
    );
}

fn metadata(spec: &MicroVmSpec, report: &mut Report) {
    let Some(metadata) = &spec.metadata else {
        return;
    };
    report.demand(
        spec.mmds.is_some(),
        "metadata",
        || "is given without `mmds`, so that the guest couldn't read it".into(),
        "only with `mmds`",
    );
    report.demand(
        metadata.is_object(),
        "metadata",
        || "isn't an object".into(),
        "a JSON object",
    );
    let bytes = metadata.to_string().len();
    report.demand(
        bytes <= MAX_METADATA_BYTES,
        "metadata",
        || format!("is {bytes} bytes long as JSON"),
        "at most 51200 bytes",
    );
}
