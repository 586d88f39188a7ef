use std::path::PathBuf;

use clap::{Args, Subcommand};
use smartvm::storage::rootfs::RootfsOptions;
use smartvm::storage::{BuildOptions, Bundle, Progress, Watch, build};
use smartvm::{Error, ErrorKind, Result, agent};

use crate::cli::Global;
use crate::{image_spec, output, settings};

#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    verb: ImageVerb,
}

#[derive(Debug, Subcommand)]
enum ImageVerb {
    /// Make an image from a kernel, its modules and a root file system
    Build(Box<BuildArgs>),
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
    /// Where the image is made
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Its name [default: the last part of --output]
    #[arg(long)]
    id: Option<String>,
    /// Size of the root file system, such as 512MiB or 2GiB [default: what fits, and some room]
    #[arg(long, value_parser = size)]
    size: Option<u64>,
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

/// A size as people write it: a number, with KiB, MiB, GiB or TiB.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .trim()
        .parse()
        .map_err(|e| format!("{digits:?}: {e}"))?;
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

pub(crate) fn run(global: &Global, args: ImageArgs) -> Result<u8> {
    let mut tell = |progress: Progress| match progress {
        Progress::Stage(stage) => output::note(stage),
        Progress::Note(note) => output::note(format_args!("note: {note}")),
        _ => {}
    };
    let mut watch = Watch::new(&mut tell, &|| false);
    match args.verb {
        ImageVerb::Build(args) => {
            let bundle = build(&options(*args)?, &mut watch)?;
            output::line(bundle.dir().display())?;
        }
        ImageVerb::Inspect(one) => {
            let bundle = image_spec::find(&settings::options(global)?, &one.image)?;
            output::value(bundle.manifest())?;
        }
        ImageVerb::Verify(one) => {
            let bundle = image_spec::find(&settings::options(global)?, &one.image)?;
            verify(&bundle, &mut watch)?;
        }
    }
    Ok(0)
}

fn options(args: BuildArgs) -> Result<BuildOptions> {
    if args.modules.is_none() && !args.module.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "--module needs --modules"));
    }
    let agent = agent::binary::find(args.agent.as_deref())?;
    let mut size = RootfsOptions::default();
    size.size_bytes = args.size;
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
        output::note(format_args!(
            "note: the manifest has no checksum of the {role}"
        ));
    }
    output::line(format_args!("{}: as its manifest says", bundle.bundle_id()))
}
