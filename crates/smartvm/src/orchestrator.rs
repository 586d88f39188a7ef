//! Many VMs of one user: making them, finding them, giving back what dead ones left.

mod gc;
#[cfg(feature = "download")]
mod images;
pub(crate) mod make;
mod mend;
mod recover;
#[cfg(all(feature = "download", feature = "oci"))]
mod registry;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use gc::{Collected, Finding};
#[cfg(feature = "download")]
pub use images::{Sources, base_image_options};
pub use recover::Recovered;

use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::{Binary, Version, jailer};
use crate::host::{self, HostFacts};
use crate::keeper::{self, Keepers};
use crate::name::VmId;
use crate::network::Network;
use crate::plan::{self, Plan};
use crate::random;
use crate::rundir::{Ended, RuntimeDir, State, VmState};
use crate::snapshot::Shelf;
use crate::spec::{Lifetime, MicroVmSpec, RuntimeOptions, SmartVmOptions};
use crate::validate::{ValidSpec, ValidateContext, validate};
use crate::vm::{MicroVm, blocking};
use crate::wiring::Wiring;

/// What is not the spec's business but this program's: where its parts are.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Parts {
    /// The `smartvm` executable that keeps VMs. Default: see [`keeper::find`].
    pub keeper: Option<PathBuf>,
    /// Whether this host's KVM is taken to be able to run the kernel at hand although its
    /// CPU has no hardware virtualization (a paravirtual nested host, a tiny guest).
    pub assume_kvm: bool,
    /// How binaries and images come from the network.
    #[cfg(feature = "download")]
    pub sources: Sources,
}

/// The microVMs under one runtime directory.
///
/// ```no_run
/// use smartvm::spec::{Lifetime, MicroVmSpec, SmartVmOptions};
/// use smartvm::vm::{StartOptions, StopMode};
/// use smartvm::{Parts, SmartVm};
///
/// # async fn example(mut spec: MicroVmSpec) -> smartvm::Result<()> {
/// let options = SmartVmOptions::builder().data_dir("/srv/vms").build();
/// let smartvm = SmartVm::open(options, Parts::default())?;
/// spec.lifetime = Some(Lifetime::Detached);
/// spec.labels.insert("role".into(), "web".into());
/// smartvm.create(&spec).await?.start(&StartOptions::default()).await?;
///
/// // Another process, another day.
/// for vm in smartvm.with_label("role", Some("web")).await? {
///     println!("{} is {}", vm.id(), vm.state()?.state);
/// }
/// for ended in smartvm.stop_all(StopMode::Kill).await? {
///     println!("{}", ended?.reason);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SmartVm {
    options: SmartVmOptions,
    parts: Parts,
    runtime: RuntimeDir,
    keepers: Keepers,
    network: Network,
    binary: OnceLock<Binary>,
    jailer: OnceLock<PathBuf>,
}

