//! The owner's side: starting a keeper and talking to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::{Launch, MOST_MESSAGE_BYTES, PROTOCOL, Reply, Request, VERB};
use crate::error::{Error, ErrorKind, Result};
use crate::process::{ProcessId, children};
use crate::rundir::RunDir;

/// How long a keeper may take to answer: it only ever spawns a process in that time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The hold on a VM's keeper. Dropping it ends a VM with lifetime `owner`.
#[derive(Debug)]
pub struct Link {
    stream: BufReader<UnixStream>,
    process: ProcessId,
    child: Option<Child>,
    max_runtime_s: Option<u64>,
}

impl Link {
    /// Starts a keeper, which keeps nothing yet.
    pub fn spawn(executable: &Path) -> Result<Self> {
        // So that an owner of thousands of short VMs collects no zombies.
        children::reap();
        let failed = |e: std::io::Error| Error::io("starting the keeper", executable, e);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        ours.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        // Once it keeps a VM it writes to a log in the run dir.
        let mut child = Command::new(executable)
            .arg(VERB)
            .arg(PROTOCOL.to_string())
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        match ProcessId::of(child.id())? {
            Some(process) => Ok(Self {
                stream: BufReader::new(ours),
                process,
                child: Some(child),
                max_runtime_s: None,
            }),
            None => Err(ended_at_once(child.wait().map_err(failed)?).at(executable)),
        }
    }

    /// Whether the keeper still runs.
    pub(crate) fn lives(&self) -> bool {
        matches!(self.process.is_alive(), Ok(true))
    }

    /// Tells it which VM it keeps.
    pub(crate) fn keep(&mut self, run_dir: &RunDir, max_runtime_s: Option<u64>) -> Result<()> {
        self.max_runtime_s = max_runtime_s;
        let keep = Request::Keep {
            run_dir: run_dir.path().to_owned(),
        };
        let ended = self.child.as_mut().map(Child::try_wait);
        match (self.send(&keep), ended) {
            (Ok(()), _) => Ok(()),
            (Err(e), Some(Ok(Some(status)))) => Err(ended_at_once(status).because(e)),
            (Err(e), _) => Err(e),
        }
    }

    /// Ends a keeper that keeps nothing.
    pub(crate) fn end(mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        drop(self);
        let ended = child.wait().map(drop);
        ended.map_err(|e| Error::new(ErrorKind::Host, "awaiting the keeper's end").because(e))
    }

    /// The keeper.
    pub fn process(&self) -> &ProcessId {
        &self.process
    }

    /// Starts Firecracker as the keeper's child.
    pub(crate) fn spawn_vmm(&mut self, launch: Launch) -> Result<ProcessId> {
        let executable = launch.executable.clone();
        let max_runtime_s = self.max_runtime_s;
        let request = Request::SpawnVmm {
            launch,
            max_runtime_s,
        };
        match self.ask(&request)? {
            Reply::Spawned { process } => Ok(process),
            Reply::Failed { message, hint } => {
                let error = Error::new(ErrorKind::Host, message).at(executable);
                Err(match hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                })
            }
            Reply::Detached => Err(out_of_step()),
        }
    }

    /// Lets the VM live on without this process.
    pub(crate) fn detach(&mut self) -> Result<()> {
        match self.ask(&Request::Detach)? {
            Reply::Detached => Ok(()),
            _ => Err(out_of_step()),
        }
    }

    /// Tells the keeper to end the VM because its start failed.
    pub(crate) fn abandon(&mut self, why: &Error) -> Result<()> {
        self.send(&Request::Abandon {
            why: why.to_string(),
        })
    }

    fn ask(&mut self, request: &Request) -> Result<Reply> {
        self.send(request)?;
        let mut line = String::new();
        let failed = |what: String| {
            Error::new(
                ErrorKind::Host,
                format!("the keeper did not answer: {what}"),
            )
            .hint("it may have been killed; `smartvm gc` cleans up after it")
        };
        let mut bounded = (&mut self.stream).take(MOST_MESSAGE_BYTES as u64);
        match bounded.read_line(&mut line) {
            Ok(0) => return Err(failed("it is gone".into())),
            Ok(_) => {}
            Err(e) => return Err(failed(e.to_string())),
        }
        serde_json::from_str(&line).map_err(|e| failed(e.to_string()))
    }

    fn send(&mut self, request: &Request) -> Result<()> {
        let failed =
            |what: String| Error::new(ErrorKind::Host, format!("asking the keeper: {what}"));
        let mut line = serde_json::to_vec(request).map_err(|e| failed(e.to_string()))?;
        line.push(b'\n');
        if line.len() > MOST_MESSAGE_BYTES {
            return Err(failed("the request is too long".into()));
        }
        self.stream
            .get_mut()
            .write_all(&line)
            .map_err(|e| failed(e.to_string()))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take()
            && !matches!(child.try_wait(), Ok(Some(_)))
        {
            children::keep(child);
        }
    }
}

fn ended_at_once(status: ExitStatus) -> Error {
    let message = format!("the keeper ended at once: {status}");
    Error::new(ErrorKind::Host, message)
        .hint("is the keeper's executable the smartvm command of the same version?")
}

fn out_of_step() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "the keeper's answer doesn't fit the request",
    )
    .hint("is the smartvm executable of the same version as this program?")
}
