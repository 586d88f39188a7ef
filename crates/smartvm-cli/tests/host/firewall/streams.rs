//! A real program's streams through the bridge, the rules and the masquerade: iperf3.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

use smartvm::network::firewall::replace_policy;
use smartvm::spec::{FirewallAction, FirewallEgress, FirewallProtocol, FirewallRule};

use super::{Lab, rules, ruleset};
use crate::lab::Space;

/// A server of iperf3's.
struct Server {
    process: Child,
    says: Lines<BufReader<ChildStdout>>,
}

impl Server {
    fn listen(at: &Space, port: u16) -> Self {
        let mut command = at.command("iperf3");
        command.args(["--server", "--forceflush", "--port", &port.to_string()]);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let says = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut server = Self { process, says };
        server.hear("Server listening on");
        server
    }

    /// Waits until it has said this; returns the line.
    fn hear(&mut self, words: &str) -> String {
        let mut lines = self.says.by_ref().map_while(|line| line.ok());
        let heard = lines.find(|line| line.contains(words));
        heard.unwrap_or_else(|| panic!("iperf3 never said {words:?}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn iperf3_reaches_its_server_masqueraded_and_none_at_a_denied_port() {
    let lab = Lab::new();
    let denied = FirewallRule::builder()
        .action(FirewallAction::Deny)
        .to("10.0.0.0/8")
        .protocol(FirewallProtocol::Tcp)
        .ports(5202);
    lab.apply(&ruleset(Some(rules([denied.build()]))));
    let mut open = Server::listen(&lab.server, 5201);
    let mut closed = Server::listen(&lab.server, 5202);
    let guest = &lab.guests[0];
    // One way, then the other.
    for more in ["", " --reverse"] {
        let client = "iperf3 --client 10.1.2.3 --port 5201 --connect-timeout 9000 --bytes 4M";
        let told = guest.run(&format!("{client}{more}"));
        assert!(told.contains("iperf Done."), "{told}");
        let from = open.hear("Accepted connection from");
        assert!(from.contains("from 192.0.2.1,"), "masqueraded: {from}");
    }
    let client = "iperf3 --client 10.1.2.3 --port 5202 --bytes 4M --connect-timeout";
    let (reached, told) = guest.try_run(&format!("{client} 700"));
    assert!(!reached, "the denied port: {told}");
    // It was the rule that kept it away.
    let bridge = "svbr0".parse().unwrap();
    let everything = FirewallEgress::default();
    lab.host
        .inside(|| replace_policy(&bridge, &everything).unwrap());
    let told = guest.run(&format!("{client} 9000"));
    assert!(told.contains("iperf Done."), "{told}");
    closed.hear("Accepted connection from 192.0.2.1,");
}
