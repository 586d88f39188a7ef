//! The command line as it is typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use smartvm::spec::{Jail, JailMode, MicroVmSpec};

use crate::{output, verb};

/// Run Firecracker microVMs: isolated, crash-safe, without leaks.
#[derive(Debug, Parser)]
#[command(
    name = "smartvm",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(
    after_help = "Exit status: 0 done · 2 wrong usage or invalid spec · 3 no such thing · \
    4 wrong state for that · 5 this host can't · 1 anything else. \
    With a command (run -- CMD, exec, emulate): the command's own status, 128+n for a signal; \
    124 deadline, 125 smartvm itself failed, 126 not executable, 127 not found.\n\n\
    With --json, what smartvm says on standard error is one object a line, with one member: \
    error (the last line of a failure), warning, note, progress, or log (with -v)."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Options (ISmartVMOptions) as TOML, JSON or YAML [default: /etc/smartvm/config.toml where
    /// it exists]
    #[arg(long, global = true, value_name = "FILE", env = "SMARTVM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Directory of binaries and images
    #[arg(long, global = true, value_name = "DIR", env = "SMARTVM_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Directory of live VMs
    #[arg(long, global = true, value_name = "DIR", env = "SMARTVM_RUNTIME_DIR")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// The firecracker executable
    #[arg(long, global = true, value_name = "PATH", env = "SMARTVM_FIRECRACKER")]
    pub(crate) firecracker: Option<PathBuf>,
    /// A mirror of Firecracker's releases
    #[arg(long, global = true, value_name = "URL", env = "SMARTVM_RELEASES")]
    pub(crate) releases: Option<String>,
    /// A mirror of the bucket of Firecracker's images
    #[arg(long, global = true, value_name = "URL", env = "SMARTVM_BUCKET")]
    pub(crate) bucket: Option<String>,
    /// Results as JSON, and errors, warnings and progress as lines of JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more (-vv: much more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say nothing but results and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// How a verb that starts a VM takes this host.
#[derive(Debug, Clone, Args)]
pub(crate) struct HostArgs {
    /// This host's KVM can run the kernel at hand, although its CPU shows no hardware
    /// virtualization
    #[arg(long)]
    pub(crate) assume_kvm: bool,
}

/// How a VM's Firecracker is confined.
#[derive(Debug, Clone, Args)]
pub(crate) struct JailArgs {
    /// Confine Firecracker by its jailer: `auto` does where this is root and the jailer is there,
    /// and says so where not [default: as the spec says, else auto]
    #[arg(long, value_name = "MODE", value_parser = ["required", "auto", "off"])]
    jail: Option<String>,
}

impl JailArgs {
    /// Puts it into the spec. `why_not` tells why VMs can't be jailed here, if they can't.
    pub(crate) fn apply(
        &self,
        spec: &mut MicroVmSpec,
        why_not: impl FnOnce() -> Option<smartvm::Error>,
    ) {
        spec.jail = Some(self.over(spec.jail.take(), why_not));
    }

    /// The jail that can't be done without, if these flags ask for one.
    pub(crate) fn required(&self) -> Option<Jail> {
        let required = self.jail.as_deref() == Some("required");
        required.then(|| Jail::builder().mode(JailMode::Required).build())
    }

    /// What becomes of the jail that a spec asks for.
    pub(crate) fn over(
        &self,
        asked: Option<Jail>,
        why_not: impl FnOnce() -> Option<smartvm::Error>,
    ) -> Jail {
        let mut jail = asked.unwrap_or_default();
        jail.mode = match self.jail.as_deref() {
            Some("required") => Some(JailMode::Required),
            Some("off") => Some(JailMode::Off),
            Some(_) => Some(JailMode::Auto),
            None => Some(jail.mode.unwrap_or(JailMode::Auto)),
        };
        if jail.mode == Some(JailMode::Auto)
            && let Some(why) = why_not()
        {
            output::warning(format_args!(
                "Firecracker runs without a jail: {why} (--jail off says so silently)"
            ));
        }
        jail
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a VM, start it, run a command in it (or attach to its console), end it
    Run(Box<verb::run::RunArgs>),
    /// Make a VM from a spec, without starting it; prints its id
    Create(verb::create::CreateArgs),
    /// Start a created VM
    Start(verb::start::StartArgs),
    /// Stop a VM's processors
    #[command(after_help = "Examples:\n  smartvm pause web db")]
    Pause(verb::Ids),
    /// Let a paused VM go on
    #[command(after_help = "Examples:\n  smartvm resume web db")]
    Resume(verb::Ids),
    /// Shut VMs down and give back what they hold
    Stop(verb::stop::StopArgs),
    /// Remove created VMs and records of ended ones
    Rm(verb::rm::RmArgs),
    /// Wait until a VM has ended
    Wait(verb::wait::WaitArgs),
    /// List VMs
    Ps(verb::ps::PsArgs),
    /// All that is known of a VM
    #[command(after_help = "Examples:\n  smartvm inspect web | jq '.[0].state'")]
    Inspect(verb::Ids),
    /// What a VM's guest printed
    Logs(verb::logs::LogsArgs),
    /// What happens to VMs, as it happens
    Events(verb::events::EventsArgs),
    /// Attach to a VM's console; --detach-keys (ctrl-]) leave it
    Console(verb::console::ConsoleArgs),
    /// Run a command in a VM
    Exec(verb::exec::ExecArgs),
    /// What guests may reach
    Firewall(verb::firewall::FirewallArgs),
    /// Bridge, addresses and NAT for guests
    Network(verb::network::NetworkArgs),
    /// Copy a file from or to a VM's guest
    Cp(verb::cp::CpArgs),
    /// Change drives, limits and balloon of a running VM
    Update(Box<verb::update::UpdateArgs>),
    /// Read and write what a VM's metadata service tells its guest
    Metadata(verb::metadata::MetadataArgs),
    /// What a running VM uses
    Stats(verb::stats::StatsArgs),
    /// Make and look at images
    Image(verb::image::ImageArgs),
    /// Make, restore and look at snapshots
    Snapshot(verb::snapshot::SnapshotArgs),
    /// Fetch, list and remove versions of Firecracker
    Firecracker(verb::firecracker::FirecrackerArgs),
    /// Check a spec
    Validate(verb::validate::ValidateArgs),
    /// Show what would be done for a spec
    Plan(verb::plan::PlanArgs),
    /// Print the JSON Schema of a file
    Schema(verb::schema::SchemaArgs),
    /// Is this host fit for microVMs
    #[command(after_help = "Examples:\n  smartvm doctor\n  smartvm --json doctor")]
    Doctor,
    /// Give back what dead VMs left
    Gc(verb::gc::GcArgs),
    /// Run a command in an emulated host with nested virtualization (development and CI only)
    Emulate(verb::emulate::EmulateArgs),
    /// Print a completion script for a shell
    Completions(verb::completions::CompletionsArgs),
    /// Print man pages, or write them
    Man(verb::man::ManArgs),
    /// Print the version
    #[command(after_help = "Examples:\n  smartvm --json version")]
    Version,
}

impl Verb {
    /// Whether the exit status is that of a command that the user gave.
    pub(crate) fn runs_a_command(&self) -> bool {
        match self {
            Self::Run(args) => !args.command.is_empty(),
            Self::Exec(_) | Self::Emulate(_) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn every_verb_can_be_parsed() {
        super::Cli::command().debug_assert();
    }
}
