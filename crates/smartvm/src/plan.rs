//! What will be done for a VM, as data: computed from the spec alone, without touching the
//! host, and shown by `smartvm plan`.

mod arguments;
mod confined;
mod drives;
mod planner;
mod restore;
mod root;
mod swap;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use confined::{JailContext, chroot_base, jailed};
pub use restore::{Launch, Source, restore};
pub use root::Root;
pub use swap::Swap;
pub(crate) use swap::{Swapped, swap};

use crate::error::Result;
use crate::firecracker::Version;
use crate::firecracker::client::Request;
use crate::firecracker::model::{self, Paths};
use crate::jail;
use crate::name::VmId;
use crate::rundir::file;
use crate::spec::{MicroVmSpec, RuntimeOptions, Vsock};
use crate::step::Step;
use crate::wiring::{Wired, Wiring};
use arguments::arguments;
use planner::Planner;

/// The CID of a guest whose spec names none. Firecracker's vsock devices know nothing of
/// each other, so that all may have the same.
const GUEST_CID: u32 = 3;

/// What a plan needs to know beside the spec.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// The VM's id: the spec's, or one made for it.
    pub id: VmId,
    /// The directory of all run dirs.
    pub runtime_dir: &'a Path,
    /// The Firecracker that will run.
    pub firecracker: &'a Path,
    /// Its version.
    pub version: Version,
    /// How drives are treated where they don't say themselves.
    pub options: &'a RuntimeOptions,
    /// What relative paths of the spec are relative to.
    pub base: &'a Path,
    /// The network, with what is leased for the VM, where it has interfaces without a TAP.
    pub network: Option<&'a Wiring>,
    /// How VMs are jailed here; `None` where they can't be.
    pub jail: Option<JailContext<'a>>,
}

/// What will be done for one VM.
///
/// ```no_run
/// # fn example(smartvm: smartvm::SmartVm, spec: smartvm::spec::MicroVmSpec) -> smartvm::Result<()> {
/// let plan = smartvm.plan(&spec)?;
/// for step in &plan.steps {
///     println!("{step}");
/// }
/// for request in &plan.requests {
///     println!("{}", request.path());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Plan {
    /// The VM.
    pub id: VmId,
    /// Its run dir.
    pub run_dir: PathBuf,
    /// The directory that Firecracker works in.
    pub root: Root,
    /// The version of Firecracker that the requests are for.
    pub firecracker_version: Version,
    /// The spec with what it leaves open filled in, and absolute paths.
    pub spec: MicroVmSpec,
    /// Where Firecracker finds its files, seen from its root.
    pub paths: Paths,
    /// The effects on the host, in order. They are undone in reverse.
    pub steps: Vec<Step>,
    /// What is then sent to Firecracker, in order, before `InstanceStart`; for a restore, all
    /// that is sent.
    pub requests: Vec<Request>,
    /// How its guest comes to life.
    pub launch: Launch,
}

/// Plans a VM.
///
/// # Errors
/// What this version of Firecracker doesn't have, and a network interface without a TAP.
pub fn plan(spec: &MicroVmSpec, context: &Context<'_>) -> Result<Plan> {
    let run_dir = context.runtime_dir.join(context.id.as_str());
    let spec = filled_in(spec, context, &run_dir);
    let confined = confined::confined(&spec, context)?;
    let root = match &confined {
        Some(confined) => Root::jail(jail::root(&confined.directory)),
        None => Root::run_dir(&run_dir),
    };
    let mut planner = Planner::new(&run_dir, &root);
    let wired = match context.network {
        Some(network) => network.connect(&context.id, &spec, &[])?,
        None => Wired::untouched(&spec),
    };
    planner.begin(&wired, confined.as_ref(), context);
    let streams = planner.streams(&spec);
    let kernel = planner.bring(
        "the kernel",
        file::KERNEL,
        &spec.boot_source.kernel_image_path,
        false,
    );
    let initrd = spec
        .boot_source
        .initrd_path
        .as_deref()
        .map(|path| planner.bring("the initramfs", file::INITRD, path, false));
    let drives = planner.drives(&spec, context)?;
    let vsock = match &spec.vsock {
        Some(vsock) => Some(planner.vsock(&vsock.uds_path)?),
        None => None,
    };
    planner.spawn(
        context.firecracker,
        arguments(&context.id, &spec, &root, &streams)?,
        confined,
    );
    let steps = planner.steps;
    let paths = Paths {
        kernel,
        initrd,
        drives,
        vsock,
    };
    let requests = model::configuration(&wired.spec, &paths, context.version)?;
    Ok(Plan {
        id: context.id.clone(),
        firecracker_version: context.version,
        steps,
        requests,
        launch: Launch::Boot,
        paths,
        spec,
        run_dir,
        root,
    })
}

/// The spec with its id, absolute paths, and a vsock device for the agent.
fn filled_in(spec: &MicroVmSpec, context: &Context<'_>, run_dir: &Path) -> MicroVmSpec {
    let mut spec = spec.clone();
    spec.id = Some(context.id.to_string());
    let drives = spec
        .drives
        .iter_mut()
        .flat_map(|drive| [drive.path_on_host.as_mut(), drive.socket.as_mut()]);
    let paths = [
        Some(&mut spec.boot_source.kernel_image_path),
        spec.boot_source.initrd_path.as_mut(),
        spec.vsock.as_mut().map(|vsock| &mut vsock.uds_path),
        spec.logger.as_mut().map(|logger| &mut logger.log_path),
        spec.metrics
            .as_mut()
            .map(|metrics| &mut metrics.metrics_path),
        spec.serial.as_mut().map(|serial| &mut serial.path),
        spec.staging_dir.as_mut(),
    ];
    let jail = spec
        .jail
        .iter_mut()
        .flat_map(|jail| [jail.chroot_base.as_mut(), jail.net_ns.as_mut()]);
    for path in paths.into_iter().chain(drives).chain(jail).flatten() {
        *path = context.base.join(&*path);
    }
    spec.vsock.get_or_insert_with(|| {
        Vsock::builder()
            .guest_cid(GUEST_CID)
            .uds_path(run_dir.join(file::VSOCK))
            .build()
    });
    spec
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "VM {} in {}", self.id, self.run_dir.display())?;
        writeln!(out, "\nOn this host, undone in reverse:")?;
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(out, "{:>3}. {step}", number + 1)?;
            writeln!(out, "     undo: {}", step.undo_in_words())?;
        }
        writeln!(out, "\nSent to Firecracker {}:", self.firecracker_version)?;
        for request in &self.requests {
            let body = String::from_utf8_lossy(request.body());
            writeln!(out, "  {:?} {} {body}", request.method(), request.path())?;
        }
        match &self.launch {
            Launch::Boot => write!(out, "  Put /actions {{\"action_type\":\"InstanceStart\"}}"),
            Launch::Load { .. } => Ok(()),
        }
    }
}
