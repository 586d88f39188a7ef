//! The guests' subnet: which addresses and names follow from it. Pure.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::name::MacAddress;

/// An IPv4 subnet for guests, with a prefix of 1 to 30: the gateway has its first usable
/// address, the guests have those from the second on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet(Ipv4Net);

impl Subnet {
    /// The subnet as a network.
    pub fn net(self) -> Ipv4Net {
        self.0
    }

    /// Bits of the address that all guests share.
    pub fn prefix(self) -> u8 {
        self.0.prefix_len()
    }

    /// The mask, such as 255.255.255.0.
    pub fn mask(self) -> Ipv4Addr {
        self.0.netmask()
    }

    /// The bridge's address.
    pub fn gateway(self) -> Ipv4Addr {
        self.address(1)
    }

    /// How many guests have room.
    pub fn guests(self) -> u32 {
        let addresses = 1_u32 << (32 - u32::from(self.prefix()));
        addresses - 3
    }

    /// The address of a guest, counted from 0; `None` beyond the last.
    pub fn guest(self, number: u32) -> Option<Ipv4Addr> {
        (number < self.guests()).then(|| self.address(number + 2))
    }

    /// The number of the guest with this address; `None` if no guest can have it.
    pub fn number_of(self, guest: Ipv4Addr) -> Option<u32> {
        let host = guest.to_bits().checked_sub(self.0.network().to_bits())?;
        let number = host.checked_sub(2)?;
        (number < self.guests()).then_some(number)
    }

    fn address(self, host: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.network().to_bits() + host)
    }
}

/// A guest's MAC address: locally administered, with its IPv4 address in it.
pub fn mac_of(guest: Ipv4Addr) -> MacAddress {
    let [a, b, c, d] = guest.octets();
    MacAddress::new([0x06, 0x00, a, b, c, d])
}

impl FromStr for Subnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |what: String| {
            Error::new(ErrorKind::Invalid, format!("subnet {text:?}: {what}"))
                .hint("an IPv4 network in CIDR notation, with a prefix of 1 to 30: 172.30.0.0/24")
        };
        let net: Ipv4Net = text.parse().map_err(|_| wrong("isn't one".into()))?;
        if !(1..=30).contains(&net.prefix_len()) {
            return Err(wrong(format!("its prefix is {}", net.prefix_len())));
        }
        if net.addr() != net.network() {
            return Err(wrong(format!("has host bits; {} is meant?", net.trunc())));
        }
        Ok(Self(net))
    }
}

impl TryFrom<String> for Subnet {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_gateway_is_first_and_guests_follow_up_to_the_last_usable_address() {
        let subnet: Subnet = "172.30.0.0/24".parse().unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(172, 30, 0, 1));
        assert_eq!(subnet.mask(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(subnet.guests(), 253);
        assert_eq!(subnet.guest(0), Some(Ipv4Addr::new(172, 30, 0, 2)));
        assert_eq!(subnet.guest(252), Some(Ipv4Addr::new(172, 30, 0, 254)));
        assert_eq!(subnet.guest(253), None);
        let smallest: Subnet = "10.0.0.4/30".parse().unwrap();
        assert_eq!(smallest.guests(), 1);
        assert_eq!(smallest.guest(0), Some(Ipv4Addr::new(10, 0, 0, 6)));
        let largest: Subnet = "128.0.0.0/1".parse().unwrap();
        assert_eq!(
            largest.guest(largest.guests() - 1),
            Some("255.255.255.254".parse().unwrap())
        );
    }

    #[test]
    fn prefixes_outside_1_to_30_and_host_bits_are_refused() {
        for bad in [
            "10.0.0.0/0",
            "10.0.0.0/31",
            "10.0.0.1/24",
            "10.0.0.0",
            "::/64",
            "",
        ] {
            assert_eq!(
                bad.parse::<Subnet>().unwrap_err().kind(),
                ErrorKind::Invalid,
                "{bad}"
            );
        }
    }

    #[test]
    fn a_mac_address_is_local_and_holds_the_ip_address() {
        let mac = mac_of(Ipv4Addr::new(172, 30, 0, 2));
        assert_eq!(mac.to_string(), "06:00:ac:1e:00:02");
        assert_eq!(mac.bytes()[0] & 0b11, 0b10, "unicast, locally administered");
    }

    proptest! {
        #[test]
        fn guests_are_in_the_subnet_and_neither_its_ends_nor_the_gateway(
            bits in any::<u32>(), prefix in 1_u8..=30, number in any::<u32>(),
        ) {
            let net = Ipv4Net::new(Ipv4Addr::from_bits(bits), prefix).unwrap().trunc();
            let subnet: Subnet = net.to_string().parse().unwrap();
            let number = number % subnet.guests();
            let guest = subnet.guest(number).unwrap();
            prop_assert!(net.contains(&guest));
            prop_assert!(![net.network(), net.broadcast(), subnet.gateway()].contains(&guest));
            prop_assert_eq!(subnet.number_of(guest), Some(number));
            prop_assert_eq!(subnet.number_of(subnet.gateway()), None);
        }
    }
}
