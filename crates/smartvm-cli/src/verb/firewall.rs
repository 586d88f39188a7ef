use std::path::PathBuf;

use clap::{Args, Subcommand};
use smartvm::network::firewall::Tally;
use smartvm::spec::{FirewallAction, FirewallConfig, FirewallProtocol, FirewallRule};
use smartvm::vm::Change;
use smartvm::{Error, ErrorKind, Result, SmartVm};

use crate::output;

#[derive(Debug, Args)]
pub(crate) struct FirewallArgs {
    #[command(subcommand)]
    verb: FirewallVerb,
}

#[derive(Debug, Subcommand)]
enum FirewallVerb {
    /// The rules in force, with what each has decided about
    #[command(
        after_help = "Examples:\n  smartvm firewall show\n  smartvm firewall show --vm web\n  \
        smartvm firewall show --json | jq .counters.egress"
    )]
    Show {
        /// The VM's own rules: its id, or the beginning of it
        #[arg(long, value_name = "ID")]
        vm: Option<String>,
    },
    /// Put other rules in force: what they deny ends at once, what they allow goes on
    #[command(after_help = "Examples:\n  smartvm firewall set -f firewall.json\n  \
        smartvm firewall set --vm web -f firewall.json\n\n\
        They hold until the network is taken down, those of a VM until it ends.")]
    Set {
        /// The rules (IFirewallConfig): JSON, TOML or YAML
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// For this VM alone, before those of all: its id, or the beginning of it
        #[arg(long, value_name = "ID")]
        vm: Option<String>,
    },
}

pub(crate) async fn run(smartvm: &SmartVm, args: &FirewallArgs) -> Result<u8> {
    match &args.verb {
        FirewallVerb::Show { vm } => show(smartvm, vm.as_deref()),
        FirewallVerb::Set { file, vm } => {
            let firewall: FirewallConfig = smartvm::spec::load_file(file)?;
            smartvm::validate::validate_firewall(&firewall)
                .map_err(|problems| problems.about(&file.display().to_string()).at(file))?;
            match vm {
                Some(vm) => {
                    let vm = smartvm.get(&smartvm.runtime().resolve(vm)?)?;
                    vm.update(Change::Firewall { firewall }).await?;
                }
                None => {
                    let egress = firewall.egress.unwrap_or_default();
                    smartvm.network().set_firewall(&egress)?;
                }
            }
            Ok(0)
        }
    }
}

fn show(smartvm: &SmartVm, vm: Option<&str>) -> Result<u8> {
    let network = smartvm.network();
    let Some((mut egress, mut counters)) = network.firewall()? else {
        return Err(Error::new(
            ErrorKind::WrongState,
            "the network isn't up: there are no rules",
        )
        .hint("smartvm network up"));
    };
    if let Some(vm) = vm {
        let vm = smartvm.runtime().resolve(vm)?;
        let lease = network.lease_of(&vm)?;
        let Some(own) = lease.firewall else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("VM {vm} has no rules of its own"),
            )
            .hint("those of all guests hold: smartvm firewall show"));
        };
        egress = own;
        counters.egress = counters
            .vms
            .remove(&lease.ip.to_string())
            .unwrap_or_default();
        counters.vms.clear();
        counters.dropped.clear();
    }
    if output::json() {
        output::value(&serde_json::json!({ "egress": egress, "counters": counters }))?;
        return Ok(0);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "", "ACTION", "TO", "PROTOCOL", "PORTS", "PACKETS", "BYTES", "COMMENT",
    ]);
    let tally = |number| counters.egress.get(&number).copied().unwrap_or_default();
    for (number, rule) in egress.rules.iter().enumerate() {
        table.add_row(row(number.to_string(), rule, tally(number)));
    }
    let default = FirewallRule::builder()
        .action(egress.default_action.unwrap_or_default())
        .build();
    table.add_row(row("default".into(), &default, tally(egress.rules.len())));
    output::line(table)?;
    for (reason, tally) in &counters.dropped {
        if tally.packets > 0 {
            output::line(format_args!(
                "dropped, {reason}: {} packets, {} bytes",
                tally.packets, tally.bytes
            ))?;
        }
    }
    Ok(0)
}

fn row(number: String, rule: &FirewallRule, tally: Tally) -> Vec<String> {
    let action = match rule.action {
        FirewallAction::Allow => "allow",
        _ => "deny",
    };
    let protocol = match rule.protocol.unwrap_or_default() {
        FirewallProtocol::Tcp => "tcp",
        FirewallProtocol::Udp => "udp",
        FirewallProtocol::Icmp => "icmp",
        _ => "all",
    };
    let ports = rule.ports.as_ref().map_or_else(
        || "-".to_owned(),
        |ports| {
            let ports: Vec<String> = ports.as_slice().iter().map(u32::to_string).collect();
            ports.join(",")
        },
    );
    vec![
        number,
        action.to_owned(),
        rule.to.clone().unwrap_or_else(|| "all".to_owned()),
        protocol.to_owned(),
        ports,
        tally.packets.to_string(),
        tally.bytes.to_string(),
        rule.comment.clone().unwrap_or_default(),
    ]
}