fn euid_is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl SmartVm {
    /// Opens it: makes the runtime directory where it is missing. Nothing is started.
    pub fn open(options: SmartVmOptions, parts: Parts) -> Result<Self> {
        let shm_usable = Path::new("/dev/shm").is_dir();
        let runtime = RuntimeDir::open(&options.runtime_dir(shm_usable))?;
        let keeper = keeper::find(parts.keeper.as_deref())?;
        let network = Network::new(runtime.path(), &options)?.kept_by(&keeper);
        Ok(Self {
            options,
            parts,
            runtime,
            keepers: Keepers::of(keeper),
            network,
            binary: OnceLock::new(),
            jailer: OnceLock::new(),
        })
    }

    /// Another value for the same VMs, to be looked at on another thread.
    pub(crate) fn looking(&self) -> Self {
        Self {
            options: self.options.clone(),
            parts: self.parts.clone(),
            runtime: self.runtime.clone(),
            keepers: self.keepers.clone(),
            network: self.network.clone(),
            binary: self.binary.clone(),
            jailer: self.jailer.clone(),
        }
    }

    /// The options.
    pub fn options(&self) -> &SmartVmOptions {
        &self.options
    }

    /// The runtime directory.
    pub fn runtime(&self) -> &RuntimeDir {
        &self.runtime
    }

    /// The Firecracker that runs, found and asked for its version once.
    pub fn binary(&self) -> Result<&Binary> {
        if let Some(binary) = self.binary.get() {
            return Ok(binary);
        }
        let found = Binary::find(&self.options)?;
        Ok(self.binary.get_or_init(|| found))
    }

    /// Where chroots are, for specs that don't say.
    pub fn chroot_base(&self) -> PathBuf {
        plan::chroot_base(self.options.data_dir())
    }

    /// The jailer beside the Firecracker that runs, looked at once.
    fn jailer(&self, binary: &Binary) -> Result<&Path> {
        if let Some(jailer) = self.jailer.get() {
            return Ok(jailer);
        }
        let found = jailer::beside(binary)?;
        Ok(self.jailer.get_or_init(|| found))
    }

    /// The jailer, where this spec's VM is jailed and may be: without one, `auto` is off.
    pub(crate) fn jailer_for(&self, spec: &MicroVmSpec) -> Result<Option<&Path>> {
        if !plan::jailed(spec, euid_is_root()) || !euid_is_root() {
            return Ok(None);
        }
        match self.jailer(self.binary()?) {
            Err(_) if !plan::jailed(spec, false) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Why a VM can't be jailed here, if it can't: one that asks for `auto` runs without a jail
    /// then.
    pub fn why_no_jail(&self) -> Option<Error> {
        if !euid_is_root() {
            let message = "the jailer needs root rights";
            return Some(Error::new(ErrorKind::Host, message));
        }
        let found = self.binary().and_then(|binary| self.jailer(binary));
        found.err()
    }

    pub(crate) fn keepers(&self) -> &Keepers {
        &self.keepers
    }

    /// Validates a spec and plans its VM, without touching the host. Relative paths are
    /// relative to the current directory.
    pub fn plan(&self, spec: &MicroVmSpec) -> Result<Plan> {
        let valid = validate(spec, &ValidateContext::from(&self.options))?;
        let id = id_of(&valid)?;
        let without = make::without_tap(spec);
        let wiring = match without.is_empty() {
            true => None,
            false => Some(self.network.preview(&id, &without)?),
        };
        self.planner(&valid)?.plan(&valid, id, wiring.as_ref())
    }

    /// What plans have in common.
    fn planner(&self, spec: &MicroVmSpec) -> Result<Planner> {
        let binary = self.binary()?;
        let jailer = self.jailer_for(spec)?.map(Path::to_owned);
        Ok(Planner {
            runtime_dir: self.runtime.path().to_owned(),
            firecracker: binary.path().to_owned(),
            version: binary.version(),
            options: self.options.runtime_options(),
            jailer,
            chroot_base: self.chroot_base(),
            base: std::env::current_dir().map_err(|e| {
                Error::new(ErrorKind::Host, "finding the current directory").because(e)
            })?,
        })
    }

    /// The network of these VMs.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Validates a spec, checks it against this host, plans it and makes its run dir. Only
    /// addresses are leased; nothing else is taken from the host before [`MicroVm::start`].
    pub async fn create(&self, spec: &MicroVmSpec) -> Result<MicroVm> {
        let valid = validate(spec, &ValidateContext::from(&self.options))?;
        // What the plan refuses is refused before anything is made.
        let unwired = self.plan(spec)?;
        let planner = self.planner(&valid)?;
        let context = self.check_context(&valid);
        let (runtime, keepers) = (self.runtime.clone(), self.keepers.clone());
        let (network, shelf) = (self.network.clone(), self.shelf());
        // Who makes a VM that ends with it is who starts it: soon, as a rule.
        let starting =
            (unwired.spec.lifetime.unwrap_or_default() == Lifetime::Owner).then(|| keepers.begin());
        let made = blocking(move || {
            host::check(&valid, &HostFacts::gather_to_check(&[]), &context)?;
            let leases = make::wanted(&network, &unwired.id, &valid, &[])?;
            let id = unwired.id.clone();
            let (run_dir, plan) =
                make::make(&runtime, &network, &id, &leases, |wiring| match wiring {
                    None => Ok(unwired),
                    wiring => planner.plan(&valid, unwired.id, wiring),
                })?;
            Ok(MicroVm::created(run_dir, keepers, network, shelf, plan))
        })
        .await;
        MicroVm::with_keeper(made, starting).await
    }

    /// The snapshots of its data directory, and those that its VMs made elsewhere.
    pub fn shelf(&self) -> Shelf {
        Shelf::of(self.options.data_dir())
    }

    /// Checks a valid spec against this host: files, TAP devices, KVM, space.
    pub fn check(&self, spec: &ValidSpec) -> Result<()> {
        Ok(host::check(
            spec,
            &HostFacts::gather_to_check(&[]),
            &self.check_context(spec),
        )?)
    }

    pub(crate) fn check_context(&self, spec: &MicroVmSpec) -> host::CheckContext {
        let asks = plan::jailed(spec, true);
        host::CheckContext {
            no_jail: asks && self.why_no_jail().is_some(),
            assume_kvm: self.parts.assume_kvm,
            runtime: self.options.runtime_options(),
            chroot_base: self.chroot_base(),
            ..host::CheckContext::default()
        }
    }

    /// A handle of a VM that was made before, by this process or another.
    pub fn get(&self, id: &VmId) -> Result<MicroVm> {
        Ok(MicroVm::existing(
            self.runtime.get(id)?,
            self.keepers.clone(),
            self.network.clone(),
            self.shelf(),
        ))
    }

    /// A handle of a VM that was only created, ready to be started by this process.
    pub async fn get_created(&self, id: &VmId) -> Result<MicroVm> {
        let run_dir = self.runtime.get(id)?;
        let state = run_dir.state()?;
        state
            .state
            .require(&[State::Created], "starting", id.as_str())?;
        let valid = validate(&state.spec, &ValidateContext::from(&self.options))?;
        let plan = match &state.origin {
            Some(origin) => self.plan_restored(origin, id, state.leases.clone()).await?,
            None => {
                let wiring = match state.leases.is_empty() {
                    true => None,
                    false => Some(self.network.wiring(state.leases)?),
                };
                self.planner(&valid)?
                    .plan(&valid, id.clone(), wiring.as_ref())?
            }
        };
        let (keepers, network) = (self.keepers.clone(), self.network.clone());
        let shelf = self.shelf();
        Ok(MicroVm::created(run_dir, keepers, network, shelf, plan))
    }

    /// What is known of every live VM. One that can't be read doesn't hide the others.
    pub fn list(&self) -> Result<Vec<(VmId, Result<VmState>)>> {
        let ids = self.runtime.ids()?;
        let read = |id: VmId| {
            let state = self.runtime.get(&id).and_then(|run_dir| run_dir.state());
            (id, state)
        };
        Ok(ids.into_iter().map(read).collect())
    }

    /// The records of VMs that have ended, the oldest first.
    pub fn ended(&self) -> Result<Vec<Ended>> {
        let records = self.runtime.records();
        let live = self.runtime.ids()?;
        Ok(records
            .ids()?
            .into_iter()
            .filter(|id| !live.contains(id))
            .filter_map(|id| records.get(&id).ok())
            .collect())
    }
}

/// What is known beforehand of every plan.
struct Planner {
    runtime_dir: PathBuf,
    firecracker: PathBuf,
    version: Version,
    options: RuntimeOptions,
    /// The jailer, where the VM is jailed.
    jailer: Option<PathBuf>,
    chroot_base: PathBuf,
    base: PathBuf,
}

impl Planner {
    fn plan(&self, spec: &ValidSpec, id: VmId, network: Option<&Wiring>) -> Result<Plan> {
        let context = plan::Context {
            id,
            runtime_dir: &self.runtime_dir,
            firecracker: &self.firecracker,
            version: self.version,
            options: &self.options,
            base: &self.base,
            network,
            jail: self.jailer.as_deref().map(|jailer| plan::JailContext {
                jailer,
                chroot_base: &self.chroot_base,
            }),
        };
        plan::plan(spec, &context)
    }
}

fn id_of(spec: &ValidSpec) -> Result<VmId> {
    match spec.id() {
        Some(id) => Ok(id.clone()),
        None => Ok(random::uuid()?.to_string().parse()?),
    }
}
