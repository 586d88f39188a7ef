//! The plan of a VM that goes on from a snapshot: the same steps, with files brought to where
//! Firecracker knows them, and a load in place of the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use smartvm_agent::protocol::MOVE_SINCE;

use super::confined::confined;
use super::drives::Wanted;
use super::{Context, Plan, Planner, Root, arguments};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::client::{Method, Request};
use crate::firecracker::model::snapshot::{self as wire, Load};
use crate::firecracker::model::{Paths, VmBody, VmState};
use crate::jail;
use crate::rundir::{Restored, file};
use crate::snapshot::{Manifest, Parent, RestoreOptions, drive_name, whole_memory};
use crate::spec::{MicroVmSpec, SnapshotLoadParams, Vsock};
use crate::step::Step;
use crate::wiring::{Lease, Move, Wired};

/// How a guest comes to life.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase", tag = "how", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Launch {
    /// Its kernel boots.
    Boot,
    /// It goes on from a snapshot.
    Load {
        /// Whether it runs then; otherwise it is paused.
        resume: bool,
        /// The newest version of the protocol that its agent speaks, if it has one.
        agent: Option<u32>,
        /// What it was restored from.
        origin: Box<Restored>,
        /// What a diff of it would build on.
        base: Option<Parent>,
        /// What the guest has to make of its addresses.
        moves: Vec<Move>,
    },
}

impl Launch {
    pub(crate) fn agent(&self) -> Option<u32> {
        match self {
            Self::Boot => None,
            Self::Load { agent, .. } => *agent,
        }
    }

    pub(crate) fn origin(&self) -> Option<Restored> {
        match self {
            Self::Boot => None,
            Self::Load { origin, .. } => Some((**origin).clone()),
        }
    }

    pub(crate) fn moves(&self) -> &[Move] {
        match self {
            Self::Boot => &[],
            Self::Load { moves, .. } => moves,
        }
    }

    pub(crate) fn base(&self) -> Option<Parent> {
        match self {
            Self::Boot => None,
            Self::Load { base, .. } => base.clone(),
        }
    }
}

/// A snapshot as plans see it: read and verified before.
#[derive(Debug, Clone)]
pub struct Source {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Its directory, where it has one.
    pub dir: Option<PathBuf>,
    /// Its state file.
    pub state: PathBuf,
    /// Its memory: the full one, then each diff.
    pub memory: Vec<PathBuf>,
}

/// Plans a VM that goes on from a snapshot.
///
/// # Errors
/// What this version of Firecracker can't, and a TAP for an interface that isn't there.
pub fn restore(
    source: &Source,
    params: &SnapshotLoadParams,
    options: &RestoreOptions,
    context: &Context<'_>,
) -> Result<Plan> {
    let run_dir = context.runtime_dir.join(context.id.as_str());
    let track = params.enable_diff_snapshots.unwrap_or(false);
    let mut spec = restored_spec(source, options, context, track)?;
    let asked = spec.clone();
    let confined = confined(&asked, context)?;
    let root = match &confined {
        Some(confined) => Root::jail(jail::root(&confined.directory)),
        None => Root::run_dir(&run_dir),
    };
    let mut planner = Planner::new(&run_dir, &root);
    let (wired, moves) = connect(source, &mut spec, context)?;
    planner.begin(&wired, confined.as_ref(), context);
    let streams = planner.streams(&spec);
    if let Some(dir) = &source.dir {
        planner.step(Step::UseSnapshot {
            dir: dir.clone(),
            id: source.manifest.id.clone(),
            vm: context.id.to_string(),
            runtime_dir: context.runtime_dir.to_owned(),
        });
    }
    let memory = whole_memory(source)?;
    if source.memory.len() > 1 {
        planner.step(Step::MergeMemory {
            layers: source.memory.clone(),
            target: memory.clone(),
        });
    }
    let state_link = planner.bring("the snapshot's state", file::SNAPSHOT, &source.state, false);
    let memory_link = planner.bring("the snapshot's memory", file::MEMORY, &memory, false);
    if let Some(dir) = &source.dir {
        let wanted = snapshot_drives(&source.manifest, dir, &mut spec)?;
        planner.place_drives(&wanted, spec.staging_dir.as_deref(), context);
    }
    if let Some(vsock) = &source.manifest.vsock {
        let socket = planner.fresh_socket(vsock);
        let cid = spec
            .vsock
            .as_ref()
            .map_or(super::GUEST_CID, |it| it.guest_cid);
        spec.vsock = Some(Vsock::builder().guest_cid(cid).uds_path(socket).build());
    }
    planner.spawn(
        context.firecracker,
        arguments(&context.id, &spec, &root, &streams)?,
        confined,
    );
    let steps = planner.steps;
    let resume = params.resume_vm.unwrap_or(false);
    let taps = new_taps(source, options, context);
    let mut requests = vec![wire::load(
        Load {
            state: &state_link,
            memory: &memory_link,
            track,
            // Its metadata has to be there before it runs.
            resume: resume && spec.metadata.is_none(),
            taps: &taps,
        },
        context.version,
    )?];
    if let Some(metadata) = &spec.metadata {
        requests.push(Request::new(Method::Put, "/mmds", metadata)?);
        if resume {
            let state = VmState::Resumed;
            requests.push(VmBody { state }.request()?);
        }
    }
    let paths = Paths {
        kernel: file::KERNEL.into(),
        initrd: None,
        drives: source
            .manifest
            .drives
            .iter()
            .map(|drive| drive.path.clone())
            .collect(),
        vsock: source.manifest.vsock.clone(),
    };
    let manifest = &source.manifest;
    let base = (track && !manifest.id.is_empty()).then(|| Parent {
        id: manifest.id.clone(),
        snapshot_path: source.state.clone(),
        mem_file_path: params.mem_file_path.clone(),
    });
    Ok(Plan {
        id: context.id.clone(),
        firecracker_version: context.version,
        steps,
        requests,
        launch: Launch::Load {
            resume,
            agent: manifest.agent,
            origin: Box::new(Restored {
                id: manifest.id.clone(),
                params: params.clone(),
                options: options.clone(),
            }),
            base,
            moves,
        },
        paths,
        spec,
        root,
        run_dir,
    })
}

