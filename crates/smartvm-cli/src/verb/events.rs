use clap::Args;
use smartvm::events::Event;
use smartvm::{Error, ErrorKind, Result, SmartVm};

use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm events                 what happens to all VMs, until Ctrl-C
  smartvm --json events web      a line of JSON for each event of VM web, until it ends")]
pub(crate) struct EventsArgs {
    /// Only this VM's (its whole id), until it ends; it needn't be there yet
    id: Option<String>,
}

pub(crate) async fn run(smartvm: &SmartVm, args: &EventsArgs) -> Result<u8> {
    let mut events = smartvm.events()?;
    loop {
        let event = events.next().await?;
        if args.id.as_ref().is_some_and(|id| event.id.as_str() != id) {
            continue;
        }
        tell(&event)?;
        if args.id.is_some() && event.end.is_some() {
            return Ok(0);
        }
    }
}

fn tell(event: &Event) -> Result<()> {
    if output::json() {
        let line = serde_json::to_string(event)
            .map_err(|e| Error::new(ErrorKind::Io, "encoding an event").because(e))?;
        return output::line(line);
    }
    let (at, id, state) = (&event.at, &event.id, event.state);
    match &event.end {
        None => output::line(format_args!("{at}  {id}  {state}")),
        Some(end) => match end.vmm {
            Some(vmm) => output::line(format_args!("{at}  {id}  {state}: {} ({vmm})", end.reason)),
            None => output::line(format_args!("{at}  {id}  {state}: {}", end.reason)),
        },
    }
}
