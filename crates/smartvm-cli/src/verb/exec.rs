use std::time::Duration;

use clap::Args;
use smartvm::rundir::State;
use smartvm::{Error, ErrorKind, Result, SmartVm};

use crate::guest_command::{self, CommandArgs};
use crate::image_spec;

/// How long a guest that is still booting may take until its agent answers.
const BOOT_PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm exec web -- uptime
  smartvm exec -it web -- sh
  smartvm exec -u guest -w /srv -e LANG=C web -- ls -l
  tar c dir | smartvm exec -i web -- tar x -C /srv

The exit status is the command's own; 128+n if signal n ended it.")]
pub(crate) struct ExecArgs {
    /// The VM's id, or the beginning of it
    id: String,
    #[command(flatten)]
    how: CommandArgs,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(crate) async fn run(smartvm: &SmartVm, args: &ExecArgs) -> Result<u8> {
    let id = smartvm.runtime().resolve(&args.id)?;
    let vm = smartvm.get(&id)?;
    let state = vm.state()?.state;
    if state != State::Running {
        return Err(
            Error::new(ErrorKind::WrongState, format!("VM {id} is {state}"))
                .hint("commands run in running VMs"),
        );
    }
    let mut how = args.how.clone();
    if let Some(process) = image_spec::process_of(&vm.state()?.spec) {
        how.by_default(&process);
    }
    let agent = vm.agent()?;
    super::run::while_it_lives(&vm, async {
        agent.wait_ready(BOOT_PATIENCE).await?;
        guest_command::run(&agent, &how, &args.command).await
    })
    .await
}
