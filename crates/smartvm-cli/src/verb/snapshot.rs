use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use smartvm::snapshot::{Place, RestoreOptions, Snapshot, SnapshotOptions};
use smartvm::spec::{Lifetime, SnapshotCreateParams, SnapshotLoadParams, SnapshotType};
use smartvm::{Error, ErrorKind, Result, SmartVm};

use crate::cli::{HostArgs, JailArgs};
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm snapshot create web base
  smartvm snapshot restore base --id web-2
  smartvm snapshot ls
  smartvm snapshot inspect base
  smartvm snapshot rm base")]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    verb: SnapshotVerb,
}

#[derive(Debug, Subcommand)]
enum SnapshotVerb {
    /// Make a snapshot of a VM; prints its name or directory
    #[command(
        after_help = "Examples:\n  smartvm snapshot create web before-upgrade\n  \
        smartvm snapshot create web --diff\n  \
        smartvm snapshot create web --output /srv/snapshots/web-1"
    )]
    Create(CreateArgs),
    /// Make a VM that goes on from a snapshot, detached; prints its id
    #[command(
        after_help = "Examples:\n  smartvm snapshot restore before-upgrade\n  \
        smartvm snapshot restore before-upgrade --id web-2 --tap eth0=tap7\n  \
        smartvm snapshot restore /srv/snapshots/web-1 --id copy --verify"
    )]
    Restore(Box<RestoreArgs>),
    /// List the snapshots in the data directory
    Ls,
    /// All that is known of snapshots
    Inspect(Names),
    /// Remove snapshots that no VM and no diff needs
    Rm(Names),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// The VM's id, or the beginning of it
    id: String,
    /// The snapshot's name [default: the VM's id and the time]
    #[arg(conflicts_with = "output")]
    name: Option<String>,
    /// Make it in this directory
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Only what changed since the VM's last snapshot
    #[arg(long)]
    diff: bool,
    /// Leave the VM paused
    #[arg(long)]
    leave_paused: bool,
    /// Its guest has no agent: don't ask for it
    #[arg(long)]
    no_agent: bool,
}

#[derive(Debug, Args)]
struct RestoreArgs {
    /// The snapshot: a name, or a directory if it contains `/`
    snapshot: String,
    /// The new VM's id [default: that of the VM that the snapshot was made of]
    #[arg(long)]
    id: Option<String>,
    /// Another TAP device for a network interface
    #[arg(long, value_name = "IFACE=TAP")]
    tap: Vec<String>,
    /// Label it, instead of the labels in the snapshot
    #[arg(long, value_name = "K=V")]
    label: Vec<String>,
    /// Leave it paused
    #[arg(long)]
    paused: bool,
    /// Track what changes from now on, for diffs
    #[arg(long)]
    track_dirty_pages: bool,
    /// End it after so many seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Where its writable drives are copied to [default: the runtime directory]
    #[arg(long, value_name = "DIR")]
    staging_dir: Option<PathBuf>,
    /// Verify memory and drives even where nothing speaks for a change
    #[arg(long)]
    verify: bool,
    /// Load it without a manifest too, and on another kind of host
    #[arg(long)]
    unchecked: bool,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    jail: JailArgs,
}

#[derive(Debug, Args)]
struct Names {
    /// The snapshots: names, or directories if they contain `/`
    #[arg(required = true, value_name = "SNAPSHOT")]
    names: Vec<String>,
}

impl SnapshotArgs {
    /// Whether KVM is taken as it is.
    pub(crate) fn assume_kvm(&self) -> bool {
        matches!(&self.verb, SnapshotVerb::Restore(args) if args.host.assume_kvm)
    }
}

pub(crate) async fn run(smartvm: &SmartVm, args: &SnapshotArgs) -> Result<u8> {
    match &args.verb {
        SnapshotVerb::Create(args) => create(smartvm, args).await,
        SnapshotVerb::Restore(args) => restore(smartvm, args).await,
        SnapshotVerb::Ls => list(smartvm),
        SnapshotVerb::Inspect(names) => {
            let snapshots: Vec<_> = each(smartvm, names)?;
            let manifests: Vec<_> = snapshots.iter().map(Snapshot::manifest).collect();
            output::value(&manifests)?;
            Ok(0)
        }
        SnapshotVerb::Rm(names) => {
            for snapshot in each(smartvm, names)? {
                let place = snapshot.place().clone();
                snapshot.remove()?;
                smartvm.shelf().forget(&place)?;
                // The directory itself, unless something else is in it.
                if let Some(dir) = place.dir().parent() {
                    let _others_are_there = std::fs::remove_dir(dir);
                }
            }
            Ok(0)
        }
    }
}

/// The directory of snapshots that have names.
fn directory(smartvm: &SmartVm) -> PathBuf {
    smartvm.shelf().dir().to_owned()
}

