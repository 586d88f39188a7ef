use std::path::PathBuf;

use clap::{Args, Subcommand};
use smartvm::network::firewall::{Live, Tally};
use smartvm::spec::{FirewallAction, FirewallConfig, FirewallProtocol, FirewallRule};
use smartvm::{Error, ErrorKind, Result};

use crate::cli::Global;
use crate::{output, settings};

#[derive(Debug, Args)]
pub(crate) struct FirewallArgs {
    #[command(subcommand)]
    verb: FirewallVerb,
}

#[derive(Debug, Subcommand)]
enum FirewallVerb {
    /// The rules in force, with what each has decided about
    #[command(after_help = "Example: smartvm firewall show --json | jq .counters.egress")]
    Show,
    /// Put other rules in force: what they deny ends at once, what they allow goes on
    #[command(after_help = "Example: smartvm firewall set -f firewall.json")]
    Set {
        /// The rules (IFirewallConfig): JSON, TOML or YAML
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
}

pub(crate) fn run(global: &Global, args: &FirewallArgs) -> Result<u8> {
    let live = Live::new(&settings::options(global)?)?;
    match &args.verb {
        FirewallVerb::Show => show(&live),
        FirewallVerb::Set { file } => {
            let config: FirewallConfig = smartvm::spec::load_file(file)?;
            smartvm::validate::validate_firewall(&config)
                .map_err(|problems| problems.about(&file.display().to_string()).at(file))?;
            live.set(&config.egress.unwrap_or_default())?;
            Ok(0)
        }
    }
}

fn show(live: &Live) -> Result<u8> {
    let Some((egress, counters)) = live.read()? else {
        return Err(Error::new(
            ErrorKind::WrongState,
            "the network isn't up: there are no rules",
        )
        .hint("smartvm network up"));
    };
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
