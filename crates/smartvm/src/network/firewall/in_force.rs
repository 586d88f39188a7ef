//! Rules with what each has decided about, for people and programs.

use std::fmt;

use serde::Serialize;

use super::{Counters, Tally};
use crate::spec::{FirewallAction, FirewallEgress, FirewallProtocol, FirewallRule};

/// So many rules are shown to people: `firewall show` shows all.
const SHOWN: usize = 10;

/// The rules in force, and what they have decided about.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct InForce {
    /// The subnet's rules.
    pub egress: FirewallEgress,
    /// Packets and bytes.
    pub counters: Counters,
}

impl From<(FirewallEgress, Counters)> for InForce {
    fn from((egress, counters): (FirewallEgress, Counters)) -> Self {
        Self { egress, counters }
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = &self.egress.rules;
        write!(out, "rules       {}", rules.len())?;
        let tally = |number| self.counters.egress.get(&number).copied();
        for (number, rule) in rules.iter().enumerate().take(SHOWN) {
            write!(out, "\n  {number} {}", Words(rule))?;
            write!(out, ": {}", tally(number).unwrap_or_default())?;
        }
        if rules.len() > SHOWN {
            write!(out, "\n  … (all of them: smartvm firewall show)")?;
        }
        let default = match self.egress.default_action.unwrap_or_default() {
            FirewallAction::Allow => "allow",
            FirewallAction::Deny => "deny",
        };
        let rest = tally(rules.len()).unwrap_or_default();
        write!(out, "\n  {default} what is left: {rest}")?;
        for (reason, tally) in &self.counters.dropped {
            if tally.packets > 0 {
                write!(out, "\n  dropped, {reason}: {tally}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} packets, {} bytes", self.packets, self.bytes)
    }
}

struct Words<'a>(&'a FirewallRule);

impl fmt::Display for Words<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        let action = match rule.action {
            FirewallAction::Allow => "allow",
            FirewallAction::Deny => "deny",
        };
        write!(out, "{action} {}", rule.to.as_deref().unwrap_or("all"))?;
        match rule.protocol.unwrap_or_default() {
            FirewallProtocol::All => {}
            FirewallProtocol::Tcp => write!(out, " tcp")?,
            FirewallProtocol::Udp => write!(out, " udp")?,
            FirewallProtocol::Icmp => write!(out, " icmp")?,
        }
        match rule.ports.as_ref().map(|ports| ports.as_slice()) {
            Some([port]) => write!(out, " {port}")?,
            Some([first, .., last]) => write!(out, " {first}…{last}")?,
            _ => {}
        }
        match &rule.comment {
            Some(comment) => write!(out, " ({comment})"),
            None => Ok(()),
        }
    }
}
