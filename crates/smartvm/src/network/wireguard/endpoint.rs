//! Where peers are: names become addresses, once, before anything is made.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::time::Duration;

use super::{Config, Endpoint};
use crate::error::{Error, ErrorKind, Result};

/// How long a name may take to be resolved.
const PATIENCE: Duration = Duration::from_secs(20);

/// The address of each peer that has an endpoint, in their order.
pub(super) fn resolve(config: &Config) -> Result<Vec<Option<SocketAddr>>> {
    let resolve = |endpoint: &Endpoint| address(&endpoint.host, endpoint.port);
    (config.peers.iter())
        .map(|peer| peer.endpoint.as_ref().map(resolve).transpose())
        .collect()
}

fn address(host: &str, port: u16) -> Result<SocketAddr> {
    if let Ok(address) = host.parse() {
        return Ok(SocketAddr::new(address, port));
    }
    let (answer, answered) = mpsc::channel();
    let name = host.to_owned();
    // The resolver can't be told how long to wait. Its thread is in this thread's network
    // namespace.
    std::thread::spawn(move || {
        let found = (name.as_str(), port).to_socket_addrs();
        // Nobody listens any more where it took too long.
        let _late = answer.send(found.map(Iterator::collect::<Vec<_>>));
    });
    let failed = |kind, what: String| {
        Error::new(
            kind,
            format!("the WireGuard peer's endpoint {host}:{port} doesn't resolve: {what}"),
        )
        .hint(
            "the host's own name servers are asked: check the name, or write an address: \
             `Endpoint = 192.0.2.1:51820`",
        )
    };
    let found = answered.recv_timeout(PATIENCE).map_err(|_| {
        let seconds = PATIENCE.as_secs();
        failed(ErrorKind::Timeout, format!("no answer in {seconds} s"))
    })?;
    let found = found.map_err(|e| failed(ErrorKind::Host, e.to_string()))?;
    let address = found.into_iter().find(SocketAddr::is_ipv4);
    address.ok_or_else(|| failed(ErrorKind::Host, "it has no IPv4 address".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_no_resolver_and_names_that_do_not_resolve_are_told() {
        assert_eq!(
            address("192.0.2.1", 7).unwrap(),
            "192.0.2.1:7".parse().unwrap()
        );
        let error = address("no-such-host.invalid", 7).unwrap_err();
        let told = error.to_string();
        assert!(told.contains("no-such-host.invalid:7"), "{told}");
        assert!(error.way_out().unwrap().contains("Endpoint ="), "{error:?}");
    }
}
