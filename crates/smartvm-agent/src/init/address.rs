//! The kernel's `ip=` word: client, server, gateway, netmask, host name, device, DNS servers.

use std::net::Ipv4Addr;

/// What `ip=` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) client: Ipv4Addr,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) netmask: Ipv4Addr,
    pub(crate) hostname: Option<String>,
    /// The interface; by default the first that isn't `lo`.
    pub(crate) device: Option<String>,
    pub(crate) dns: Vec<Ipv4Addr>,
}

/// Reads the value of `ip=`. `off` and `none` alone ask for nothing.
pub(crate) fn parse(value: &str) -> Result<Option<Address>, String> {
    if matches!(value, "" | "off" | "none") {
        return Ok(None);
    }
    let fields: Vec<&str> = value.split(':').collect();
    if fields.len() > 10 {
        return Err(format!("{} fields, where 10 are the most", fields.len()));
    }
    let field = |index: usize| fields.get(index).copied().filter(|field| !field.is_empty());
    let address = |index: usize| {
        field(index)
            .map(|field| {
                field
                    .parse::<Ipv4Addr>()
                    .map_err(|_| format!("{field:?} is not an IPv4 address"))
            })
            .transpose()
    };
    match field(6) {
        None | Some("off" | "none" | "static") => {}
        Some(method) => return Err(format!("{method:?}: only fixed addresses are supported")),
    }
    let client = address(0)?.ok_or("there is no client address")?;
    let netmask = address(3)?.unwrap_or_else(|| classful(client));
    if netmask.to_bits().leading_ones() + netmask.to_bits().trailing_zeros() < 32 {
        return Err(format!("{netmask} is not a netmask"));
    }
    Ok(Some(Address {
        client,
        gateway: address(2)?.filter(|gateway| !gateway.is_unspecified()),
        netmask,
        hostname: field(4).map(str::to_owned),
        device: field(5).map(str::to_owned),
        dns: [address(7)?, address(8)?].into_iter().flatten().collect(),
    }))
}

/// The netmask that the kernel takes where none is given.
fn classful(client: Ipv4Addr) -> Ipv4Addr {
    match client.octets()[0] {
        0..128 => Ipv4Addr::new(255, 0, 0, 0),
        128..192 => Ipv4Addr::new(255, 255, 0, 0),
        _ => Ipv4Addr::new(255, 255, 255, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_place() {
        let address = parse("10.0.0.2::10.0.0.1:255.255.255.252:web:eth1:off:1.1.1.1:8.8.8.8")
            .expect("a sound value")
            .expect("an address");
        assert_eq!(address.client, Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(address.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(address.netmask, Ipv4Addr::new(255, 255, 255, 252));
        assert_eq!(address.hostname.as_deref(), Some("web"));
        assert_eq!(address.device.as_deref(), Some("eth1"));
        assert_eq!(
            address.dns,
            [Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(8, 8, 8, 8)]
        );
    }

    #[test]
    fn what_is_left_out_has_the_kernels_default() {
        let address = parse("192.168.7.9").expect("sound").expect("an address");
        assert_eq!(address.netmask, Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!((address.gateway, address.hostname), (None, None));
        for nothing in ["", "off", "none"] {
            assert_eq!(parse(nothing), Ok(None), "{nothing}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for nonsense in [
            "dhcp",
            "10.0.0.2::::::dhcp",
            "::10.0.0.1:255.0.0.0",
            "10.0.0.2:::255.0.255.0",
            "1.2.3.4:a:b:c:d:e:f:g:h:i:j",
            "10.0.0.2::gateway",
        ] {
            assert!(parse(nonsense).is_err(), "{nonsense}");
        }
    }
}
