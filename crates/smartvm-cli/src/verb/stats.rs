use clap::Args;
use smartvm::vm::Stats;
use smartvm::{Result, SmartVm};

use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm stats web
  smartvm --json stats web     # with Firecracker's metrics, where the spec has `metrics`")]
pub(crate) struct StatsArgs {
    /// The VM's id, or the beginning of it
    id: String,
}

pub(crate) async fn run(smartvm: &SmartVm, args: &StatsArgs) -> Result<u8> {
    let vm = smartvm.get(&smartvm.runtime().resolve(&args.id)?)?;
    let stats = vm.stats().await?;
    if output::json() {
        output::value(&stats)?;
    } else {
        print(&stats)?;
    }
    Ok(0)
}

fn print(stats: &Stats) -> Result<()> {
    let vmm = &stats.vmm;
    let mib = |bytes: u64| bytes >> 20;
    output::line(format_args!("pid      {}", vmm.pid))?;
    output::line(format_args!("cpu      {:.2} s", vmm.cpu_seconds))?;
    output::line(format_args!("memory   {} MiB", mib(vmm.resident_bytes)))?;
    output::line(format_args!("threads  {}", vmm.threads))?;
    if let Some(balloon) = &stats.balloon {
        let (actual, target) = (balloon.actual_mib, balloon.target_mib);
        output::line(format_args!("balloon  {actual} of {target} MiB"))?;
        if let (Some(available), Some(total)) = (balloon.available_memory, balloon.total_memory) {
            let (available, total) = (mib(available), mib(total));
            output::line(format_args!(
                "guest    {available} of {total} MiB available"
            ))?;
        }
    }
    Ok(())
}