/// The directory that `text` means: a name, or a path if it contains `/`.
fn find(smartvm: &SmartVm, text: &str) -> Result<PathBuf> {
    if text.contains('/') {
        return Ok(text.into());
    }
    let plain = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
    if text.is_empty() || text.starts_with('.') || text.len() > 128 || !text.chars().all(plain) {
        let message = format!("{text:?} is no name of a snapshot");
        return Err(Error::new(ErrorKind::Invalid, message)
            .hint("letters, digits, `-`, `_` and `.`; a path contains `/`"));
    }
    Ok(directory(smartvm).join(text))
}

fn each(smartvm: &SmartVm, names: &Names) -> Result<Vec<Snapshot>> {
    let open = |name: &String| Snapshot::open(&Place::in_directory(&find(smartvm, name)?)?);
    names.names.iter().map(open).collect()
}

async fn create(smartvm: &SmartVm, args: &CreateArgs) -> Result<u8> {
    let id = smartvm.runtime().resolve(&args.id)?;
    let (dir, printed) = match (&args.output, &args.name) {
        (Some(dir), _) => (dir.clone(), dir.display().to_string()),
        (None, Some(name)) => (find(smartvm, name)?, name.clone()),
        (None, None) => {
            let now = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
            let now: String = now.chars().filter(char::is_ascii_alphanumeric).collect();
            let name = format!("{id}-{now}");
            (find(smartvm, &name)?, name)
        }
    };
    let place = Place::in_directory(&dir)?;
    let mut params = SnapshotCreateParams::builder()
        .snapshot_path(place.state())
        .mem_file_path(place.memory())
        .build();
    params.snapshot_type = args.diff.then_some(SnapshotType::Diff);
    let mut options = SnapshotOptions::default();
    options.leave_paused = args.leave_paused;
    options.agent = args.no_agent.then_some(false);
    let snapshot = smartvm.get(&id)?.snapshot(&params, &options).await?;
    if output::json() {
        output::value(snapshot.manifest())?;
    } else {
        output::line(printed)?;
    }
    Ok(0)
}

async fn restore(smartvm: &SmartVm, args: &RestoreArgs) -> Result<u8> {
    let place = Place::in_directory(&find(smartvm, &args.snapshot)?)?;
    let mut params = SnapshotLoadParams::builder()
        .snapshot_path(place.state())
        .mem_file_path(place.memory())
        .resume_vm(!args.paused)
        .build();
    params.enable_diff_snapshots = args.track_dirty_pages.then_some(true);
    let mut options = RestoreOptions::default();
    options.id = args.id.as_deref().map(str::parse).transpose()?;
    // This process ends now.
    options.lifetime = Some(Lifetime::Detached);
    options.max_runtime_s = args.timeout;
    options.staging_dir.clone_from(&args.staging_dir);
    options.verify = args.verify;
    options.unchecked = args.unchecked;
    options.taps = pairs("--tap", &args.tap)?.collect();
    if !args.label.is_empty() {
        options.labels = Some(pairs("--label", &args.label)?.collect());
    }
    let jail = match Snapshot::open(&place) {
        Ok(snapshot) => {
            let asked = snapshot.manifest().spec.jail.clone();
            Some(args.jail.over(asked, || smartvm.why_no_jail()))
        }
        // A pair of files without a manifest isn't jailed by itself: its drives are somewhere
        // outside.
        Err(_) => args.jail.required(),
    };
    options.jail = jail;
    let vm = smartvm.restore(&params, &options).await?;
    output::line(vm.id())?;
    Ok(0)
}

fn pairs(flag: &str, texts: &[String]) -> Result<impl Iterator<Item = (String, String)>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(Error::new(
            ErrorKind::Invalid,
            format!("{flag} {text:?} has no `=`"),
        )),
    };
    let all: Vec<_> = texts.iter().map(pair).collect::<Result<_>>()?;
    Ok(all.into_iter())
}

fn list(smartvm: &SmartVm) -> Result<u8> {
    let mut rows = Vec::new();
    for name in names(&directory(smartvm))? {
        let opened = Place::in_directory(&directory(smartvm).join(&name))
            .and_then(|place| Snapshot::open(&place));
        rows.push((name, opened));
    }
    if output::json() {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, opened)| match opened {
                Ok(snapshot) => {
                    let users = snapshot.users().unwrap_or_default();
                    serde_json::json!({
                        "name": name, "snapshot": snapshot.manifest(), "usedBy": users,
                    })
                }
                Err(e) => serde_json::json!({ "name": name, "error": e.to_string() }),
            })
            .collect();
        output::value(&rows)?;
        return Ok(0);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(vec!["NAME", "VM", "KIND", "MEMORY", "CREATED", "USED BY"]);
    for (name, opened) in rows {
        match opened {
            Ok(snapshot) => {
                let manifest = snapshot.manifest();
                table.add_row([
                    name,
                    manifest.vm.to_string(),
                    format!("{:?}", manifest.kind).to_lowercase(),
                    format!("{} MiB", manifest.memory.size_bytes >> 20),
                    manifest.created_at.clone(),
                    snapshot.users().unwrap_or_default().join(", "),
                ]);
            }
            Err(e) => {
                table.add_row([name, format!("{e}")]);
            }
        }
    }
    output::line(table.trim_fmt())?;
    Ok(0)
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("reading", dir, e)),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    Ok(names)
}
