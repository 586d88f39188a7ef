//! The steps of a plan as they add up.

use std::path::{Path, PathBuf};

use super::arguments::utf8;
use super::confined::Confined;
use super::{Context, Root};
use crate::error::{Error, ErrorKind, Result};
use crate::jail::JailStep;
use crate::keeper::Pump;
use crate::rundir::file;
use crate::spec::MicroVmSpec;
use crate::step::Step;
use crate::wiring::{NetworkStep, Wired};

pub(super) struct Planner<'a> {
    pub(super) run_dir: &'a Path,
    pub(super) root: &'a Root,
    pub(super) steps: Vec<Step>,
    pub(super) pumps: Vec<Pump>,
}

/// Where Firecracker writes what the user wants in files, seen from its root.
pub(super) struct Streams {
    pub(super) log: Option<String>,
    pub(super) metrics: Option<String>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(run_dir: &'a Path, root: &'a Root) -> Self {
        Self {
            run_dir,
            root,
            steps: Vec::new(),
            pumps: Vec::new(),
        }
    }

    /// First of all what is leased already when the VM is made, then the jail, then the network,
    /// whose devices are the jail's user's.
    pub(super) fn begin(
        &mut self,
        wired: &Wired,
        confined: Option<&Confined<'_>>,
        context: &Context<'_>,
    ) {
        let network = |steps: &[NetworkStep]| -> Vec<Step> {
            steps.iter().cloned().map(Step::Network).collect()
        };
        self.steps.extend(network(&wired.leases));
        if let Some(confined) = confined {
            self.steps.extend(confined.steps(context));
        }
        self.steps.extend(network(&wired.steps));
    }

    pub(super) fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(super) fn link(&mut self, path: PathBuf, target: &Path) {
        self.step(Step::Link {
            path,
            target: target.to_owned(),
        });
    }

    /// A file of the host's in Firecracker's root, by a link or into the jail; returns its
    /// path seen from there.
    pub(super) fn bring(
        &mut self,
        what: &str,
        name: &str,
        source: &Path,
        writable: bool,
    ) -> String {
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

    /// The last step: Firecracker, in its jail if it has one.
    pub(super) fn spawn(
        &mut self,
        firecracker: &Path,
        args: Vec<String>,
        confined: Option<Confined<'_>>,
    ) {
        let (jailer, cgroup) = match confined {
            Some(confined) => (Some(confined.jailer), confined.cgroup),
            None => (None, None),
        };
        self.step(Step::ReserveSocket {
            path: self.root.file(file::API_SOCKET),
        });
        self.step(Step::SpawnVmm {
            executable: firecracker.to_owned(),
            args,
            directory: self.root.path().to_owned(),
            jailer,
            cgroup,
            pumps: self.pumps.clone(),
        });
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
    pub(super) fn streams(&mut self, spec: &MicroVmSpec) -> Streams {
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

    /// Reserves the vsock device's socket; returns its path seen from Firecracker's root,
    /// short enough for a socket address however long the directory's path is.
    pub(super) fn vsock(&mut self, socket: &Path) -> Result<String> {
        let ours = self.root.file(file::VSOCK);
        self.step(Step::ReserveSocket {
            path: socket.to_owned(),
        });
        if self.root.is_jail() {
            // Firecracker binds its own; where the user looks for it is a link to that.
            self.step(Step::ReserveSocket { path: ours.clone() });
            self.link(socket.to_owned(), &ours);
            // Beside a socket of smartvm's own nobody can listen yet.
            if socket != self.run_dir.join(file::VSOCK) {
                self.step(Step::Jail(JailStep::BringListeners {
                    prefix: socket.to_owned(),
                    target: ours,
                }));
            }
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

    /// Reserves a socket at the relative path that Firecracker knows.
    pub(super) fn fresh_socket(&mut self, relative: &str) -> PathBuf {
        let socket = self.root.file(relative);
        if let Some(dir) = socket.parent().filter(|dir| *dir != self.root.path()) {
            let path = dir.to_owned();
            if self.root.is_jail() {
                self.step(Step::Jail(JailStep::MakeDir { path: path.clone() }));
                self.step(Step::Jail(JailStep::Own { path }));
            } else {
                self.step(Step::MakeDir { path });
            }
        }
        self.step(Step::ReserveSocket {
            path: socket.clone(),
        });
        if !self.root.is_jail() {
            return socket;
        }
        let link = self.run_dir.join(file::VSOCK);
        self.link(link.clone(), &socket);
        link
    }
}
