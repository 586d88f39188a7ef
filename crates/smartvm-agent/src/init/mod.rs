//! Process 1: from the kernel's start to a guest that serves its host.
//!
//! ```text
//!  early mounts ─▶ modules ─▶ network ─▶ root (overlay) ─▶ switch ─▶ extra mounts, DNS
//!                                                                          │
//!        ┌───────────── fork: the service (a process of its own) ◀─────────┤
//!        ▼                                                                 ▼
//!   serves the host                              the root's own init, or our supervisor
//! ```
//! Process 1 has no threads and serves nobody: whatever goes wrong in a session, it lives.

mod address;
mod cmdline;
mod device;
mod early;
mod gpt;
mod handover;
mod kvm;
mod log;
mod modules;
mod mounts;
mod network;
mod power;
mod resolv;
mod root;
mod service;
mod signals;
mod supervisor;
mod switch;

pub(crate) use service::Service;

use cmdline::Cmdline;

/// What kept the guest from coming up.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {cause}")]
pub(crate) struct Failure {
    what: String,
    cause: String,
}

impl Failure {
    fn new(what: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self {
            what: what.into(),
            cause: cause.to_string(),
        }
    }
}

/// Runs as process 1; never returns, as the kernel panics when process 1 ends.
pub(crate) fn run() -> ! {
    std::panic::set_hook(Box::new(|panic| log::error(&format!("panicked: {panic}"))));
    let result = std::panic::catch_unwind(bring_up);
    if let Ok(Err(failure)) = &result {
        log::error(&failure.to_string());
    }
    log::error("the guest can't go on; resetting the machine");
    power::reset()
}

fn bring_up() -> Result<std::convert::Infallible, Failure> {
    early::mount_kernel_file_systems();
    let words = std::fs::read_to_string("/proc/cmdline")
        .map_err(|error| Failure::new("reading /proc/cmdline", error))?;
    let cmdline = Cmdline::parse(&words);
    for problem in &cmdline.problems {
        log::error(problem);
    }
    modules::load(&words);
    let _held = cmdline.holds_kvm.then(kvm::hold);
    network::bring_up(cmdline.ip.as_ref());
    if let Some(root) = &cmdline.root {
        root::mount(root)?;
        switch::into_new_root()?;
    }
    let init = handover::find_init(&cmdline)?;
    mounts::complete(init.is_none());
    for mount in &cmdline.mounts {
        mounts::extra(mount)?;
    }
    let name = cmdline.ip.as_ref().and_then(|ip| ip.hostname.as_deref());
    network::name_host(name, init.is_none());
    if let Some(address) = &cmdline.ip {
        resolv::set_up(&address.dns);
    }
    match init {
        Some(init) => handover::hand_over(&init, &Service::beside(cmdline.port)),
        None => supervisor::run(&Service::alone(cmdline.port)),
    }
}
