//! One file for each verb.

pub(crate) mod completions;
pub(crate) mod console;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod doctor;
pub(crate) mod emulate;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod firecracker;
pub(crate) mod firewall;
pub(crate) mod gc;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod metadata;
pub(crate) mod network;
pub(crate) mod pause;
pub(crate) mod plan;
pub(crate) mod ps;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod snapshot;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod update;
pub(crate) mod validate;
pub(crate) mod wait;

use clap::Args;
use smartvm::name::VmId;
use smartvm::{Error, ErrorKind, Result, SmartVm};

use crate::cli::{Cli, Verb};
use crate::{output, settings};

/// One VM or more.
#[derive(Debug, Args)]
pub(crate) struct Ids {
    /// The VMs' ids, or the beginnings of them
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
}

impl Ids {
    /// The ids in full.
    pub(crate) fn resolve(&self, smartvm: &SmartVm) -> Result<Vec<VmId>> {
        self.ids
            .iter()
            .map(|id| smartvm.runtime().resolve(id))
            .collect()
    }
}

/// Does what the command line says; returns the exit status.
pub(crate) fn run(cli: Cli) -> Result<u8> {
    let global = &cli.global;
    let vms = |assume_kvm| settings::open(global, assume_kvm);
    match cli.verb {
        Verb::Run(args) => finish(run::run(&vms(args.host.assume_kvm)?, &args)),
        Verb::Create(args) => finish(create::run(&vms(args.host.assume_kvm)?, &args)),
        Verb::Start(args) => finish(start::run(&vms(args.host.assume_kvm)?, &args)),
        Verb::Pause(ids) => finish(pause::pause(&vms(false)?, &ids)),
        Verb::Resume(ids) => finish(pause::resume(&vms(false)?, &ids)),
        Verb::Stop(args) => finish(stop::run(&vms(false)?, &args)),
        Verb::Rm(args) => finish(rm::run(&vms(false)?, &args)),
        Verb::Wait(args) => finish(wait::run(&vms(false)?, &args)),
        Verb::Ps(args) => ps::run(&vms(false)?, &args),
        Verb::Inspect(ids) => inspect::run(&vms(false)?, &ids),
        Verb::Logs(args) => finish(logs::run(&vms(false)?, &args)),
        Verb::Events(args) => finish(events::run(&vms(false)?, &args)),
        Verb::Console(args) => finish(console::run(&vms(false)?, &args)),
        Verb::Exec(args) => finish(exec::run(&vms(false)?, &args)),
        Verb::Snapshot(args) => finish(snapshot::run(&vms(args.assume_kvm())?, &args)),
        Verb::Cp(args) => finish(cp::run(&vms(false)?, &args)),
        Verb::Update(args) => finish(update::run(&vms(false)?, &args)),
        Verb::Metadata(args) => finish(metadata::run(&vms(false)?, &args)),
        Verb::Stats(args) => finish(stats::run(&vms(false)?, &args)),
        Verb::Gc(args) => gc::run(&vms(false)?, &args),
        Verb::Firewall(args) => finish(firewall::run(&vms(false)?, &args)),
        Verb::Network(args) => network::run(&vms(false)?, &args),
        Verb::Plan(args) => plan::run(global, &args),
        Verb::Schema(args) => schema::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Emulate(args) => emulate::run(args),
        Verb::Image(args) => finish(image::run(global, args)),
        Verb::Firecracker(args) => finish(firecracker::run(&vms(false)?, args)),
        Verb::Validate(args) => validate::run(global, &args),
        Verb::Doctor => doctor::run(global),
        Verb::Man(args) => man::run(&args),
        Verb::Version => version(),
    }
}

/// Runs a verb that waits for things.
fn finish(verb: impl Future<Output = Result<u8>>) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(ErrorKind::Host, "starting the runtime").because(e))?;
    let done = runtime.block_on(verb);
    // A read of standard input may still wait on a thread of its own: nobody needs it now.
    runtime.shutdown_background();
    done
}

fn version() -> Result<u8> {
    let version = env!("CARGO_PKG_VERSION");
    if output::json() {
        output::value(&serde_json::json!({ "version": version }))?;
    } else {
        output::line(format_args!("smartvm {version}"))?;
    }
    Ok(0)
}
