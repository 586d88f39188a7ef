//! What will be done for a VM, as data: computed from the spec alone, without touching the
//! host, and shown by `smartvm plan`.

mod restore;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use restore::{Launch, Source, restore};

use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Version;
use crate::firecracker::client::Request;
use crate::firecracker::model::{self, Paths};
use crate::jail::{self, JailStep};
use crate::keeper::Pump;
use crate::name::VmId;
use crate::network::{Wired, Wiring};
use crate::rundir::file;
use crate::spec::{Drive, LogLevel, MicroVmSpec, RuntimeOptions, Vsock};
use crate::step::Step;

mod confined;
mod root;

pub use confined::{JailContext, chroot_base, jailed};
pub use root::Root;

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
    let mut planner = Planner {
        run_dir: &run_dir,
        root: &root,
        steps: Vec::new(),
        pumps: Vec::new(),
    };
    if let Some(confined) = &confined {
        planner.steps.extend(confined.steps(context));
    }
    let wired = match context.network {
        Some(network) => network.connect(&context.id, &spec)?,
        None => Wired::untouched(&spec),
    };
    // First of all: what is leased already when the VM is made.
    planner
        .steps
        .extend(wired.steps.into_iter().map(Step::Network));
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
    planner.step(Step::ReserveSocket {
        path: root.file(file::API_SOCKET),
    });
    planner.step(Step::SpawnVmm {
        executable: context.firecracker.to_owned(),
        args: arguments(&context.id, &spec, &root, &streams)?,
        directory: root.path().to_owned(),
        jailer: confined.as_ref().map(|confined| confined.jailer.clone()),
        cgroup: confined.and_then(|confined| confined.cgroup),
        pumps: planner.pumps.clone(),
    });
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

struct Planner<'a> {
    run_dir: &'a Path,
    root: &'a Root,
    steps: Vec<Step>,
    pumps: Vec<Pump>,
}

/// Where Firecracker writes what the user wants in files, seen from its root.
struct Streams {
    log: Option<String>,
    metrics: Option<String>,
}

impl Planner<'_> {
    fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    fn link(&mut self, path: PathBuf, target: &Path) {
        self.step(Step::Link {
            path,
            target: target.to_owned(),
        });
    }

    /// A file of the host's in Firecracker's root, by a link or into the jail; returns its
    /// path seen from there.
    fn bring(&mut self, what: &str, name: &str, source: &Path, writable: bool) -> String {
        let target = self.root.file(name);
        if self.root.is_jail() {
            self.step(Step::Jail(JailStep::Bring {
                what: what.to_owned(),
                source: source.to_owned(),
                target,
                writable,
            }));
        } else {
            self.link(target, source);
        }
        name.to_owned()
    }

    /// A pipe that Firecracker opens.
    fn pipe(&mut self, name: &str) {
        let path = self.root.file(name);
        self.step(match self.root.is_jail() {
            true => Step::Jail(JailStep::MakePipe { path }),
            false => Step::MakeFifo { path },
        });
    }

    /// The console, the log, the metrics.
    fn streams(&mut self, spec: &MicroVmSpec) -> Streams {
        self.step(Step::MakeFifo {
            path: self.run_dir.join(file::CONSOLE_IN),
        });
        self.pipe(file::VMM_LOG_IN);
        let logger = spec.logger.as_ref().map(|logger| &logger.log_path);
        let metrics = spec.metrics.as_ref().map(|metrics| &metrics.metrics_path);
        // The keeper copies the console there.
        if let Some(serial) = &spec.serial {
            self.step(Step::EnsureFile {
                path: serial.path.clone(),
            });
        }
        Streams {
            log: logger.map(|path| self.output("log.in", path)),
            metrics: metrics.map(|path| self.output("metrics.in", path)),
        }
    }

    /// A file of the user's that Firecracker writes to: in a jail by way of the keeper.
    fn output(&mut self, pipe: &str, file: &Path) -> String {
        self.step(Step::EnsureFile {
            path: file.to_owned(),
        });
        if !self.root.is_jail() {
            // Validated: paths that Firecracker is told are UTF-8.
            return file.to_string_lossy().into_owned();
        }
        self.pipe(pipe);
        self.pumps.push(Pump {
            pipe: pipe.to_owned(),
            file: file.to_owned(),
        });
        pipe.to_owned()
    }

    /// Links or copies of the drives' files; returns their paths seen from its root.
    fn drives(&mut self, spec: &MicroVmSpec, context: &Context<'_>) -> Result<Vec<String>> {
        if spec.drives.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.root.file(file::DRIVES);
        self.step(match self.root.is_jail() {
            true => Step::Jail(JailStep::MakeDir { path }),
            false => Step::MakeDir { path },
        });
        let any_staged = spec
            .drives
            .iter()
            .any(|drive| drive.staged(context.options));
        let elsewhere = spec.staging_dir.as_ref().filter(|_| any_staged);
        let elsewhere = elsewhere.map(|dir| dir.join(format!("smartvm-{}", context.id)));
        if let Some(path) = &elsewhere {
            self.step(Step::ClaimDir {
                path: path.clone(),
                vm: context.id.to_string(),
                runtime_dir: context.runtime_dir.to_owned(),
            });
        }
        let mut paths = Vec::new();
        for drive in &spec.drives {
            let source = drive
                .path_on_host
                .as_ref()
                .or(drive.socket.as_ref())
                .ok_or_else(|| {
                    let message = format!("drive {} has neither file nor socket", drive.drive_id);
                    Error::new(ErrorKind::Invalid, message)
                })?;
            let name = format!("{}/{}", file::DRIVES, drive_name(drive, source));
            let what = format!("drive {}", drive.drive_id);
            if !drive.staged(context.options) {
                let writable = drive.path_on_host.is_some() && !drive.read_only();
                paths.push(self.bring(&what, &name, source, writable));
                continue;
            }
            let target = match &elsewhere {
                Some(dir) => dir.join(drive_name(drive, source)),
                None => self.root.file(&name),
            };
            self.step(Step::StageDrive {
                drive_id: drive.drive_id.clone(),
                source: source.clone(),
                target: target.clone(),
            });
            if self.root.is_jail() {
                self.step(Step::Jail(JailStep::Own {
                    path: target.clone(),
                }));
            }
            if elsewhere.is_some() {
                self.bring(&what, &name, &target, !drive.read_only());
            }
            paths.push(name);
        }
        Ok(paths)
    }

    /// Reserves the vsock device's socket; returns its path seen from Firecracker's root,
    /// short enough for a socket address however long the directory's path is.
    fn vsock(&mut self, socket: &Path) -> Result<String> {
        let ours = self.root.file(file::VSOCK);
        self.step(Step::ReserveSocket {
            path: socket.to_owned(),
        });
        if self.root.is_jail() {
            // Firecracker binds its own; where the user looks for it is a link to that.
            self.step(Step::ReserveSocket { path: ours.clone() });
            self.link(socket.to_owned(), &ours);
            return Ok(file::VSOCK.to_owned());
        }
        if socket == ours {
            return Ok(file::VSOCK.to_owned());
        }
        let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(Error::new(ErrorKind::Invalid, "vsock.udsPath names no file").at(socket));
        };
        let name = utf8(Path::new(name), "vsock.udsPath")?;
        self.link(self.root.file("vsock"), dir);
        Ok(format!("vsock/{name}"))
    }
}

