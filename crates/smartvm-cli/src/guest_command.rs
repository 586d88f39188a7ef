//! A command in a guest, with the user's own streams.

use clap::Args;
use smartvm::agent::{Agent, Command};
use smartvm::storage::ImageProcess;
use smartvm::{Error, ErrorKind, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::terminal;

/// How a command runs in a guest.
#[derive(Debug, Clone, Args)]
pub(crate) struct CommandArgs {
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set an environment variable
    #[arg(short, long, value_name = "K=V")]
    pub(crate) env: Vec<String>,
    /// Its working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Run it as this user: NAME or UID, with :GROUP or :GID
    #[arg(short, long)]
    pub(crate) user: Option<String>,
}

impl CommandArgs {
    /// Takes over what an image says where nothing else is asked for. Variables that are
    /// asked for come later, and so win.
    pub(crate) fn by_default(&mut self, process: &ImageProcess) {
        self.env.splice(0..0, process.env.iter().cloned());
        if self.workdir.is_none() {
            self.workdir.clone_from(&process.working_dir);
        }
        if self.user.is_none() {
            self.user.clone_from(&process.user);
        }
    }
}

/// The command with all that was asked for but streams.
pub(crate) fn command(args: &CommandArgs, argv: &[String]) -> Result<Command> {
    let mut command = Command::from_argv(argv);
    for pair in &args.env {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("--env {pair:?} is not K=V")))?;
        command = command.env(name, value);
    }
    if let Some(directory) = &args.workdir {
        command = command.current_dir(directory);
    }
    if let Some(user) = &args.user {
        command = command.user(user);
    }
    Ok(command)
}

/// Runs it; returns its status as a shell tells it.
pub(crate) async fn run(agent: &Agent, args: &CommandArgs, argv: &[String]) -> Result<u8> {
    let mut command = command(args, argv)?.stdin(args.interactive);
    // From before the size is looked at: no change of it is missed.
    let resizes = match args.tty {
        true => signal(SignalKind::window_change()).ok(),
        false => None,
    };
    if args.tty {
        let (rows, cols) = terminal::size().unwrap_or((24, 80));
        let term = std::env::var("TERM").unwrap_or_else(|_| "xterm".into());
        command = command.terminal(rows, cols, term);
    }
    let session = agent.exec(&command).await?;
    let _raw = if args.tty && args.interactive {
        terminal::Raw::enter()?
    } else {
        None
    };
    let control = session.control();
    let pass_sizes_on = async {
        if let Some(mut resizes) = resizes {
            while resizes.recv().await.is_some() {
                if let Some((rows, cols)) = terminal::size()
                    && let Err(e) = control.resize(rows, cols).await
                {
                    tracing::debug!("telling the terminal's size: {e}");
                }
            }
        }
        std::future::pending::<u8>().await
    };
    let (out, err) = (tokio::io::stdout(), tokio::io::stderr());
    let ended = async {
        match args.interactive {
            true => session.run_with(tokio::io::stdin(), out, err).await,
            false => session.run_with(tokio::io::empty(), out, err).await,
        }
    };
    tokio::select! {
        status = ended => Ok(status?.code_for_shell()),
        never = pass_sizes_on => Ok(never),
    }
}
