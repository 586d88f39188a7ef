//! Services of the host that guests may reach, as people write them.

use serde::{Deserialize, Serialize};

/// A service of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostService {
    /// Its protocol.
    pub protocol: Transport,
    /// Its port.
    pub port: u16,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What may be written in the place of protocol and port.
const NAMES: [(&str, &[HostService]); 5] = [
    ("dns", &[udp(53), tcp(53)]),
    ("http", &[tcp(80)]),
    ("https", &[tcp(443)]),
    ("ntp", &[udp(123)]),
    ("ssh", &[tcp(22)]),
];

const fn tcp(port: u16) -> HostService {
    HostService {
        protocol: Transport::Tcp,
        port,
    }
}

const fn udp(port: u16) -> HostService {
    HostService {
        protocol: Transport::Udp,
        port,
    }
}

impl HostService {
    /// Reads `tcp/8080`, `udp/53` or a name. `None`: it is none of these.
    pub fn parse(text: &str) -> Option<Vec<Self>> {
        if let Some((_, services)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Some(services.to_vec());
        }
        let (protocol, port) = text.split_once('/')?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port > 0)?;
        match protocol {
            "tcp" => Some(vec![tcp(port)]),
            "udp" => Some(vec![udp(port)]),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_by_name_and_by_port() {
        assert_eq!(HostService::parse("dns"), Some(vec![udp(53), tcp(53)]));
        assert_eq!(HostService::parse("tcp/8080"), Some(vec![tcp(8080)]));
        for wrong in [
            "",
            "tcp",
            "tcp/",
            "tcp/0",
            "tcp/65536",
            "udp/+5",
            "icmp/1",
            "gopher",
        ] {
            assert_eq!(HostService::parse(wrong), None, "{wrong}");
        }
    }
}