/// How another file is put behind a drive of a running VM.
#[derive(Debug, Clone, PartialEq)]
pub struct Swap {
    /// The effects on the host.
    pub steps: Vec<Step>,
    /// The new file, seen from Firecracker's working directory.
    pub path: String,
    /// Whether the drive's files are copied for this VM.
    pub staged: bool,
    /// What led to the old file.
    pub old_path: PathBuf,
    /// The old file, or its copy.
    pub old_file: PathBuf,
}

/// Plans to replace a drive's file, from the one to the other. `seen` is where Firecracker finds
/// the old one; whether that is a copy shows by where it leads. `number` tells the new name from
/// all before.
pub(crate) fn swap(
    run_dir: &Path,
    drive_id: &str,
    seen: &str,
    (old, new): (&Path, &Path),
    number: usize,
) -> Swap {
    let old_path = run_dir.join(seen);
    let link = std::fs::read_link(&old_path).ok();
    let staged = link.as_deref() != Some(old);
    let name = image_name(&format!("{drive_id}.{number}"), new);
    let path = format!("{}/{name}", file::DRIVES);
    let place = run_dir.join(&path);
    let mut steps = Vec::new();
    let mut stage = |target: PathBuf| {
        steps.push(Step::StageDrive {
            drive_id: drive_id.to_owned(),
            source: new.to_owned(),
            target,
        });
    };
    let target = match (&link, staged) {
        (_, false) => Some(new.to_owned()),
        (None, true) => {
            stage(place.clone());
            None
        }
        // The copies are in another directory.
        (Some(old_copy), true) => {
            let target = old_copy.with_file_name(&name);
            stage(target.clone());
            Some(target)
        }
    };
    if let Some(target) = target {
        steps.push(Step::Link {
            path: place,
            target,
        });
    }
    Swap {
        steps,
        path,
        staged,
        old_file: link.unwrap_or_else(|| old_path.clone()),
        old_path,
    }
}

/// A drive's name in the run dir: its id and the name of its image, for whoever looks there.
fn drive_name(drive: &Drive, source: &Path) -> String {
    image_name(&drive.drive_id, source)
}

fn image_name(id: &str, source: &Path) -> String {
    const MOST_CHARS: usize = 40;
    let image = source.file_name().unwrap_or_default().to_string_lossy();
    let image: String = image.chars().take(MOST_CHARS).collect();
    format!("{id}-{image}")
}

/// Firecracker's arguments. The log is set up by them, not by a request, so that it holds
/// what comes before the first request too. The jailer adds the id by itself.
fn arguments(id: &VmId, spec: &MicroVmSpec, root: &Root, streams: &Streams) -> Result<Vec<String>> {
    let mut args: Vec<String> = Vec::new();
    let mut option = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
    if !root.is_jail() {
        option("--id", id.as_str());
    }
    option("--api-sock", file::API_SOCKET);
    match (&spec.logger, &streams.log) {
        (Some(logger), Some(path)) => {
            utf8(&logger.log_path, "logger.logPath")?;
            option("--log-path", path);
            option("--level", level_name(logger.level.unwrap_or_default()));
            if logger.show_level.unwrap_or(false) {
                args.push("--show-level".into());
            }
            if logger.show_log_origin.unwrap_or(false) {
                args.push("--show-log-origin".into());
            }
        }
        _ => {
            option("--log-path", file::VMM_LOG_IN);
            option("--level", "Warning");
        }
    }
    if let (Some(metrics), Some(path)) = (&spec.metrics, &streams.metrics) {
        utf8(&metrics.metrics_path, "metrics.metricsPath")?;
        args.extend(["--metrics-path".to_owned(), path.clone()]);
    }
    Ok(args)
}

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Off => "Off",
        LogLevel::Trace => "Trace",
        LogLevel::Debug => "Debug",
        LogLevel::Info => "Info",
        LogLevel::Warning => "Warning",
        LogLevel::Error => "Error",
    }
}

fn utf8<'a>(path: &'a Path, field: &str) -> Result<&'a str> {
    path.to_str()
        .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("{field} is not UTF-8")).at(path))
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
