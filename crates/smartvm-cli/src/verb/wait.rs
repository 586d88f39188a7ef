use std::time::Duration;

use clap::Args;
use smartvm::{Result, SmartVm};

use super::inspect;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm wait web
  smartvm --json wait --timeout 60 web")]
pub(crate) struct WaitArgs {
    /// The VM's id, or the beginning of it
    id: String,
    /// Give up after so many seconds
    #[arg(long, value_name = "S")]
    timeout: Option<u64>,
}

pub(crate) async fn run(smartvm: &SmartVm, args: &WaitArgs) -> Result<u8> {
    let id = smartvm.runtime().resolve(&args.id)?;
    let ended = match smartvm.get(&id) {
        Ok(vm) => vm.wait(args.timeout.map(Duration::from_secs)).await?,
        Err(e) if e.kind() == smartvm::ErrorKind::NotFound => {
            smartvm.runtime().records().get(&id)?
        }
        Err(e) => return Err(e),
    };
    if output::json() {
        output::value(&inspect::ended(&ended))?;
    } else {
        output::line(&ended.reason)?;
    }
    Ok(0)
}
