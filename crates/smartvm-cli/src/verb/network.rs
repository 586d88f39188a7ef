use clap::{Args, Subcommand};
use smartvm::network::{ForeignChain, Network};
use smartvm::spec::{MicroVmSpec, NetworkInterface};
use smartvm::{Result, SmartVm};

use crate::output;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  smartvm network up\n  smartvm run --network --image ./image \
    -- wget -qO- http://example.org\n  smartvm run --network internet --image ./image -- ./untrusted\n  smartvm network status --json\n  smartvm network down"
)]
pub(crate) struct NetworkArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum What {
    /// Make the network, or mend it, and keep it until `network down`
    Up,
    /// Take the network down; VMs that use it keep it until the last of them ends
    Down,
    /// Show bridge, leases, where traffic leaves, and what is not as it should be
    Status,
}

pub(crate) fn run(smartvm: &SmartVm, args: &NetworkArgs) -> Result<u8> {
    let network = smartvm.network();
    match args.what {
        What::Up => warn(&network.up()?),
        What::Down => {
            let users = network.down()?;
            if !users.is_empty() {
                let users: Vec<String> = users.iter().map(ToString::to_string).collect();
                output::note(format_args!(
                    "it stays until these end: {}",
                    users.join(" ")
                ));
            }
        }
        What::Status => {
            let status = network.status()?;
            match output::json() {
                true => output::value(&status)?,
                false => output::line(&status)?,
            }
        }
    }
    Ok(0)
}

/// Tells of other programs that drop what guests send.
pub(crate) fn warn(chains: &[ForeignChain]) {
    for chain in chains {
        output::warning(format_args!(
            "{} ({}) drops what guests send; this admits them: {}",
            chain.owner, chain.chain, chain.admit
        ));
    }
}

/// Gives the VM an interface on the network.
pub(crate) fn connect(spec: &mut MicroVmSpec, network: &Network) {
    let id = (0..).map(|number| format!("net{number}")).find(|id| {
        spec.network_interfaces
            .iter()
            .all(|one| one.iface_id != *id)
    });
    let interface = NetworkInterface::builder().iface_id(id.unwrap_or_default());
    spec.network_interfaces.push(interface.build());
    // Where nft is missing, joining the network tells.
    warn(&network.foreign_chains().unwrap_or_default());
}
