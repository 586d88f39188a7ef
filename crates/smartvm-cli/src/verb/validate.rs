use std::path::PathBuf;

use clap::Args;
use smartvm::Result;
use smartvm::validate::{ValidateContext, read_file};

use crate::cli::{Global, HostArgs};
use crate::{output, settings};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm validate -f vm.json
  smartvm validate --host -f vm.toml")]
pub(crate) struct ValidateArgs {
    /// The spec: JSON, TOML or YAML
    #[arg(short, long, value_name = "SPEC")]
    file: PathBuf,
    /// Check it against this host, too
    #[arg(long)]
    host: bool,
    #[command(flatten)]
    assume: HostArgs,
}

pub(crate) fn run(global: &Global, args: &ValidateArgs) -> Result<u8> {
    let options = settings::options(global)?;
    let valid = read_file(&args.file, &ValidateContext::from(&options))?;
    if args.host {
        settings::open(global, args.assume.assume_kvm)?.check(&valid)?;
    }
    output::note("the spec is valid");
    Ok(0)
}
