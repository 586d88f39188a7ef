use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use smartvm::agent::Agent;
use smartvm::rundir::State;
use smartvm::{Error, ErrorKind, Result, SmartVm};

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
    let done = match (in_guest(&args.source), in_guest(&args.target)) {
        (Some((id, from)), None) => {
            let agent = agent(smartvm, id).await?;
            fetch(&agent, from, &args.target).await?
        }
        (None, Some((id, to))) => {
            let agent = agent(smartvm, id).await?;
            send(&agent, &args.source, to).await?
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

async fn fetch(agent: &Agent, from: &Path, to: &str) -> Result<Option<u64>> {
    if to == "-" {
        return Ok(Some(agent.read_file(from, tokio::io::stdout()).await?.size));
    }
    let mut to = Path::new(to).to_owned();
    if to.is_dir() {
        to.push(from.file_name().unwrap_or_default());
    }
    let dir = match to.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    // Whole or not at all: what is there stays until all has come.
    let temporary =
        tempfile::NamedTempFile::new_in(dir).map_err(|e| Error::io("writing", &to, e))?;
    let file = temporary
        .reopen()
        .map_err(|e| Error::io("writing", &to, e))?;
    let info = agent
        .read_file(from, tokio::fs::File::from_std(file))
        .await?;
    let mode = std::fs::Permissions::from_mode(info.mode & 0o777);
    temporary
        .as_file()
        .set_permissions(mode)
        .map_err(|e| Error::io("writing", &to, e))?;
    temporary
        .persist(&to)
        .map_err(|e| Error::io("writing", &to, e.error))?;
    Ok(Some(info.size))
}

async fn send(agent: &Agent, from: &str, to: &Path) -> Result<Option<u64>> {
    if from == "-" {
        agent.write_file(to, None, tokio::io::stdin()).await?;
        return Ok(None);
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
    let mut to = to.to_owned();
    if to.as_os_str().as_encoded_bytes().ends_with(b"/") {
        to.push(Path::new(from).file_name().unwrap_or_default());
    }
    let mode = found.permissions().mode() & 0o777;
    agent.write_file(to, Some(mode), file).await?;
    Ok(Some(found.len()))
}
