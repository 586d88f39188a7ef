use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use smartvm::agent::Agent;
use smartvm::rundir::State;
use smartvm::{Error, ErrorKind, Result, SmartVm};
use tokio::io::AsyncSeekExt;

use crate::output;

/// How long a guest that is still booting may take until its agent answers.
const BOOT_PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm cp app.conf web:/etc/app.conf
  smartvm cp web:/var/log/app.log .
  tar c dir | smartvm cp - web:/tmp/dir.tar
  smartvm cp web:/etc/os-release - | grep ID

One side is ID:PATH, PATH absolute in the guest; the other a file here (write ./a:b for one with a
colon), a directory, or - for standard input or output. A file keeps its permissions. For whole
directories: tar c DIR | smartvm exec -i web -- tar x -C /srv")]
pub(crate) struct CpArgs {
    /// From: a file, ID:PATH, or -
    #[arg(value_name = "SRC")]
    source: String,
    /// To: a file or directory, ID:PATH, or -
    #[arg(value_name = "DST")]
    target: String,
}

/// `ID:PATH`, unless it can only be a path here.
fn in_guest(text: &str) -> Option<(&str, &Path)> {
    let (id, path) = text.split_once(':')?;
    (!id.is_empty() && !id.contains('/')).then_some((id, Path::new(path)))
}

pub(crate) async fn run(smartvm: &SmartVm, args: &CpArgs) -> Result<u8> {
    // What is wrong here is told before the guest is asked.
    let done = match (in_guest(&args.source), in_guest(&args.target)) {
        (Some((id, from)), None) => {
            absolute(from)?;
            let to = Target::prepare(&args.target, from)?;
            to.fetch(&agent(smartvm, id).await?, from).await?
        }
        (None, Some((id, to))) => {
            absolute(to)?;
            let from = Source::open(&args.source).await?;
            from.send(&agent(smartvm, id).await?, to).await?
        }
        _ => {
            return Err(Error::new(
                ErrorKind::Invalid,
                "exactly one side must be in a guest, written ID:PATH",
            ));
        }
    };
    if output::json() && args.target != "-" {
        output::value(&serde_json::json!({ "bytes": done }))?;
    }
    Ok(0)
}

fn absolute(path: &Path) -> Result<()> {
    match path.is_absolute() {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Invalid,
            format!("{:?} isn't an absolute path", path.display().to_string()),
        )
        .hint("in a guest, write ID:/PATH")),
    }
}

async fn agent(smartvm: &SmartVm, id: &str) -> Result<Agent> {
    let id = smartvm.runtime().resolve(id)?;
    let vm = smartvm.get(&id)?;
    let state = vm.state()?.state;
    if state != State::Running {
        return Err(
            Error::new(ErrorKind::WrongState, format!("VM {id} is {state}"))
                .hint("files are copied from and to running VMs"),
        );
    }
    let agent = vm.agent()?;
    agent.wait_ready(BOOT_PATIENCE).await?;
    Ok(agent)
}

/// Where a guest's file goes.
enum Target {
    Output,
    /// Whole or not at all: what is there stays until all has come.
    File(PathBuf, tempfile::NamedTempFile),
}

impl Target {
    fn prepare(to: &str, from: &Path) -> Result<Self> {
        if to == "-" {
            return Ok(Self::Output);
        }
        let mut to = PathBuf::from(to);
        if to.is_dir() {
            to.push(from.file_name().unwrap_or_default());
        }
        let dir = match to.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let temporary =
            tempfile::NamedTempFile::new_in(dir).map_err(|e| Error::io("writing", &to, e))?;
        Ok(Self::File(to, temporary))
    }

    async fn fetch(self, agent: &Agent, from: &Path) -> Result<Option<u64>> {
        let (to, temporary) = match self {
            Self::Output => {
                return Ok(Some(agent.read_file(from, tokio::io::stdout()).await?.size));
            }
            Self::File(to, temporary) => (to, temporary),
        };
        let failed = |e| Error::io("writing", &to, e);
        let file = temporary.reopen().map_err(failed)?;
        let info = agent
            .read_file(from, tokio::fs::File::from_std(file))
            .await?;
        let mode = std::fs::Permissions::from_mode(info.mode & 0o777);
        let file = temporary.as_file();
        file.set_permissions(mode).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        temporary.persist(&to).map_err(|e| failed(e.error))?;
        Ok(Some(size))
    }
}

/// What goes into a guest.
enum Source {
    Input,
    File(PathBuf, tokio::fs::File, std::fs::Permissions),
}

impl Source {
    async fn open(from: &str) -> Result<Self> {
        if from == "-" {
            return Ok(Self::Input);
        }
        let failed = |e| Error::io("reading", from, e);
        let file = tokio::fs::File::open(from).await.map_err(failed)?;
        let found = file.metadata().await.map_err(failed)?;
        if found.is_dir() {
            return Err(
                Error::new(ErrorKind::Invalid, format!("{from} is a directory"))
                    .hint("tar c DIR | smartvm exec -i ID -- tar x -C /srv"),
            );
        }
        Ok(Self::File(from.into(), file, found.permissions()))
    }

    async fn send(self, agent: &Agent, to: &Path) -> Result<Option<u64>> {
        let (from, mut file, permissions) = match self {
            Self::Input => {
                agent.write_file(to, None, tokio::io::stdin()).await?;
                return Ok(None);
            }
            Self::File(from, file, found) => (from, file, found),
        };
        let mut to = to.to_owned();
        if to.as_os_str().as_encoded_bytes().ends_with(b"/") {
            to.push(from.file_name().unwrap_or_default());
        }
        let mode = permissions.mode() & 0o777;
        agent.write_file(to, Some(mode), &mut file).await?;
        let sent = file.stream_position().await;
        sent.map(Some).map_err(|e| Error::io("reading", from, e))
    }
}
