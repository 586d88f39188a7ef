mod import;
mod make;
pub(crate) mod pull;
mod store;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use smartvm::spec::RootfsType;
use smartvm::storage::rootfs::RootfsOptions;
use smartvm::storage::store::{Claim, Origin, Record, Store};
use smartvm::storage::{BuildOptions, Bundle, Progress, Watch, build};
use smartvm::{Error, ErrorKind, Result, agent};

use crate::cli::Global;
use crate::{image_spec, output, settings};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm image pull
  smartvm image build --kernel vmlinuz --modules /lib/modules/6.1.0 --rootfs DIR --output ./image
  smartvm image ls
  smartvm image inspect ./image
  smartvm image verify ./image")]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    verb: ImageVerb,
}

#[derive(Debug, Subcommand)]
enum ImageVerb {
    /// Make an image from a kernel, its modules and a root file system
    #[command(
        after_help = "Example:\n  smartvm image build --kernel vmlinuz --modules \
                            /lib/modules/6.1.0-1-amd64 --rootfs root.tar --output web"
    )]
    Build(Box<BuildArgs>),
    /// Make an image from an OCI or Docker image on this machine
    Import(Box<import::ImportArgs>),
    /// Fetch an image: from a registry, Firecracker's own, or that of a hosted manifest; prints
    /// its name
    Pull(Box<pull::PullArgs>),
    /// List the images in the store
    Ls,
    /// Tell what images, kept layers and downloads take on disk
    Usage,
    /// Remove images that no VM uses
    Rm(store::Images),
    /// Make room: remove the images that were used longest ago and that no VM uses
    Prune(store::PruneArgs),
    /// Copy an image in the store under another name
    #[command(after_help = "Example:\n  smartvm image clone web web-2")]
    Clone {
        /// The image
        image: String,
        /// The copy's name
        name: String,
    },
    /// Make a blank drive
    #[command(after_help = "Example:\n  smartvm image create-drive --size 1GiB --fs ext4 data.img")]
    CreateDrive(DriveArgs),
    /// All that is known of an image
    Inspect(OneImage),
    /// Compare an image's files with its checksums
    Verify(OneImage),
}

#[derive(Debug, Args)]
struct OneImage {
    /// The image: a name, or a path if it contains `/`
    image: String,
}

#[derive(Debug, Args)]
struct DriveArgs {
    /// Its size, such as 1GiB
    #[arg(long, value_parser = size)]
    size: u64,
    /// Its file system
    #[arg(long, default_value = "ext4", value_parser = ["ext4"])]
    fs: String,
    /// The file to make
    file: PathBuf,
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// The kernel: vmlinuz (bzImage) or vmlinux
    #[arg(long, value_name = "VMLINUZ|VMLINUX")]
    kernel: PathBuf,
    /// The kernel's modules: a directory with modules.dep
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// The root file system: a directory or a tar archive
    #[arg(long, value_name = "DIR|TAR")]
    rootfs: PathBuf,
    /// Where the image is made: a directory if it contains `/`, else a name in the store
    #[arg(short, long, value_name = "NAME|DIR")]
    output: PathBuf,
    /// Its name [default: the last part of --output]
    #[arg(long)]
    id: Option<String>,
    /// Size of the root file system, such as 512MiB or 2GiB [default: what fits, and some room]
    #[arg(long, value_parser = size)]
    size: Option<u64>,
    /// What the root file system is: ext4, or squashfs, which is compressed and read-only (what
    /// guests write goes to an overlay)
    #[arg(long, value_name = "ext4|squashfs", default_value = "ext4", value_parser = format)]
    format: RootfsType,
    /// The kernel's words [default: a console on ttyS0, and what Firecracker needs]
    #[arg(long, value_name = "WORDS")]
    boot_args: Option<String>,
    /// A further module for the initramfs
    #[arg(long, value_name = "NAME")]
    module: Vec<String>,
    /// Guests must not write the root file system
    #[arg(long)]
    read_only: bool,
    /// Replace the image that is there
    #[arg(long)]
    replace: bool,
    /// The guest agent [default: smartvm-agent beside smartvm]
    #[arg(long, value_name = "PATH", env = "SMARTVM_AGENT")]
    agent: Option<PathBuf>,
}

/// A file system as its manifest names it.
pub(crate) fn format(text: &str) -> Result<RootfsType, String> {
    serde_json::from_value(text.into()).map_err(|_| "it is none of: ext4, squashfs".to_owned())
}

/// A size as people write it: a number, with KiB, MiB, GiB or TiB.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .trim()
        .parse()
        .map_err(|_| format!("{text:?} isn't a size: write such as 512MiB or 2GiB"))?;
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        other => {
            return Err(format!(
                "unknown unit {other:?}: write KiB, MiB, GiB or TiB"
            ));
        }
    };
    number.checked_mul(unit).ok_or_else(|| "too large".into())
}

