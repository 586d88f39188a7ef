use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use smartvm::rundir::State;
use smartvm::spec::{Lifetime, MicroVmSpec};
use smartvm::storage::Watch;
use smartvm::vm::{StartOptions, StopMode};
use smartvm::{Error, ErrorKind, MicroVm, Result, SmartVm};
use tokio::signal::unix::{SignalKind, signal};

use super::console::{self, DetachArgs};
use super::image::pull::When;
use crate::cli::{HostArgs, JailArgs};
use crate::detach_keys::DetachKeys;
use crate::guest_command::{self, CommandArgs};
use crate::image_spec::Image;
use crate::{image_name, image_spec, output, progress, settings};

/// How long a guest may take from its start until its agent answers.
const BOOT_PATIENCE: Duration = Duration::from_secs(180);
/// How long a guest with drives that outlive it may take to shut down.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm run --image ./image -- uname -a
  smartvm run -it --image ./image -- sh
  smartvm run --detach --id web --network --image nginx    # what the image says
  smartvm run --detach --id web --image ./image -- httpd -f
  smartvm run -f vm.json                    # attached to its console")]
pub(crate) struct RunArgs {
    /// The spec: JSON, TOML or YAML
    #[arg(short, long, value_name = "SPEC", conflicts_with = "image")]
    file: Option<PathBuf>,
    /// The image: a name in the store, a path if it contains `/`, or a name in a registry
    #[arg(long, required_unless_present = "file")]
    image: Option<String>,
    /// When an image that a registry has is fetched
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        conflicts_with = "file"
    )]
    pull: When,
    /// The VM's id [default: a random one]
    #[arg(long)]
    id: Option<String>,
    /// Virtual processors [default for an image: 1]
    #[arg(long, value_name = "N")]
    vcpus: Option<u8>,
    /// Memory in MiB [default for an image: 256]
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,
    /// Connect it to the network: an address, NAT, name servers; with `internet`, private,
    /// link-local and metadata addresses are denied
    #[arg(long, value_name = "REACH", num_args = 0..=1, value_parser = ["internet"])]
    network: Option<Option<String>>,
    /// What the guest writes goes to a drive of this size, such as 1GiB, gone with the VM
    #[arg(long, value_name = "SIZE", value_parser = super::image::size, conflicts_with = "file")]
    scratch: Option<u64>,
    /// The modules of the image's kernel, where the image has neither an initramfs nor a kernel
    /// with its drivers built in: a directory with modules.dep
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    modules: Option<PathBuf>,
    /// Label it
    #[arg(long, value_name = "K=V")]
    label: Vec<String>,
    /// End it after so many seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Print its id and let it live on: until its command has ended, if it has one, whose output
    /// goes to the console (`smartvm logs`)
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    detach: bool,
    #[command(flatten)]
    how: CommandArgs,
    #[command(flatten)]
    pub(crate) host: HostArgs,
    #[command(flatten)]
    jail: JailArgs,
    #[command(flatten)]
    leave: DetachArgs,
    /// The command and its arguments [default: what the image says; without any, the console is
    /// attached]
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

pub(crate) async fn run(smartvm: &SmartVm, args: &RunArgs) -> Result<u8> {
    let (spec, image) = args.spec(smartvm).await?;
    smartvm.ensure_binary(&progress::downloads()).await?;
    let (how, command) = args.process(image.as_ref());
    let spec = args.for_command(spec, &command);
    let mode = match keeps_drives(&spec, smartvm) {
        true => StopMode::Graceful(SHUTDOWN_PATIENCE),
        false => StopMode::Kill,
    };
    let mut options = StartOptions::default();
    if args.detach && !command.is_empty() {
        options = options.main_command(guest_command::command(&how, &command)?);
    }
    let mut interrupted = Interrupted::listen()?;
    let mut vm = tokio::select! {
        created = smartvm.create(&spec) => created?,
        status = interrupted.status() => return Ok(status),
    };
    // Its run dir tells from now on which image it uses.
    drop(image);
    let started = tokio::select! {
        started = vm.start(&options) => started.map(|()| None),
        status = interrupted.status() => Ok(Some(status)),
    };
    if args.detach {
        if let Some(status) = started? {
            return end(vm, StopMode::Kill, Ok(status)).await;
        }
        output::line(vm.id())?;
        return Ok(0);
    }
    let status = match started? {
        Some(status) => Ok(status),
        None => {
            let deadline = args.timeout.map(Duration::from_secs);
            tokio::select! {
                status = work(&vm, &how, &command, &args.leave.detach_keys) => status,
                status = interrupted.status() => Ok(status),
                () = passed(deadline) => Err(Error::new(
                    ErrorKind::Timeout,
                    format!("VM {} was ended after {deadline:?}", vm.id()),
                )),
            }
        }
    };
    end(vm, mode, status).await
}

