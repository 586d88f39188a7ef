use std::path::PathBuf;

use clap::Args;
use smartvm::spec::Lifetime;
use smartvm::{Result, SmartVm};

use crate::{cli::HostArgs, output, progress};

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The spec: JSON, TOML or YAML
    #[arg(short, long, value_name = "SPEC")]
    file: PathBuf,
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

pub(crate) async fn run(smartvm: &SmartVm, args: &CreateArgs) -> Result<u8> {
    let mut spec: smartvm::spec::MicroVmSpec = smartvm::spec::load_file(&args.file)?;
    // It has to outlive this process, or it could never be started.
    spec.lifetime = Some(Lifetime::Detached);
    smartvm.ensure_binary(&progress::downloads()).await?;
    let vm = smartvm.create(&spec).await?;
    output::line(vm.id())?;
    Ok(0)
}
