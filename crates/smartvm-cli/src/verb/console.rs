use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use clap::Args;
use smartvm::keeper::ring::Follower;
use smartvm::rundir::file;
use smartvm::{Error, ErrorKind, MicroVm, Result, SmartVm};
use tokio::io::AsyncReadExt;

use crate::detach_keys::{DetachKeys, Typed};
use crate::{output, terminal};

/// Between two looks at what the guest printed.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm console web
  smartvm console --detach-keys ctrl-p,ctrl-q web

What you type goes to the guest's serial port, and what it prints comes back, beginning with the
last of what it printed before. Without a terminal, the end of standard input doesn't detach.")]
pub(crate) struct ConsoleArgs {
    /// The VM's id, or the beginning of it
    id: String,
    #[command(flatten)]
    detach: DetachArgs,
}

/// How an attached console is left.
#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// The keys that detach from the console, typed one after the other: letters, or such as
    /// ctrl-p, with commas between
    #[arg(long, value_name = "KEYS", default_value = DetachKeys::DEFAULT, env = "SMARTVM_DETACH_KEYS")]
    pub(crate) detach_keys: DetachKeys,
}

/// Why an attachment ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The user detached.
    Detached,
    /// The VM ended.
    Ended,
}

pub(crate) async fn run(smartvm: &SmartVm, args: &ConsoleArgs) -> Result<u8> {
    let vm = smartvm.get(&smartvm.runtime().resolve(&args.id)?)?;
    attach(&vm, &args.detach.detach_keys).await?;
    Ok(0)
}

/// Connects the user's streams with the guest's console until either goes.
pub(super) async fn attach(vm: &MicroVm, keys: &DetachKeys) -> Result<Left> {
    let path = vm.run_dir().file(file::CONSOLE_IN);
    let mut input = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(&path)
        .map_err(|e| Error::io("opening the console", &path, e))?;
    let raw = terminal::Raw::enter()?;
    let is_terminal = raw.is_some();
    if is_terminal {
        output::note(format_args!(
            "attached to VM {}; {keys} detaches\r",
            vm.id()
        ));
    }
    let mut follower = Follower::new(&vm.run_dir().file(file::CONSOLE));
    let mut stdin = tokio::io::stdin();
    let mut end = std::pin::pin!(vm.wait(None));
    let mut bytes = [0; 1024];
    let mut typed = Typed::new(keys);
    let mut listening = true;
    loop {
        output::bytes(&follower.read()?)?;
        tokio::select! {
            ended = &mut end => {
                output::bytes(&follower.read()?)?;
                return ended.map(|_| Left::Ended);
            }
            read = stdin.read(&mut bytes), if listening => {
                let read = read.map_err(|e| Error::io("reading", "standard input", e))?;
                listening = read > 0;
                let (passed, detach) = match is_terminal {
                    true => typed.pass(&bytes[..read]),
                    false => (bytes[..read].to_vec(), false),
                };
                match input.write_all(&passed) {
                    // The guest doesn't read, and 64 KiB wait for it: what more is typed
                    // is lost, as on a real serial line.
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                    written => written.map_err(|e| Error::new(
                        ErrorKind::Io, "typing to the console").because(e))?,
                }
                if detach {
                    return Ok(Left::Detached);
                }
            }
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}
