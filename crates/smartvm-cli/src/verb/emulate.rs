use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use smartvm::Result;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm emulate -- ls -l /dev/kvm
  smartvm emulate -- smartvm run --image ./image -- uname -a
  smartvm emulate --write ./logs --timeout 600 -- ./run-all-tests")]
pub(crate) struct EmulateArgs {
    /// Share this directory for writing; everything else that CMD writes is forgotten
    #[arg(long, value_name = "DIR")]
    write: Vec<PathBuf>,
    /// End it after so many seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Processors of the emulated host [default: this machine's, at most 4]
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// Memory of the emulated host in MiB
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Directory with the emulated host's kernel: boot/vmlinuz-* and lib/modules/*
    #[arg(long, value_name = "DIR", env = "SMARTVM_EMULATE_KERNEL")]
    kernel: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(crate) fn run(args: EmulateArgs) -> Result<u8> {
    let mut options = smartvm_emulate::Options::new(args.command);
    options.write = args.write;
    options.timeout = args.timeout.map(Duration::from_secs);
    options.kernel = args.kernel;
    if let Some(cpus) = args.cpus {
        options.cpus = cpus;
    }
    if let Some(memory) = args.memory {
        options.memory_mib = memory;
    }
    smartvm_emulate::run(&options)
}