/// Ends the VM, and adds what could not be given back to what there is to tell.
async fn end(mut vm: MicroVm, mode: StopMode, status: Result<u8>) -> Result<u8> {
    let ended = match vm.stop(mode).await {
        Ok(ended) => ended.cleanup_failure().map_or(Ok(()), Err),
        // It has ended by itself, and its keeper cleaned up.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    };
    match (status, ended) {
        (status, Ok(())) => status,
        (Ok(_), Err(e)) => Err(e),
        (Err(first), Err(e)) => Err(first.with_cleanup([e])),
    }
}

impl RunArgs {
    async fn spec(&self, smartvm: &SmartVm) -> Result<(MicroVmSpec, Option<Image>)> {
        let (mut spec, image) = match (&self.file, &self.image) {
            (Some(file), _) => (settings::spec(smartvm.options(), file)?, None),
            (None, Some(image)) => {
                let tell = &mut super::image::told;
                let watch = &mut Watch::new(tell, &|| false);
                let image = &image_name::resolve(smartvm, image, self.pull, watch).await?;
                let (spec, image) = {
                    let modules = self.modules.as_deref();
                    image_spec::from_image(smartvm.options(), image, self.scratch, modules)?
                };
                if let Image::Stored(_) = image {
                    image_spec::store(smartvm.options())?
                        .serve(smartvm.runtime().path(), &smartvm.shelf())?;
                }
                (spec, Some(image))
            }
            (None, None) => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    "neither --file nor --image is given",
                ));
            }
        };
        if let Some(id) = &self.id {
            spec.id = Some(id.clone());
        }
        if let Some(vcpus) = self.vcpus {
            spec.machine_config.vcpu_count = vcpus;
        }
        if let Some(memory) = self.memory {
            spec.machine_config.mem_size_mib = memory;
        }
        if let Some(reach) = &self.network {
            super::network::connect(&mut spec, smartvm.network());
            if reach.is_some() {
                let firewall = spec.firewall.get_or_insert_default();
                let own = firewall.egress.take();
                firewall.egress = Some(smartvm.network().internet_only(own));
            }
        }
        for label in &self.label {
            let (key, value) = label.split_once('=').ok_or_else(|| {
                Error::new(ErrorKind::Invalid, format!("--label {label:?} is not K=V"))
            })?;
            spec.labels.insert(key.to_owned(), value.to_owned());
        }
        spec.lifetime = Some(if self.detach {
            Lifetime::Detached
        } else {
            Lifetime::Owner
        });
        self.jail.apply(&mut spec, || smartvm.why_no_jail());
        Ok((spec, image))
    }

    /// What is run and how: what is asked for, else what the image says. A command of the
    /// user's takes the place of the image's entrypoint and command both.
    fn process(&self, image: Option<&Image>) -> (CommandArgs, Vec<String>) {
        let (mut how, mut command) = (self.how.clone(), self.command.clone());
        let process = image.and_then(|image| image.bundle().manifest().process.as_ref());
        if let Some(process) = process {
            if command.is_empty() {
                command = process.argv();
            }
            how.by_default(process);
        }
        (how, command)
    }

    /// The spec of a VM that is there for this command, or for its console.
    fn for_command(&self, mut spec: MicroVmSpec, command: &[String]) -> MicroVmSpec {
        if self.timeout.is_some() && (self.detach || command.is_empty()) {
            spec.max_runtime_s = self.timeout;
        }
        if !command.is_empty() {
            image_spec::keep_agent_as_init(&mut spec);
        }
        spec
    }
}

/// What the VM is there for: the command, or the console.
async fn work(
    vm: &MicroVm,
    how: &CommandArgs,
    command: &[String],
    keys: &DetachKeys,
) -> Result<u8> {
    if command.is_empty() {
        if console::attach(vm, keys).await? == console::Left::Ended {
            let ended = vm.wait(None).await?;
            if ended.state == State::Failed {
                return Err(ended.to_error());
            }
        }
        return Ok(0);
    }
    let agent = vm.agent()?;
    while_it_lives(vm, async {
        agent.wait_ready(BOOT_PATIENCE).await?;
        guest_command::run(&agent, how, command).await
    })
    .await
}

/// The work in a guest, as long as its VM lives: when that ends first, the error tells why.
pub(super) async fn while_it_lives(
    vm: &MicroVm,
    work: impl Future<Output = Result<u8>>,
) -> Result<u8> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => match done {
            // A broken connection may be the first sign of a VM that is ending.
            Err(e) if e.kind() == ErrorKind::Guest && vm.state().is_err() => {
                Err(vm.wait(None).await?.to_error())
            }
            done => done,
        },
        ended = vm.wait(None) => Err(ended?.to_error()),
    }
}

/// Whether the guest writes to drives that outlive the VM.
fn keeps_drives(spec: &MicroVmSpec, smartvm: &SmartVm) -> bool {
    let options = smartvm.options().runtime_options();
    spec.drives
        .iter()
        .any(|drive| !drive.read_only() && !drive.staged(&options))
}

async fn passed(deadline: Option<Duration>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline).await,
        None => std::future::pending().await,
    }
}

/// Ctrl-C and SIGTERM.
struct Interrupted {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interrupted {
    fn listen() -> Result<Self> {
        let listen = |kind| {
            signal(kind)
                .map_err(|e| Error::new(ErrorKind::Host, "listening for signals").because(e))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for one; returns the exit status that it makes.
    async fn status(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}