/// The spec of the VM that the snapshot was made of, as this one's. What was a file of that
/// VM's alone (log, metrics, serial output) isn't this one's.
fn restored_spec(
    source: &Source,
    options: &RestoreOptions,
    context: &Context<'_>,
    track: bool,
) -> Result<MicroVmSpec> {
    let mut spec = source.manifest.spec.clone();
    spec.id = Some(context.id.to_string());
    spec.lifetime = options.lifetime;
    spec.max_runtime_s = options.max_runtime_s;
    spec.staging_dir.clone_from(&options.staging_dir);
    (spec.logger, spec.metrics, spec.serial) = (None, None, None);
    if let Some(jail) = &options.jail {
        spec.jail = Some(jail.clone());
    }
    spec.machine_config.track_dirty_pages = track.then_some(true);
    if let Some(labels) = &options.labels {
        spec.labels.clone_from(labels);
    }
    for (iface, tap) in &options.taps {
        let known = source.dir.is_none();
        let interface = spec
            .network_interfaces
            .iter_mut()
            .find(|interface| interface.iface_id == *iface);
        match interface {
            Some(interface) => interface.host_dev_name = Some(tap.clone()),
            None if known => {}
            None => {
                let message = format!("the snapshot has no network interface {iface}");
                return Err(Error::new(ErrorKind::Invalid, message));
            }
        }
    }
    Ok(spec)
}

/// Connects the interfaces whose TAP is ours to make, and tells what the guest has to change:
/// nothing, where its address is leased again.
fn connect(
    source: &Source,
    spec: &mut MicroVmSpec,
    context: &Context<'_>,
) -> Result<(Wired, Vec<Move>)> {
    let Some(network) = context.network else {
        return Ok((Wired::untouched(spec), Vec::new()));
    };
    let had = &source.manifest.leases;
    let moves = network.moves(had);
    if let Some(first) = moves.first()
        && source.manifest.agent.is_none_or(|it| it < MOVE_SINCE)
    {
        let message = format!(
            "the guest's address {} belongs to another VM or network by now, and no agent in the \
             guest can take {} instead",
            first.from, first.to
        );
        return Err(Error::new(ErrorKind::WrongState, message)
            .hint("end the VM that has the address, or give a TAP device of your own (--tap)"));
    }
    // As it was leased: the spec is the moved guest's only afterwards.
    let wired = network.connect(&context.id, spec, had)?;
    for one in &moves {
        let interfaces = spec.network_interfaces.iter_mut();
        for interface in interfaces.filter(|it| it.iface_id == one.iface_id) {
            interface.guest_mac = Some(one.mac.to_string());
        }
    }
    Ok((wired, moves))
}

/// The TAPs that aren't those of the snapshot.
fn new_taps(
    source: &Source,
    options: &RestoreOptions,
    context: &Context<'_>,
) -> BTreeMap<String, String> {
    let mut taps = options.taps.clone();
    let had = &source.manifest.leases;
    for lease in context.network.iter().flat_map(|network| &network.leases) {
        let same = |one: &&Lease| one.iface_id == lease.iface_id && one.tap == lease.tap;
        if had.iter().find(same).is_none() {
            taps.insert(lease.iface_id.clone(), lease.tap.to_string());
        }
    }
    taps
}

/// The drives of a snapshot, under the names that Firecracker knows.
fn snapshot_drives(manifest: &Manifest, dir: &Path, spec: &mut MicroVmSpec) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for (drive, theirs) in manifest.drives.iter().zip(&mut spec.drives) {
        let name = drive_name(&drive.path).ok_or_else(|| {
            let message = format!("drive path {:?} leads elsewhere", drive.path);
            Error::new(ErrorKind::Corrupt, message)
        })?;
        let copy = dir.join(file::DRIVES).join(name);
        theirs.path_on_host = Some(copy.clone());
        theirs.ephemeral = Some(!drive.read_only);
        let (id, read_only) = (&drive.drive_id, drive.read_only);
        wanted.push(Wanted::of_snapshot(id, copy, name, read_only));
    }
    Ok(wanted)
}
