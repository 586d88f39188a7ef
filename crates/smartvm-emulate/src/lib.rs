//! The emulated host: QEMU with nested virtualization, so that smartvm can be developed and
//! tested on a machine that has no hardware virtualization.
//!
//! ```text
//!  this machine                           the emulated host
//!  ────────────                           ─────────────────
//!  kernel, modules, agent ─initramfs────▶ the agent as init
//!  / ─────────────────────9p, read-only─▶ / under an overlay in memory
//!  --write DIR ───────────9p────────────▶ DIR
//!  stdin, stdout, stderr ◀─virtio port──▶ CMD, as root
//! ```
//! Everything is handed to QEMU as open files, and QEMU ends with the thread that started it:
//! nothing is left behind, however this process ends.

mod command;
mod kernel;
mod last_words;
mod machine;
mod options;
mod qemu;
mod share;
pub mod tiny_guest;

use std::time::{Duration, Instant};

use smartvm::agent::Connection;
use smartvm::storage::{extract_vmlinux, initramfs};
use smartvm::{Error, ErrorKind, Result};
use tracing::{debug, info};

use kernel::Kernel;
use machine::Machine;
pub use options::Options;
use qemu::Qemu;
use share::Share;

/// How long the emulated host may take to come up. Twenty times what it usually takes.
const BOOT_PATIENCE: Duration = Duration::from_secs(120);

/// How long QEMU may take to end after its port has closed.
const END_GRACE: Duration = Duration::from_secs(1);

/// How long it may take to write back what the command wrote.
const END_PATIENCE: Duration = Duration::from_secs(15);

/// Runs a command as root in an emulated host, with this process's own standard streams,
/// environment and working directory. Returns the command's exit status, as a shell tells it.
///
/// It blocks, and brings its own runtime: not to be called from within one.
///
/// # Errors
/// [`ErrorKind::Host`] where QEMU or a kernel is missing (the way out says what to install) or
/// the emulated host doesn't come up; [`ErrorKind::Timeout`] at the deadline;
/// [`ErrorKind::Invalid`] for a directory that can't be shared; [`ErrorKind::Guest`] where the
/// command can't be started.
pub fn run(options: &Options) -> Result<u8> {
    let start = Instant::now();
    let shares = Share::writable(&options.write)?;
    let kernel = Kernel::find(options.kernel.as_deref())?;
    let agent = smartvm::agent::binary::find(options.agent.as_deref())?;
    // Unpacked here it starts two seconds earlier than if it unpacks itself in there.
    let vmlinux = extract_vmlinux(&kernel.image)?;
    let initramfs = initramfs::build(&agent, &kernel.modules)?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()
        .map_err(|cause| Error::new(ErrorKind::Io, "making a pair of sockets").because(cause))?;
    let qemu = Qemu {
        kernel: &kernel,
        shares: &shares,
        cpus: options.cpus,
        memory_mib: options.memory_mib,
    };
    let mut machine = Machine::start(&qemu, &vmlinux, &initramfs, theirs.into())?;
    // QEMU has its own.
    drop((vmlinux, initramfs));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Error::new(ErrorKind::Io, "starting a runtime").because(cause))?;
    let left = options
        .timeout
        .map(|all| all.saturating_sub(start.elapsed()));
    let result = runtime.block_on(within(left, options.timeout, async {
        let status = converse(&mut machine, &ours, options, start).await?;
        if !shares.is_empty() && kernel.holds_writes_back() {
            write_back(&mut machine, &ours).await?;
        }
        Ok(status)
    }));
    debug!(
        "console and QEMU said last:\n{}",
        machine.last_words().all()
    );
    // A thread may be waiting for the next byte of stdin for ever.
    runtime.shutdown_background();
    result
}

/// Waits for the agent, and runs the command.
async fn converse(
    machine: &mut Machine,
    stream: &std::os::unix::net::UnixStream,
    options: &Options,
    start: Instant,
) -> Result<u8> {
    let stream = to_tokio(stream)?;
    let connection = tokio::select! {
        connection = Connection::over(stream, BOOT_PATIENCE) => connection,
        ended = machine.ended() => Err(ended),
    };
    let connection = connection.map_err(|error| {
        // Whatever went wrong before the command: the deadline isn't what passed.
        Error::new(
            ErrorKind::Host,
            format!("the emulated host didn't come up{}", machine.last_words()),
        )
        .because(error)
    })?;
    info!("the emulated host is up after {:.1?}", start.elapsed());
    let command = command::inside(&options.command)?;
    let session = connection.exec(&command, BOOT_PATIENCE).await?;
    let streams = (tokio::io::stdin(), tokio::io::stdout(), tokio::io::stderr());
    match session.run_with(streams.0, streams.1, streams.2).await {
        Ok(status) => Ok(status.code_for_shell()),
        Err(error) => Err(explained(machine, error).await),
    }
}

/// Tells the end of the emulated host from all else that can end a session.
async fn explained(machine: &mut Machine, error: Error) -> Error {
    match tokio::time::timeout(END_GRACE, machine.ended()).await {
        Ok(_) => Error::new(
            ErrorKind::Vmm,
            format!(
                "the emulated host ended under the command{}",
                machine.last_words()
            ),
        )
        .because(error)
        .hint("give it more memory, if that is what it ran out of"),
        Err(_) => error,
    }
}

/// Ends the emulated host in order, so that what the command wrote is on this machine. It
/// takes some seconds, so this is done only where it must be.
async fn write_back(machine: &mut Machine, stream: &std::os::unix::net::UnixStream) -> Result<()> {
    let end = async {
        let connection = Connection::over(to_tokio(stream)?, END_PATIENCE).await?;
        connection.shutdown(END_PATIENCE).await?;
        machine.ended().await;
        Ok(())
    };
    within(Some(END_PATIENCE), Some(END_PATIENCE), end)
        .await
        .map_err(|error| {
            Error::new(
                ErrorKind::Vmm,
                "what the command wrote may not all have arrived: ending the emulated host",
            )
            .because(error)
        })
}

fn to_tokio(stream: &std::os::unix::net::UnixStream) -> Result<tokio::net::UnixStream> {
    stream
        .try_clone()
        .and_then(|stream| {
            stream.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(stream)
        })
        .map_err(|cause| Error::new(ErrorKind::Io, "opening the agent's port").because(cause))
}

/// The work, for what is `left` of `all` that it may take.
async fn within<T>(
    left: Option<Duration>,
    all: Option<Duration>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let (Some(left), Some(all)) = (left, all) else {
        return work.await;
    };
    tokio::time::timeout(left, work).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Timeout,
            format!("the emulated host was ended after {all:.0?}"),
        ))
    })
}
