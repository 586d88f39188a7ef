//! From a snapshot to a microVM: verified first, then planned and started like any other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Manifest, Origin, Place, Snapshot, merge};
use crate::error::{Error, ErrorKind, Result};
use crate::host::{self, HostFacts};
use crate::name::VmId;
use crate::orchestrator::{SmartVm, make};
use crate::plan::{self, Plan, Source};
use crate::random;
use crate::rundir::Restored;
use crate::spec::{
    BootSource, Jail, JailMode, Lifetime, MachineConfig, MicroVmSpec, SnapshotLoadParams,
};
use crate::storage::{Progress, Watch};
use crate::validate::validate_snapshot_load;
use crate::vm::{MicroVm, StartOptions, blocking};
use crate::wiring::{Lease, Wiring};

/// How a snapshot is restored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// The new VM's id. Default: that of the VM that the snapshot was made of.
    pub id: Option<VmId>,
    /// Who the VM lives with. Default: `owner`.
    pub lifetime: Option<Lifetime>,
    /// Names to find it by. Default: those of the VM that the snapshot was made of.
    pub labels: Option<BTreeMap<String, String>>,
    /// The TAP device of a network interface, by the interface's id, where it is another than
    /// the one in the snapshot.
    pub taps: BTreeMap<String, String>,
    /// How it is confined. Default: as the VM that the snapshot was made of was to be.
    pub jail: Option<Jail>,
    /// Seconds after which the VM is ended.
    pub max_runtime_s: Option<u64>,
    /// Where writable drives are copied to. Default: the run dir.
    pub staging_dir: Option<PathBuf>,
    /// Verify memory and drives even where nothing speaks for a change.
    pub verify: bool,
    /// Load a pair of files without a manifest too, and on another kind of host.
    pub unchecked: bool,
}

impl SmartVm {
    /// Makes a VM out of a snapshot and starts it: it goes on where the snapshot was made.
    ///
    /// # Errors
    /// As for [`SmartVm::create_from_snapshot`] and [`MicroVm::start`].
    pub async fn restore(
        &self,
        params: &SnapshotLoadParams,
        options: &RestoreOptions,
    ) -> Result<MicroVm> {
        let mut vm = self.made_from_snapshot(params, options, true).await?;
        vm.start(&StartOptions::default()).await?;
        Ok(vm)
    }

    /// Makes a VM out of a snapshot, to be started by [`MicroVm::start`]. All that can be known
    /// before Firecracker loads it is verified: files, host, id.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for damaged or missing files, [`ErrorKind::Host`] on another kind
    /// of host, [`ErrorKind::WrongState`] for an id in use and for files without a manifest.
    pub async fn create_from_snapshot(
        &self,
        params: &SnapshotLoadParams,
        options: &RestoreOptions,
    ) -> Result<MicroVm> {
        // Who makes a VM that ends with it is who starts it: soon, as a rule.
        let starts = options.lifetime.unwrap_or_default() == Lifetime::Owner;
        self.made_from_snapshot(params, options, starts).await
    }

    async fn made_from_snapshot(
        &self,
        params: &SnapshotLoadParams,
        options: &RestoreOptions,
        starts: bool,
    ) -> Result<MicroVm> {
        let restorer = self.restorer(params, options)?;
        let (network, keepers) = (self.network().clone(), self.keepers().clone());
        let shelf = self.shelf();
        let starting = starts.then(|| keepers.begin());
        let made = blocking(move || {
            let (source, id) = restorer.verified(None)?;
            // What the plan refuses is refused before anything is made.
            restorer.planned(&source, &id)?;
            let spec = restorer.spec(&source);
            let leases = make::wanted(&network, &id, &spec, &source.manifest.leases)?;
            let runtime = restorer.smartvm.runtime();
            let (run_dir, plan) = make::make(runtime, &network, &id, &leases, |wiring| {
                restorer.plan(&source, &id, wiring)
            })?;
            Ok(MicroVm::created(run_dir, keepers, network, shelf, plan))
        })
        .await;
        MicroVm::with_keeper(made, starting).await
    }

