use std::path::PathBuf;

use clap::Args;
use smartvm::spec::Lifetime;
use smartvm::{Result, SmartVm};

use crate::cli::{HostArgs, JailArgs};
use crate::{output, progress, settings};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm create -f vm.json && smartvm start web
  smartvm create --network -f vm.json")]
pub(crate) struct CreateArgs {
    /// The spec: JSON, TOML or YAML
    #[arg(short, long, value_name = "SPEC")]
    file: PathBuf,
    /// Connect it to the network: an address, NAT, name servers
    #[arg(long)]
    network: bool,
    #[command(flatten)]
    pub(crate) host: HostArgs,
    #[command(flatten)]
    jail: JailArgs,
}

pub(crate) async fn run(smartvm: &SmartVm, args: &CreateArgs) -> Result<u8> {
    let mut spec = settings::spec(smartvm.options(), &args.file)?;
    // It has to outlive this process, or it could never be started.
    spec.lifetime = Some(Lifetime::Detached);
    if args.network {
        super::network::connect(&mut spec, smartvm.network());
    }
    smartvm.ensure_binary(&progress::downloads()).await?;
    args.jail.apply(&mut spec, || smartvm.why_no_jail());
    let vm = smartvm.create(&spec).await?;
    output::line(vm.id())?;
    Ok(0)
}
