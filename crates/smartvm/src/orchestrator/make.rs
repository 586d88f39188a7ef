//! Making a VM: its run dir, what it leases of the network, its state.

use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::name::VmId;
use crate::network::Network;
use crate::plan::Plan;
use crate::process::ProcessId;
use crate::rundir::{RunDir, RuntimeDir, State, VmState, file};
use crate::spec::MicroVmSpec;
use crate::step::Step;
use crate::teardown;
use crate::wiring::{Lease, NetworkStep, Wiring, address_before};

/// The interfaces that need a TAP device.
pub(crate) fn without_tap(spec: &MicroVmSpec) -> Vec<String> {
    let interfaces = spec.network_interfaces.iter();
    interfaces
        .filter(|one| one.host_dev_name.is_none())
        .map(|one| one.iface_id.clone())
        .collect()
}

/// What the VM's interfaces need of the network; those that had an address in another life
/// get it again where it is free.
pub(crate) fn wanted(
    network: &Network,
    vm: &VmId,
    spec: &MicroVmSpec,
    had: &[Lease],
) -> Result<Vec<NetworkStep>> {
    let interfaces = spec.network_interfaces.iter();
    interfaces
        .filter(|one| one.host_dev_name.is_none())
        .map(|one| {
            let before = address_before(had, &one.iface_id);
            network.lease_step(vm, one, spec.firewall.as_ref(), before)
        })
        .collect()
}

/// Makes the VM's run dir, leases, plans, and writes its state. What was taken is given back
/// if anything fails.
pub(crate) fn make(
    runtime: &RuntimeDir,
    network: &Network,
    id: &VmId,
    leases: &[NetworkStep],
    plan: impl FnOnce(Option<&Wiring>) -> Result<Plan>,
) -> Result<(RunDir, Plan)> {
    let (run_dir, lock) = runtime.create(id)?;
    let made = (|| {
        let leases = lease(&run_dir, network, leases)?;
        let wiring = match leases.is_empty() {
            true => None,
            false => Some(network.wiring(leases.clone())?),
        };
        let plan = plan(wiring.as_ref())?;
        run_dir.write_state(&created(&plan, leases)?)?;
        Ok(plan)
    })();
    let made = made.map_err(|e: Error| e.with_cleanup(unmake(&run_dir)));
    drop(lock);
    Ok((run_dir, made?))
}

/// Leases through the VM's ledger.
fn lease(run_dir: &RunDir, network: &Network, steps: &[NetworkStep]) -> Result<Vec<Lease>> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let mut ledger = Ledger::create(&run_dir.file(file::LEDGER))?;
    for step in steps {
        ledger.run(&Step::Network(step.clone()), |_| step.apply(network))?;
    }
    let outcomes = ledger
        .entries()
        .iter()
        .filter_map(|entry| entry.outcome.as_ref());
    Ok(outcomes
        .filter_map(|outcome| outcome.lease.clone())
        .collect())
}

/// Gives back what the making of a VM took before it failed; returns what can't be.
fn unmake(run_dir: &RunDir) -> Vec<Error> {
    let mut failures = match Ledger::open(&run_dir.file(file::LEDGER)) {
        Ok(Some(mut ledger)) => ledger.undo_all(|entry| entry.step.undo(entry.outcome.as_ref())),
        Ok(None) => Vec::new(),
        Err(e) => vec![e],
    };
    if failures.is_empty() {
        failures.extend(run_dir.remove().err());
    }
    failures
}

/// The state of a VM that is only described yet.
fn created(plan: &Plan, leases: Vec<Lease>) -> Result<VmState> {
    Ok(VmState {
        state: State::Created,
        since: None,
        created_at: teardown::now(),
        spec: plan.spec.clone(),
        lifetime: plan.spec.lifetime.unwrap_or_default(),
        owner: ProcessId::myself()?,
        keeper: None,
        vmm: None,
        firecracker: plan.firecracker_version,
        paths: plan.paths.clone(),
        leases,
        root: plan.root.is_jail().then(|| plan.root.clone()),
        agent: plan.launch.agent(),
        origin: plan.launch.origin(),
        base: plan.launch.base(),
        moves: plan.launch.moves().to_vec(),
    })
}
