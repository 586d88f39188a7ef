//! The end of the guest.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::system::RebootCommand;

use super::{log, signals::Signals};

/// For processes to end by themselves after SIGTERM.
const TERM_GRACE: Duration = Duration::from_millis(800);

/// For the kernel to end them after SIGKILL.
const KILL_GRACE: Duration = Duration::from_millis(500);

/// Ends every process, brings the disks into order, and resets the machine.
pub(crate) fn shut_down(signals: &Signals) -> ! {
    log::info("shutting down");
    for (signal, grace) in [(Signal::TERM, TERM_GRACE), (Signal::KILL, KILL_GRACE)] {
        // Everybody but process 1 itself. None left is no failure.
        // SAFETY: -1 stands for all processes in the kernel's interface and the signals are
        // ordinary ones; no memory is involved.
        unsafe { libc::kill(-1, signal.as_raw()) };
        let deadline = Instant::now() + grace;
        while !reap() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            signals.wait(left.min(Duration::from_millis(50)));
        }
    }
    rustix::fs::sync();
    settle_disks();
    rustix::fs::sync();
    reset()
}

/// Takes the exit status of every child that has ended; true if there are none left at all.
/// In process 1 that are all processes of the guest.
pub(crate) fn reap() -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// Ends the machine by a reset: Firecracker has no power-off for its guests.
pub(crate) fn reset() -> ! {
    rustix::fs::sync();
    if let Err(error) = rustix::system::reboot(RebootCommand::Restart) {
        log::error(&format!("resetting the machine: {error}"));
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Unmounts the disks, latest first; makes read-only what can't go.
fn settle_disks() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in mounts.lines().rev() {
        let mut fields = line.split(' ');
        let (Some(source), Some(target)) = (fields.next(), fields.next()) else {
            continue;
        };
        if !source.starts_with("/dev/") {
            continue;
        }
        let unmounted =
            target != "/" && rustix::mount::unmount(target, UnmountFlags::empty()).is_ok();
        if !unmounted
            && let Err(error) = rustix::mount::mount_remount(target, MountFlags::RDONLY, c"")
        {
            log::error(&format!("making {target} read-only: {error}"));
        }
    }
}

/// Asks our own process 1 to shut down; what the service does on the host's request.
pub(crate) fn ask_our_init() -> std::io::Result<()> {
    Ok(rustix::process::kill_process(Pid::INIT, Signal::TERM)?)
}

/// Asks the root's own init to shut down, in the way that it understands.
pub(crate) fn ask_other_init() -> std::io::Result<()> {
    let name = std::fs::read_to_string("/proc/1/comm").unwrap_or_default();
    if name.trim() == "systemd" {
        // Its documented number for a clean reboot.
        // SAFETY: sends an ordinary real-time signal; no memory is involved.
        if unsafe { libc::kill(1, libc::SIGRTMIN() + 5) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        return Ok(());
    }
    let asked = ["/sbin/reboot", "/usr/sbin/reboot", "/bin/reboot"]
        .into_iter()
        .any(|program| std::process::Command::new(program).spawn().is_ok());
    if !asked {
        reset();
    }
    Ok(())
}
