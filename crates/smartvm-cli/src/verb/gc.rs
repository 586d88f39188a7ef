use clap::Args;
use smartvm::orchestrator::Finding;
use smartvm::{Result, SmartVm};

use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm gc --dry-run     # what dead VMs left
  smartvm gc               # give it back")]
pub(crate) struct GcArgs {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(smartvm: &SmartVm, args: &GcArgs) -> Result<u8> {
    let all = smartvm.gc(args.dry_run)?;
    let failed = all
        .iter()
        .any(|one| matches!(one.finding, Finding::Failed { .. }));
    if output::json() {
        output::value(&all)?;
        return Ok(failed.into());
    }
    let (verb, corrects) = match args.dry_run {
        true => ("would give back", "would correct"),
        false => ("gave back", "corrected"),
    };
    for one in all {
        let id = one.id;
        match one.finding {
            Finding::GivenBack { why } => output::line(format_args!("{id}: {verb} ({why})"))?,
            Finding::Corrected { why } => output::line(format_args!("{id}: {corrects} ({why})"))?,
            Finding::Unkept => output::line(format_args!(
                "{id}: runs without its keeper; end it with: smartvm stop {id}"
            ))?,
            Finding::Failed { why } => {
                output::line(format_args!("{id}: failed: {}", why.join("; ")))?;
            }
            _ => output::line(format_args!("{id}: {:?}", one.finding))?,
        }
    }
    Ok(failed.into())
}