    /// What will be done to restore a snapshot, which is verified for it.
    ///
    /// # Errors
    /// As for [`SmartVm::create_from_snapshot`].
    pub async fn plan_restore(
        &self,
        params: &SnapshotLoadParams,
        options: &RestoreOptions,
    ) -> Result<Plan> {
        let restorer = self.restorer(params, options)?;
        blocking(move || {
            let (source, id) = restorer.verified(None)?;
            restorer.planned(&source, &id)
        })
        .await
    }

    /// The same, for the VM `made`, which was made for it before and has these leases.
    pub(crate) async fn plan_restored(
        &self,
        origin: &Restored,
        made: &VmId,
        leases: Vec<Lease>,
    ) -> Result<Plan> {
        let restorer = self.restorer(&origin.params, &origin.options)?;
        let made = made.clone();
        blocking(move || {
            let (source, id) = restorer.verified(Some(made))?;
            let wiring = match leases.is_empty() {
                true => None,
                false => Some(restorer.smartvm.network().wiring(leases)?),
            };
            restorer.plan(&source, &id, wiring.as_ref())
        })
        .await
    }

    fn restorer(&self, params: &SnapshotLoadParams, options: &RestoreOptions) -> Result<Restorer> {
        validate_snapshot_load(params).map_err(Error::from)?;
        self.binary()?;
        Ok(Restorer {
            smartvm: self.looking(),
            params: params.clone(),
            options: options.clone(),
        })
    }
}

/// What a restore needs to know.
struct Restorer {
    smartvm: SmartVm,
    params: SnapshotLoadParams,
    options: RestoreOptions,
}

impl Restorer {
    /// Verifies the snapshot and this host; returns it with the new VM's id: that of `made`, if
    /// it was made before.
    fn verified(&self, made: Option<VmId>) -> Result<(Source, VmId)> {
        let place = Place::new(&self.params.snapshot_path, &self.params.mem_file_path)?;
        let facts = HostFacts::gather(&[]);
        let here = Origin::here(&facts, self.smartvm.binary()?.version());
        let source = match Snapshot::open(&place) {
            Ok(snapshot) => Source {
                memory: checked(&snapshot, &here, &self.options)?,
                dir: Some(place.dir()),
                manifest: snapshot.manifest,
                state: place.state().to_owned(),
            },
            Err(e) if e.kind() == ErrorKind::WrongState && self.options.unchecked => {
                let jail = self.options.jail.as_ref();
                if jail.is_some_and(|jail| jail.mode == Some(JailMode::Required)) {
                    let message = "a snapshot without a manifest can't be restored into a jail: \
                                   which files its drives are isn't known";
                    return Err(Error::new(ErrorKind::Invalid, message)
                        .hint("restore it without a jail, if you trust it: --jail off"));
                }
                bare_pair(&place, here)?
            }
            Err(e) => return Err(e),
        };
        let id = match made {
            Some(id) => id,
            None => {
                let id = &self.options.id;
                let id = id.clone().unwrap_or(source.manifest.vm.clone());
                self.smartvm.runtime().require_free(&id)?;
                id
            }
        };
        let spec = self.spec(&source);
        let check = self.smartvm.check_context(&spec);
        host::require_kvm(&facts, check.assume_kvm)?;
        host::check_jail(&spec, &facts, &check)?;
        Ok((source, id))
    }

    /// The spec as far as it decides about jail and leases.
    fn spec(&self, source: &Source) -> MicroVmSpec {
        let mut spec = source.manifest.spec.clone();
        if let Some(jail) = &self.options.jail {
            spec.jail = Some(jail.clone());
        }
        for interface in &mut spec.network_interfaces {
            if let Some(tap) = self.options.taps.get(&interface.iface_id) {
                interface.host_dev_name = Some(tap.clone());
            }
        }
        spec
    }

