use clap::Args;
use smartvm::rundir::State;
use smartvm::vm::{StopMode, stop_all};
use smartvm::{Error, ErrorKind, Result, SmartVm};

use super::{Ids, stop};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm rm web           # the record of one that has ended
  smartvm rm --force web   # end it, too")]
pub(crate) struct RmArgs {
    #[command(flatten)]
    ids: Ids,
    /// Kill it if it runs
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(smartvm: &SmartVm, args: &RmArgs) -> Result<u8> {
    let ids = args.ids.resolve(smartvm)?;
    let mut live = Vec::new();
    for id in &ids {
        let vm = match smartvm.get(id) {
            Ok(vm) => vm,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let state = vm.state()?.state;
        if !args.force && !matches!(state, State::Created | State::Failed) {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("removing VM {id}: it is {state}"),
            )
            .hint(format!("stop it first, or: smartvm rm --force {id}")));
        }
        live.push(vm);
    }
    let status = stop::first_failure(stop_all(&mut live, StopMode::Kill).await)?;
    for id in &ids {
        smartvm.runtime().records().remove(id)?;
    }
    Ok(status)
}
