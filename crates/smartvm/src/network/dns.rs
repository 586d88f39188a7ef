//! The name servers that guests are given: the host's real ones, never its own loopback.

use std::net::Ipv4Addr;
use std::path::Path;

/// As many as the kernel's `ip=` word takes.
pub(super) const MOST: usize = 2;
const MOST_BYTES: u64 = 64 << 10;

/// The host's upstream name servers; empty where it has none that guests could reach.
pub(super) fn servers() -> Vec<Ipv4Addr> {
    let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
    files
        .iter()
        .map(|path| read(Path::new(path)))
        .find(|servers| !servers.is_empty())
        .unwrap_or_default()
}

fn read(path: &Path) -> Vec<Ipv4Addr> {
    let bytes = crate::durable::read_bounded(path, MOST_BYTES)
        .ok()
        .flatten();
    parse(&String::from_utf8_lossy(&bytes.unwrap_or_default()))
}

fn parse(text: &str) -> Vec<Ipv4Addr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
        })
        .filter(|server: &Ipv4Addr| !server.is_loopback() && !server.is_unspecified())
        .take(MOST)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_that_a_guest_could_reach_are_taken_and_no_more_than_two() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver fe80::1\nnameserver 9.9.9.9\n\
                    options edns0\nnameserver 10.0.0.1 # lab\nnameserver 8.8.8.8\n";
        assert_eq!(
            parse(text),
            [Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(10, 0, 0, 1)]
        );
        assert!(parse("nameserver 127.0.0.1\nnameserver 0.0.0.0\n").is_empty());
    }
}
