use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use smartvm::keeper::ring::Follower;
use smartvm::rundir::file;
use smartvm::{Error, ErrorKind, MicroVm, Result, SmartVm};
use tokio::io::AsyncReadExt;

use super::Id;
use crate::{output, terminal};

/// Ctrl-], as in telnet.
const DETACH: u8 = 0x1d;
/// Between two looks at what the guest printed.
const PAUSE: Duration = Duration::from_millis(20);

/// Why an attachment ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The user detached.
    Detached,
    /// The VM ended.
    Ended,
}

pub(crate) async fn run(smartvm: &SmartVm, id: &Id) -> Result<u8> {
    let vm = smartvm.get(&smartvm.runtime().resolve(&id.id)?)?;
    output::note(format_args!("attached to VM {}; Ctrl-] detaches", vm.id()));
    attach(&vm).await?;
    Ok(0)
}

/// Connects the user's streams with the guest's console until either goes.
pub(super) async fn attach(vm: &MicroVm) -> Result<Left> {
    let path = vm.run_dir().file(file::CONSOLE_IN);
    let mut input = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(&path)
        .map_err(|e| Error::io("opening the console", &path, e))?;
    let raw = terminal::Raw::enter()?;
    let is_terminal = raw.is_some();
    let mut follower = Follower::new(&vm.run_dir().file(file::CONSOLE));
    let mut stdin = tokio::io::stdin();
    let mut end = std::pin::pin!(vm.wait(None));
    let mut typed = [0; 1024];
    let mut listening = true;
    loop {
        output::bytes(&follower.read()?)?;
        tokio::select! {
            ended = &mut end => {
                output::bytes(&follower.read()?)?;
                return ended.map(|_| Left::Ended);
            }
            read = stdin.read(&mut typed), if listening => {
                let read = read.map_err(|e| Error::io("reading", "standard input", e))?;
                let bytes = &typed[..read];
                if is_terminal && bytes.contains(&DETACH) {
                    return Ok(Left::Detached);
                }
                listening = read > 0;
                match input.write_all(bytes) {
                    // The guest doesn't read, and 64 KiB wait for it: what more is typed
                    // is lost, as on a real serial line.
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                    written => written.map_err(|e| Error::new(
                        ErrorKind::Io, "typing to the console").because(e))?,
                }
            }
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}
