use std::time::Duration;

use clap::Args;
use smartvm::keeper::ring::{self, Follower};
use smartvm::rundir::file;
use smartvm::{ErrorKind, Result, SmartVm};

use crate::output;

/// Between two looks at a log that is followed.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm logs web
  smartvm logs -f web      # until it ends
  smartvm logs --vmm web   # Firecracker's own")]
pub(crate) struct LogsArgs {
    /// The VM's id, or the beginning of it
    id: String,
    /// Go on until the VM ends
    #[arg(short, long)]
    follow: bool,
    /// What Firecracker printed and logged, not the guest
    #[arg(long)]
    vmm: bool,
}

pub(crate) async fn run(smartvm: &SmartVm, args: &LogsArgs) -> Result<u8> {
    let id = smartvm.runtime().resolve(&args.id)?;
    let vm = match smartvm.get(&id) {
        Ok(vm) => vm,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let ended = smartvm.runtime().records().get(&id)?;
            let text = if args.vmm {
                ended.vmm_log
            } else {
                ended.console
            };
            output::bytes(text.as_bytes())?;
            return Ok(0);
        }
        Err(e) => return Err(e),
    };
    let name = if args.vmm {
        file::VMM_LOG
    } else {
        file::CONSOLE
    };
    let path = vm.run_dir().file(name);
    if !args.follow {
        output::bytes(&ring::tail(&path, usize::MAX)?)?;
        return Ok(0);
    }
    let mut follower = Follower::new(&path);
    let mut end = std::pin::pin!(vm.wait(None));
    loop {
        output::bytes(&follower.read()?)?;
        if let Ok(ended) = tokio::time::timeout(PAUSE, &mut end).await {
            ended?;
            // The files are gone with the run dir; open ones can still be read.
            output::bytes(&follower.read()?)?;
            return Ok(0);
        }
    }
}
