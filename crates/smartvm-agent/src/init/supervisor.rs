//! Process 1 where the root has no init of its own: reaps orphans, keeps the service running,
//! and ends the guest when asked to.

use std::convert::Infallible;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::WaitOptions;
use rustix::system::RebootCommand;

use super::signals::Signals;
use super::{Failure, Service, log, power};

/// A service that lived for a shorter time than this is started again only after it.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Without any signal, look around after this time.
const ROUND: Duration = Duration::from_secs(60);

/// Runs for as long as the guest does.
pub(crate) fn run(service: &Service) -> Result<Infallible, Failure> {
    // The requests to end that inits know, all of which end in a reset: halting or powering
    // off would leave the machine standing.
    let [three, four, five] = [3, 4, 5].map(|offset| libc::SIGRTMIN() + offset);
    let mut wanted = vec![libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGPWR];
    wanted.extend([libc::SIGUSR1, libc::SIGUSR2, three, four, five]);
    let signals = Signals::block(&wanted)
        .map_err(|error| Failure::new("blocking process 1's signals", error))?;
    // Ctrl-Alt-Del then sends SIGINT here instead of resetting at once.
    if let Err(error) = rustix::system::reboot(RebootCommand::CadOff) {
        log::error(&format!("taking over Ctrl-Alt-Del: {error}"));
    }
    let mut running = Running::start(service)?;
    loop {
        match signals.wait(running.patience()) {
            None | Some(libc::SIGCHLD) => running.reap(),
            Some(_) => power::shut_down(&signals),
        }
        running.restart_when_due();
    }
}

/// The service's process, or when to start it again.
struct Running<'a> {
    service: &'a Service,
    child: Option<Child>,
    started: Instant,
}

impl<'a> Running<'a> {
    fn start(service: &'a Service) -> Result<Self, Failure> {
        let child = service
            .start()
            .map_err(|error| Failure::new("starting the service", error))?;
        Ok(Self {
            service,
            child: Some(child),
            started: Instant::now(),
        })
    }

    fn patience(&self) -> Duration {
        if self.child.is_some() {
            return ROUND;
        }
        (self.started + RESTART_PAUSE).saturating_duration_since(Instant::now())
    }

    /// Takes the status of everybody who has ended.
    fn reap(&mut self) {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let pid = u32::try_from(pid.as_raw_nonzero().get()).ok();
                    if pid.is_some() && pid == self.child.as_ref().map(Child::id) {
                        log::error(&format!("the service has ended ({status:?})"));
                        self.child = None;
                    }
                }
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn restart_when_due(&mut self) {
        if self.child.is_none() && self.patience().is_zero() {
            self.started = Instant::now();
            match self.service.start() {
                Ok(child) => self.child = Some(child),
                Err(error) => log::error(&format!("starting the service: {error}")),
            }
        }
    }
}
