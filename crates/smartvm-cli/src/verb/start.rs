use clap::Args;
use smartvm::vm::StartOptions;
use smartvm::{Result, SmartVm};

use crate::cli::HostArgs;
use crate::{output, progress};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm start web")]
pub(crate) struct StartArgs {
    /// The VM's id, or the beginning of it
    id: String,
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

pub(crate) async fn run(smartvm: &SmartVm, args: &StartArgs) -> Result<u8> {
    let id = smartvm.runtime().resolve(&args.id)?;
    // Its plan is made anew, with the Firecracker that there is.
    smartvm.ensure_binary(&progress::downloads()).await?;
    let mut vm = smartvm.get_created(&id).await?;
    vm.start(&StartOptions::default()).await?;
    output::line(vm.id())?;
    Ok(0)
}
