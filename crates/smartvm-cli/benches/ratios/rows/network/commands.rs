//! The same by commands, as scripts do it.

use std::process::Command;

use super::Way;

/// Runs a command line.
pub(super) fn run(line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let out = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(out.status.success(), "{line}: {out:?}");
}

#[derive(Default)]
pub(super) struct Commands;

fn elements(verb: &str, number: usize) {
    let (tap, ip) = (format!("cmd{number}"), format!("10.1.0.{number}"));
    for element in [
        format!("taps {{ {tap} }}"),
        format!("guests {{ {tap} . 06:00:00:00:00:01 . {ip} }}"),
    ] {
        run(&format!(
            "nft {verb} element bridge smartvm_svbr0 {element}"
        ));
    }
}

impl Way for Commands {
    fn up(&self, number: usize) {
        elements("add", number);
        let tap = format!("cmd{number}");
        run(&format!("ip tuntap add dev {tap} mode tap user 0 vnet_hdr"));
        run(&format!("sysctl -qw net.ipv6.conf.{tap}.disable_ipv6=1"));
        run(&format!(
            "ip link set {tap} address fe:00:00:00:00:01 alias benchmark master svbr0"
        ));
        run(&format!("ip link set {tap} type bridge_slave isolated on"));
        run(&format!("ip link set {tap} up"));
    }

    fn down(&self, number: usize) {
        run(&format!("ip link delete cmd{number}"));
        elements("delete", number);
    }
}
