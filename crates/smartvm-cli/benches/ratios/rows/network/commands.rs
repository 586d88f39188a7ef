//! The same by commands, as scripts do it.

use std::path::Path;
use std::process::Command;

use super::{Floor, Go, Way};

/// Runs a command line.
pub(super) fn run(line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let out = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(out.status.success(), "{line}: {out:?}");
}

pub(super) struct Commands {
    /// How the names of devices begin.
    names: String,
}

/// What lets a guest out, masqueraded, and lets in what answers it.
fn rules(verb: &str, number: usize) {
    let ip = format!("10.1.0.{number}");
    for rule in [
        format!("POSTROUTING -s {ip} -o up0 -j MASQUERADE -t nat"),
        format!("FORWARD -i svbr0 -o up0 -s {ip} -j ACCEPT"),
        format!(
            "FORWARD -i up0 -o svbr0 -d {ip} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        ),
    ] {
        run(&format!("iptables -w {verb} {rule}"));
    }
}

impl Floor for Commands {
    fn new(_: &Path, names: &str) -> Self {
        let names = names.to_owned();
        Self { names }
    }
}

impl Way for Commands {
    const GO: Go = Go::InTurn;

    fn up(&self, number: usize) {
        rules("-A", number);
        let tap = format!("{}c{number}", self.names);
        run(&format!("ip tuntap add dev {tap} mode tap user 0 vnet_hdr"));
        run(&format!("sysctl -qw net.ipv6.conf.{tap}.disable_ipv6=1"));
        run(&format!(
            "ip link set {tap} address fe:00:00:00:00:01 alias benchmark master svbr0"
        ));
        run(&format!("ip link set {tap} type bridge_slave isolated on"));
        run(&format!("ip link set {tap} up"));
    }

    fn down(&self, number: usize) {
        run(&format!("ip link delete {}c{number}", self.names));
        rules("-D", number);
    }
}
