//! The service as a process of its own, started by process 1.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use smartvm_agent::protocol::PORT;
use smartvm_agent::service::{Guest, serve_port, serve_vsock};

use super::{log, power};

/// How long the kernel may take to offer vsock or the port.
const PATIENCE: Duration = Duration::from_secs(30);

/// Descriptors for the largest number of sessions: each has its connection, its command's
/// process and up to three pipes.
const DESCRIPTORS: u64 = 4096;

/// The program that serves: this one, which has no name any more once the initramfs is gone.
const SELF: &str = "/proc/self/exe";

/// The first letter tells systemd that this process, which it didn't start, is to be left
/// alone when it ends all others.
const NAME: &str = "@smartvm-agent";

/// What the service serves, and in whose company.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    port: Option<String>,
    own_init: bool,
}

impl Service {
    /// The service of a guest whose process 1 is our supervisor.
    pub(crate) fn alone(port: Option<String>) -> Self {
        Self {
            port,
            own_init: true,
        }
    }

    /// The service beside the root's own init.
    pub(crate) fn beside(port: Option<String>) -> Self {
        Self {
            port,
            own_init: false,
        }
    }

    /// Understands what [`Service::start`] passes on; None for anything else.
    pub(crate) fn from_arguments(arguments: &[&str]) -> Option<Self> {
        let (own_init, port) = match arguments {
            ["service", "alone"] => (true, None),
            ["service", "beside"] => (false, None),
            ["service", "alone", port] => (true, Some((*port).to_owned())),
            ["service", "beside", port] => (false, Some((*port).to_owned())),
            _ => return None,
        };
        Some(Self { port, own_init })
    }

    /// Starts it as a child process.
    pub(crate) fn start(&self) -> io::Result<Child> {
        Command::new(SELF)
            .arg0(NAME)
            .arg("service")
            .arg(if self.own_init { "alone" } else { "beside" })
            .args(&self.port)
            .env_clear()
            .stdin(Stdio::null())
            .spawn()
    }

    /// Serves; returns only if there is nothing to serve on.
    pub(crate) fn run(&self) -> ExitCode {
        std::panic::set_hook(Box::new(|panic| {
            log::error(&format!("the service panicked: {panic}"));
        }));
        // A session of its own: what happens to the console's processes is not its business.
        let _ = rustix::process::setsid();
        spare_from_oom();
        let mut guest = Guest::whole(if self.own_init {
            power::ask_our_init
        } else {
            power::ask_other_init
        });
        guest.descriptors = raise_descriptors();
        let served = match &self.port {
            Some(name) => serve_port(name, PATIENCE, &guest, log::info),
            None => serve_vsock(PORT, PATIENCE, &guest, log::info),
        };
        match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let what = self.port.as_deref().unwrap_or("vsock");
                log::error(&format!("the host can't be served over {what}: {error}"));
                ExitCode::FAILURE
            }
        }
    }
}

/// Without the service nobody can look at what used up the memory.
fn spare_from_oom() {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        log::error(&format!(
            "asking to be spared when memory is short: {error}"
        ));
    }
}

/// Raises the limit on descriptors; returns the one before, which commands shall have.
fn raise_descriptors() -> Option<u64> {
    let before = rustix::process::getrlimit(Resource::Nofile);
    let most = before.maximum.unwrap_or(u64::MAX).max(DESCRIPTORS);
    let raised = Rlimit {
        current: Some(DESCRIPTORS),
        maximum: Some(most),
    };
    match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => before.current,
        Err(error) => {
            log::error(&format!("raising the number of descriptors: {error}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_arguments_start_the_service() {
        assert_eq!(
            Service::from_arguments(&["service", "beside", "org.smartvm"]),
            Some(Service::beside(Some("org.smartvm".to_owned())))
        );
        assert_eq!(
            Service::from_arguments(&["service", "alone"]),
            Some(Service::alone(None))
        );
        for other in [&[][..], &["service"], &["service", "x"], &["--version"]] {
            assert_eq!(Service::from_arguments(other), None, "{other:?}");
        }
    }
}
