//! Many VMs of one user: making them, finding them, giving back what dead ones left.

mod gc;
#[cfg(feature = "download")]
mod images;
mod recover;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use gc::{Collected, Finding};
#[cfg(feature = "download")]
pub use images::{Sources, base_image_options};
pub use recover::Recovered;

use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Binary;
use crate::host::{self, HostFacts};
use crate::keeper;
use crate::name::VmId;
use crate::plan::{self, Plan};
use crate::process::ProcessId;
use crate::rundir::{Ended, RuntimeDir, State, VmState};
use crate::spec::{MicroVmSpec, SmartVmOptions};
use crate::teardown;
use crate::validate::{ValidSpec, ValidateContext, validate};
use crate::vm::{MicroVm, blocking};

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
#[derive(Debug)]
pub struct SmartVm {
    options: SmartVmOptions,
    parts: Parts,
    runtime: RuntimeDir,
    keeper: PathBuf,
    binary: OnceLock<Binary>,
}

impl SmartVm {
    /// Opens it: makes the runtime directory where it is missing. Nothing is started.
    pub fn open(options: SmartVmOptions, parts: Parts) -> Result<Self> {
        let shm_usable = Path::new("/dev/shm").is_dir();
        let runtime = RuntimeDir::open(&options.runtime_dir(shm_usable))?;
        let keeper = keeper::find(parts.keeper.as_deref())?;
        Ok(Self {
            options,
            parts,
            runtime,
            keeper,
            binary: OnceLock::new(),
        })
    }

    /// Another value for the same VMs, to be looked at on another thread.
    fn looking(&self) -> Self {
        Self {
            options: self.options.clone(),
            parts: self.parts.clone(),
            runtime: self.runtime.clone(),
            keeper: self.keeper.clone(),
            binary: self.binary.clone(),
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

    /// Validates a spec and plans its VM, without touching the host. Relative paths are
    /// relative to the current directory.
    pub fn plan(&self, spec: &MicroVmSpec) -> Result<Plan> {
        let valid = validate(spec, &ValidateContext::from(&self.options))?;
        self.plan_valid(&valid)
    }

    fn plan_valid(&self, spec: &ValidSpec) -> Result<Plan> {
        let binary = self.binary()?;
        let base = std::env::current_dir()
            .map_err(|e| Error::new(ErrorKind::Host, "finding the current directory").because(e))?;
        let id = match spec.id() {
            Some(id) => id.clone(),
            None => uuid::Uuid::new_v4().to_string().parse()?,
        };
        plan::plan(
            spec,
            &plan::Context {
                id,
                runtime_dir: self.runtime.path(),
                firecracker: binary.path(),
                version: binary.version(),
                options: &self.options.runtime_options(),
                base: &base,
            },
        )
    }

    /// Validates a spec, checks it against this host, plans it and makes its run dir. Nothing
    /// else is taken from the host before [`MicroVm::start`].
    pub async fn create(&self, spec: &MicroVmSpec) -> Result<MicroVm> {
        let valid = validate(spec, &ValidateContext::from(&self.options))?;
        let plan = self.plan_valid(&valid)?;
        let context = self.check_context();
        let (runtime, keeper) = (self.runtime.clone(), self.keeper.clone());
        blocking(move || {
            host::check(&valid, &HostFacts::gather(&[]), &context)?;
            make_run_dir(&runtime, keeper, plan)
        })
        .await
    }

    /// Makes the run dir of a VM whose plan was checked.
    pub(crate) async fn create_planned(&self, plan: Plan) -> Result<MicroVm> {
        let (runtime, keeper) = (self.runtime.clone(), self.keeper.clone());
        blocking(move || make_run_dir(&runtime, keeper, plan)).await
    }

    pub(crate) fn assume_kvm(&self) -> bool {
        self.parts.assume_kvm
    }

    /// Checks a valid spec against this host: files, TAP devices, KVM, space.
    pub fn check(&self, spec: &ValidSpec) -> Result<()> {
        Ok(host::check(
            spec,
            &HostFacts::gather(&[]),
            &self.check_context(),
        )?)
    }

    fn check_context(&self) -> host::CheckContext {
        host::CheckContext {
            assume_kvm: self.parts.assume_kvm,
            runtime: self.options.runtime_options(),
            ..host::CheckContext::default()
        }
    }

    /// A handle of a VM that was made before, by this process or another.
    pub fn get(&self, id: &VmId) -> Result<MicroVm> {
        Ok(MicroVm::existing(
            self.runtime.get(id)?,
            self.keeper.clone(),
        ))
    }

    /// A handle of a VM that was only created, ready to be started by this process.
    pub async fn get_created(&self, id: &VmId) -> Result<MicroVm> {
        let run_dir = self.runtime.get(id)?;
        let state = run_dir.state()?;
        state
            .state
            .require(&[State::Created], "starting", id.as_str())?;
        let plan = match &state.origin {
            None => self.plan(&state.spec)?,
            Some(origin) => {
                self.plan_restored(&origin.params, &origin.options, Some(id))
                    .await?
            }
        };
        Ok(MicroVm::created(run_dir, self.keeper.clone(), plan))
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

fn make_run_dir(runtime: &RuntimeDir, keeper: PathBuf, plan: Plan) -> Result<MicroVm> {
    let (run_dir, lock) = runtime.create(&plan.id)?;
    let lifetime = plan.spec.lifetime.unwrap_or_default();
    let made = ProcessId::myself().and_then(|owner| {
        run_dir.write_state(&VmState {
            state: State::Created,
            created_at: teardown::now(),
            spec: plan.spec.clone(),
            lifetime,
            owner,
            keeper: None,
            vmm: None,
            firecracker: plan.firecracker_version,
            paths: plan.paths.clone(),
            agent: plan.launch.agent(),
            origin: plan.launch.origin(),
            base: plan.launch.base(),
        })
    });
    drop(lock);
    match made {
        Ok(()) => Ok(MicroVm::created(run_dir, keeper, plan)),
        Err(e) => Err(e.with_cleanup(run_dir.remove().err())),
    }
}