pub(crate) async fn run(global: &Global, args: ImageArgs) -> Result<u8> {
    let tell = &mut told;
    let watch = &mut Watch::new(tell, &|| false);
    let vms = || settings::open(global, false);
    match args.verb {
        ImageVerb::Build(args) => {
            let to_store = !args.output.as_os_str().as_encoded_bytes().contains(&b'/');
            let bundle = match to_store {
                true => {
                    let name = args.output.to_string_lossy().into_owned();
                    let store = store::store(&vms()?)?;
                    let claim = store.claim(&name, watch.cancelled())?;
                    let record = Record::new(Origin::Built);
                    build_into(&store, &claim, options(*args)?, &record, watch)?
                }
                false => build(&options(*args)?, watch)?,
            };
            output::line(bundle.dir().display())?;
        }
        ImageVerb::Import(args) => {
            let bundle = import::import(&vms()?, *args, watch)?;
            output::line(bundle.dir().display())?;
        }
        ImageVerb::Pull(args) => pull::run(&vms()?, *args, watch).await?,
        ImageVerb::Ls => store::list(&store::store(&vms()?)?)?,
        ImageVerb::Usage => store::usage(&store::store(&vms()?)?)?,
        ImageVerb::Rm(images) => store::remove(&store::store(&vms()?)?, &images)?,
        ImageVerb::Prune(args) => store::prune(&store::store(&vms()?)?, &args)?,
        ImageVerb::Clone { image, name } => {
            let copy = store::store(&vms()?)?.clone_image(&image, &name, watch)?;
            output::line(copy.bundle().bundle_id())?;
        }
        ImageVerb::CreateDrive(args) => {
            smartvm::storage::drive::create_ext4(&args.file, args.size, watch.cancelled())?;
            output::line(args.file.display())?;
        }
        ImageVerb::Inspect(one) if !one.image.contains('/') => {
            store::inspect(&store::store(&vms()?)?, &one.image)?;
        }
        ImageVerb::Inspect(one) => {
            let image = image_spec::find(&settings::options(global)?, &one.image)?;
            output::value(image.bundle().manifest())?;
        }
        ImageVerb::Verify(one) => {
            let image = image_spec::find(&settings::options(global)?, &one.image)?;
            verify(image.bundle(), watch)?;
        }
    }
    Ok(0)
}

/// Tells whoever watches what is going on.
pub(crate) fn told(progress: Progress) {
    match progress {
        Progress::Stage(stage) => output::note(stage),
        Progress::Note(note) => output::warning(format_args!("note: {note}")),
        _ => {}
    }
}

/// Makes an image in the store, under the claimed name.
fn build_into(
    store: &Store,
    claim: &Claim,
    mut options: BuildOptions,
    record: &Record,
    watch: &mut Watch<'_>,
) -> Result<Bundle> {
    let work = store.work()?;
    let made = work.path().join(".made");
    options
        .bundle_id
        .get_or_insert_with(|| claim.name().to_owned());
    options.output.clone_from(&made);
    build(&options, watch)?;
    let failed = |e| Error::io("moving the image into", work.path(), e);
    for entry in std::fs::read_dir(&made).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        std::fs::rename(entry.path(), work.path().join(entry.file_name())).map_err(failed)?;
    }
    std::fs::remove_dir(&made).map_err(failed)?;
    let held = store.put(claim, work, record, options.replace)?;
    Ok(held.bundle().clone())
}

fn options(args: BuildArgs) -> Result<BuildOptions> {
    if args.modules.is_none() && !args.module.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "--module needs --modules"));
    }
    let agent = agent::binary::find(args.agent.as_deref())?;
    let mut size = RootfsOptions::default();
    size.size_bytes = args.size;
    size.format = args.format;
    let mut options = BuildOptions::builder()
        .kernel(args.kernel)
        .rootfs(args.rootfs)
        .agent(agent)
        .output(args.output)
        .build();
    options.modules = args.modules;
    options.extra_modules = args.module;
    options.bundle_id = args.id;
    options.boot_args = args.boot_args;
    options.read_only = args.read_only;
    options.replace = args.replace;
    options.size = size;
    Ok(options)
}

fn verify(bundle: &Bundle, watch: &mut Watch<'_>) -> Result<()> {
    let unchecked = bundle.verify(watch)?;
    for role in &unchecked {
        output::warning(format_args!(
            "note: the manifest has no checksum of the {role}"
        ));
    }
    output::line(format_args!("{}: as its manifest says", bundle.bundle_id()))
}
