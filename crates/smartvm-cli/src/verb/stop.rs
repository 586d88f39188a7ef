use std::time::Duration;

use clap::Args;
use smartvm::vm::{StopMode, stop_all};
use smartvm::{Result, SmartVm};

use super::Ids;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm stop web
  smartvm stop --timeout 60 web db
  smartvm stop --force web")]
pub(crate) struct StopArgs {
    #[command(flatten)]
    ids: Ids,
    /// How long the guest may take to shut down before it is killed, in seconds
    #[arg(long, value_name = "S", default_value_t = 10)]
    timeout: u64,
    /// Kill it at once
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(smartvm: &SmartVm, args: &StopArgs) -> Result<u8> {
    let mode = match args.force {
        true => StopMode::Kill,
        false => StopMode::Graceful(Duration::from_secs(args.timeout)),
    };
    let ids = args.ids.resolve(smartvm)?;
    let mut vms = ids
        .iter()
        .map(|id| smartvm.get(id))
        .collect::<Result<Vec<_>>>()?;
    first_failure(stop_all(&mut vms, mode).await)
}

/// Status 0 if every VM ended and gave all back; otherwise the first failure, after the
/// others were told.
pub(super) fn first_failure(results: Vec<Result<smartvm::rundir::Ended>>) -> Result<u8> {
    let mut first = None;
    for result in results {
        let failure = match result {
            Ok(ended) => ended.cleanup_failure(),
            Err(e) => Some(e),
        };
        match (failure, &first) {
            (Some(failure), None) => first = Some(failure),
            (Some(another), Some(_)) => output::tell(&another),
            (None, _) => {}
        }
    }
    match first {
        Some(failure) => Err(failure),
        None => Ok(0),
    }
}