    /// The plan before anything is leased.
    fn planned(&self, source: &Source, id: &VmId) -> Result<Plan> {
        let without = make::without_tap(&self.spec(source));
        let mut wiring = match without.is_empty() {
            true => None,
            false => Some(self.smartvm.network().preview(id, &without)?),
        };
        // Whether they are free is seen when they are leased.
        for lease in wiring.iter_mut().flat_map(|wiring| &mut wiring.leases) {
            let had = source.manifest.leases.iter();
            for had in had.filter(|had| had.iface_id == lease.iface_id) {
                (lease.ip, lease.mac) = (had.ip, had.mac);
            }
        }
        self.plan(source, id, wiring.as_ref())
    }

    fn plan(&self, source: &Source, id: &VmId, network: Option<&Wiring>) -> Result<Plan> {
        let jailer = self.smartvm.jailer_for(&self.spec(source))?;
        let (binary, chroot_base) = (self.smartvm.binary()?, self.smartvm.chroot_base());
        let context = plan::Context {
            id: id.clone(),
            runtime_dir: self.smartvm.runtime().path(),
            firecracker: binary.path(),
            version: binary.version(),
            options: &crate::spec::RuntimeOptions::default(),
            base: Path::new("/"),
            network,
            jail: jailer.map(|jailer| plan::JailContext {
                jailer,
                chroot_base: &chroot_base,
            }),
        };
        plan::restore(source, &self.params, &self.options, &context)
    }
}

/// Verifies a snapshot and what it builds on; returns its memory's layers, the full one first.
fn checked(snapshot: &Snapshot, here: &Origin, options: &RestoreOptions) -> Result<Vec<PathBuf>> {
    if !options.unchecked {
        snapshot.manifest.origin.require_like(here)?;
        if let Some(spoken) = snapshot.manifest.agent
            && smartvm_agent::protocol::negotiate(&[spoken, spoken.saturating_sub(1)]).is_none()
        {
            let message = format!(
                "the agent in the snapshot speaks protocol version {spoken}, and this smartvm \
                 doesn't"
            );
            return Err(Error::new(ErrorKind::Host, message)
                .hint("use the smartvm that made it; --unchecked tries it all the same"));
        }
    }
    let (mut quiet, never) = (|_: Progress| {}, || false);
    let mut watch = Watch::new(&mut quiet, &never);
    let chain = snapshot.chain()?;
    for one in &chain {
        one.verify(options.verify, &mut watch)?;
    }
    Ok(chain
        .iter()
        .map(|one| one.place().memory().to_owned())
        .collect())
}

/// A pair of files that nothing is known of: Firecracker itself finds drives and TAPs where
/// they were when it was made.
fn bare_pair(place: &Place, here: Origin) -> Result<Source> {
    let size = |path: &Path| {
        path.metadata()
            .map(|found| found.len())
            .map_err(|e| Error::io("looking at", path, e))
    };
    let memory = size(place.memory())?;
    let none = |size_bytes| super::FileSum {
        size_bytes,
        sha256: String::new(),
    };
    let spec = MicroVmSpec::builder()
        .boot_source(
            BootSource::builder()
                .kernel_image_path(place.state())
                .build(),
        )
        .machine_config(
            MachineConfig::builder()
                .vcpu_count(1)
                .mem_size_mib(memory >> 20)
                .build(),
        )
        .build();
    Ok(Source {
        manifest: Manifest {
            id: String::new(),
            vm: random::uuid()?.to_string().parse()?,
            created_at: String::new(),
            kind: crate::spec::SnapshotType::Full,
            origin: here,
            agent: None,
            state: none(size(place.state())?),
            memory: none(memory),
            drives: Vec::new(),
            vsock: None,
            leases: Vec::new(),
            parent: None,
            spec,
        },
        dir: None,
        state: place.state().to_owned(),
        memory: vec![place.memory().to_owned()],
    })
}

/// Where the whole memory of a restored VM is: the only layer, or what they are merged to.
pub(crate) fn whole_memory(source: &Source) -> Result<PathBuf> {
    match (source.memory.as_slice(), &source.dir) {
        ([only], _) => Ok(only.clone()),
        ([_, ..], Some(dir)) => Ok(merge::target(dir)),
        _ => Err(Error::new(ErrorKind::Corrupt, "the snapshot has no memory")),
    }
}
