//! The small process that looks after the network while it is up: follows the default route,
//! puts right what others change, and starts a tunnel's program again.
//!
//! It does what `network up` does, and holds nothing that others need: without it the network
//! goes on as it is, and a kill switch stays closed. It has the options from the process that
//! started it, through a pipe, as they hold keys. It ends with the network, of which it is the
//! last step.

mod events;
mod filter;
mod presence;

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::making::Care;
use super::state::{Phase, State};
use super::{Network, lease, lock, lock_file, status};
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{ProcessId, children};
use crate::rundir::open_shared;
use crate::spec::NetworkManagerOptions;
use events::Events;
use presence::Presence;
pub(super) use presence::is_shown as shows_itself;

/// The hidden verb by which the `smartvm` binary becomes a network's keeper.
pub const VERB: &str = "network-keeper";
/// The version of what it is told.
pub const PROTOCOL: u32 = 1;

const FORMAT: u32 = 1;
/// Who keeps the network.
const FILE: &str = "keeper.json";
const LOG: &str = "keeper.log";
/// What it may be told at most, in bytes: twenty thousand rules, and a tunnel's text.
const MOST_BYTES: u64 = 16 << 20;
/// How long a killed one may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits for a change to be over before it looks.
const SETTLE: Duration = Duration::from_millis(50);
/// How soon it looks again at the soonest and, where it could not mend, at the latest.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(30)];

/// How soon it sees that its network's directory was removed, which nobody tells.
const LONELY: Duration = Duration::from_secs(60);

/// What it is told.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Charge {
    data_dir: PathBuf,
    options: NetworkManagerOptions,
}

/// Starts one, and writes down who it is.
pub(super) fn start(network: &Network, executable: &Path) -> Result<()> {
    stop(&network.dir)?;
    let failed = |e| Error::io("starting the network's keeper", executable, e);
    let charge = serde_json::to_vec(&Charge {
        data_dir: network.data_dir.clone(),
        options: network.options.clone(),
    });
    let charge = charge.map_err(|e| failed(e.into()))?;
    let log = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(network.dir.join(LOG))
        .map_err(failed)?;
    let mut child = Command::new(executable)
        .arg(VERB)
        .arg(PROTOCOL.to_string())
        .arg(&network.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .current_dir("/")
        // A terminal's signals are not for it.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let process = ProcessId::of(child.id())?;
    let told = child
        .stdin
        .take()
        .map_or(Ok(()), |mut to| to.write_all(&charge));
    children::keep(child);
    told.map_err(failed)?;
    let process = process.ok_or_else(|| {
        Error::new(ErrorKind::Host, "the network's keeper ended at once")
            .at(executable)
            .hint("is this executable the smartvm command of the same version?")
    })?;
    durable::write_state(&network.dir.join(FILE), FORMAT, &process)
}

/// Ends the one that keeps the network of this directory, and waits until it has.
pub(super) fn stop(dir: &Path) -> Result<()> {
    let file = dir.join(FILE);
    let known = durable::read_state::<ProcessId>(&file, FORMAT)?;
    if let Some(pidfd) = known.as_ref().map(ProcessId::open).transpose()?.flatten() {
        // Whatever it is at, it holds no lock of the network's: the caller does.
        pidfd.signal(Signal::KILL)?;
        if !pidfd.wait(PATIENCE)? {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!("the network's keeper was killed and is not dead after {PATIENCE:?}"),
            ));
        }
    }
    children::reap();
    for path in [file, dir.join(LOG)] {
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("removing", &path, e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The one that keeps the network of this directory, if it lives.
pub(super) fn alive(dir: &Path) -> Result<Option<ProcessId>> {
    let known = durable::read_state::<ProcessId>(&dir.join(FILE), FORMAT)?;
    match known {
        Some(process) if process.is_alive()? => Ok(Some(process)),
        _ => Ok(None),
    }
}

/// Keeps the network in `dir` until it ends, or another keeps it. What it is told is on
/// standard input.
pub fn run(dir: &Path) -> Result<()> {
    // It fails only for a process group's leader, which is by itself anyway.
    let _already_leads = rustix::process::setsid();
    let mut told = Vec::new();
    std::io::stdin()
        .take(MOST_BYTES)
        .read_to_end(&mut told)
        .map_err(|e| Error::io("reading", "what the network's keeper is told", e))?;
    let charge: Charge = serde_json::from_slice(&told).map_err(|_| {
        // Not the cause: it may show a part of a key.
        Error::new(
            ErrorKind::Corrupt,
            "what the network's keeper is told can't be understood",
        )
    })?;
    drop(told);
    let network = Network::assemble(dir.to_owned(), charge.data_dir, charge.options)?;
    let mut events = Events::listen(&lease::tap_prefixes(&network.instance()?.id))?;
    // Whoever started it holds the lock until the network is up.
    drop(lock(dir)?);
    let [soonest, latest] = PAUSES;
    let mut pause = soonest;
    let mut unmended = false;
    let mut presence = None;
    while network.is_kept_by_me()? {
        if presence.is_none() {
            // Without it, who asks finds it by its name.
            presence = open_shared(&lock_file(dir))
                .ok()
                .and_then(|file| Presence::show(file).ok());
        }
        let looked = Instant::now();
        match network.repair() {
            Ok(()) => (unmended, pause) = (false, soonest),
            Err(e) => {
                if !unmended {
                    tracing::warn!("mending the network: {e}");
                }
                (unmended, pause) = (true, (pause * 2).min(latest));
            }
        }
        let names = network.watched_names()?;
        let at_most = if unmended { pause } else { LONELY };
        events.wait(&names, Some(at_most), SETTLE)?;
        std::thread::sleep(soonest.saturating_sub(looked.elapsed()));
    }
    Ok(())
}

impl Network {
    fn is_kept_by_me(&self) -> Result<bool> {
        Ok(
            State::read(&self.dir)?.is_some_and(|state| state.phase == Phase::Up)
                && alive(&self.dir)? == Some(ProcessId::myself()?),
        )
    }

    /// Mends what differs from what it should be. What is seen without the lock may be another
    /// process's work half done, and is looked at again with it.
    fn repair(&self) -> Result<()> {
        let differs = |state: &State| status::drift(self, state).map(|drift| !drift.is_empty());
        match State::read(&self.dir)? {
            Some(state) if differs(&state)? => {}
            _ => return Ok(()),
        }
        let _lock = lock(&self.dir)?;
        let Some(state) = State::read(&self.dir)? else {
            return Ok(());
        };
        if state.phase != Phase::Up || !self.is_kept_by_me()? || !differs(&state)? {
            return Ok(());
        }
        self.require_same(&state)?;
        self.mend(state, Care::Thorough)?;
        let left = match State::read(&self.dir)? {
            Some(state) => status::drift(self, &state)?,
            None => Vec::new(),
        };
        match left.into_iter().next() {
            None => Ok(()),
            Some(left) => Err(Error::new(ErrorKind::Host, left)),
        }
    }

    /// The interfaces whose changes matter.
    fn watched_names(&self) -> Result<Vec<String>> {
        let mut names = vec![self.bridge.to_string()];
        if let Some(state) = State::read(&self.dir)? {
            names.extend(state.nat_interface);
            names.extend(
                state
                    .tunnel
                    .map(|tunnel| tunnel.routes.interface.to_string()),
            );
        }
        Ok(names)
    }
}
