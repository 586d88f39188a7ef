use std::fs;
use std::path::PathBuf;

use clap::Args;
use smartvm::spec::Arch;
use smartvm::storage::build::KernelSource;
use smartvm::storage::oci::{self, OciImage, Wanted};
use smartvm::storage::rootfs::RootfsOptions;
use smartvm::storage::store::{Origin, Store};
use smartvm::storage::{BuildOptions, Bundle, Watch, build};
use smartvm::{Error, ErrorKind, Result, SmartVm, agent};

use super::{build_into, size};
use crate::{image_spec, output};

/// Where an image that is no bundle yet goes, and what it boots with.
#[derive(Debug, Clone, Args)]
pub(crate) struct MakeArgs {
    /// The image's name here [default: from its own]
    #[arg(long, value_name = "NAME", conflicts_with = "output")]
    name: Option<String>,
    /// Where the image is made, instead of in the store
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The kernel: vmlinuz (bzImage) or vmlinux
    #[arg(long, value_name = "VMLINUZ|VMLINUX", conflicts_with = "kernel_from")]
    kernel: Option<PathBuf>,
    /// The kernel's modules: a directory with modules.dep
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// Take kernel and initramfs from this image [default: the newest in the store]
    #[arg(long, value_name = "IMAGE")]
    kernel_from: Option<String>,
    /// Size of the root file system, such as 512MiB or 2GiB [default: what fits, and some room]
    #[arg(long, value_parser = size)]
    size: Option<u64>,
    /// Replace the image that is there
    #[arg(long)]
    replace: bool,
    /// The guest agent [default: smartvm-agent beside smartvm]
    #[arg(long, value_name = "PATH", env = "SMARTVM_AGENT")]
    agent: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm image import ./layout --kernel-from base       an OCI layout
  smartvm image import tool.tar --name tool              what `docker save` or an OCI archive holds
  smartvm run --image tool                               runs what the image says")]
pub(crate) struct ImportArgs {
    /// An OCI layout, or what `docker save` writes: a directory or an archive
    #[arg(value_name = "DIR|ARCHIVE")]
    source: PathBuf,
    /// Which image, where there are several
    #[arg(long = "ref", value_name = "NAME")]
    reference: Option<String>,
    #[command(flatten)]
    make: MakeArgs,
}

/// Makes a bundle of an image on this machine.
pub(crate) fn import(vms: &SmartVm, args: ImportArgs, watch: &mut Watch<'_>) -> Result<Bundle> {
    let options = vms.options();
    let arch = options.arch.or(Arch::host()).unwrap_or(Arch::X86_64);
    let mut wanted = Wanted::for_arch(arch);
    wanted.name = args.reference;
    let work = options.data_dir();
    fs::create_dir_all(work).map_err(|e| Error::io("making the data directory", work, e))?;
    let image = oci::open(&args.source, &wanted, work, watch)?;
    let fallback = args.source.file_stem().unwrap_or_default();
    make(vms, &image, &fallback.to_string_lossy(), args.make, watch)
}

/// Makes a bundle of an OCI image.
fn make(
    vms: &SmartVm,
    image: &OciImage,
    fallback: &str,
    args: MakeArgs,
    watch: &mut Watch<'_>,
) -> Result<Bundle> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => short_name(image.name().unwrap_or(fallback)),
    };
    let store = image_spec::store(vms.options())?;
    let kernel = match (args.kernel, &args.kernel_from) {
        (Some(kernel), _) => KernelSource::Image(kernel),
        (None, Some(from)) => {
            let image = image_spec::find(vms.options(), from)?;
            KernelSource::Bundle(image.bundle().dir().into())
        }
        (None, None) => KernelSource::Bundle(newest(&store)?),
    };
    let mut size = RootfsOptions::default();
    size.size_bytes = args.size;
    let mut build_options = BuildOptions::builder()
        .kernel(kernel)
        .rootfs(image.root())
        .agent(agent::binary::find(args.agent.as_deref())?)
        .output(args.output.clone().unwrap_or_default())
        .process(image.process().clone())
        .replace(args.replace)
        .size(size)
        .build();
    build_options.modules = args.modules;
    build_options.name = Some(match image.name() {
        Some(name) => format!("{name} ({})", image.digest()),
        None => image.digest().to_owned(),
    });
    match args.output {
        Some(_) => build(&build_options, watch),
        None => {
            store.serve(vms.runtime().path())?;
            build_into(&store, &name, build_options, Origin::Imported, watch)
        }
    }
}

/// The last part of an image's name, without what a directory can't be named: `tool` for
/// `registry.example/team/tool:1.2`.
fn short_name(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    let last = last.split(['@', ':']).next().unwrap_or(last);
    last.chars()
        .map(|c| match c {
            'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' | '-' => c,
            _ => '-',
        })
        .collect()
}

/// The newest image in the store, whose kernel serves others too.
fn newest(store: &Store) -> Result<PathBuf> {
    let entries = store
        .list()?
        .into_iter()
        .filter_map(|(_, entry)| entry.ok());
    let Some(found) = entries.max_by(|a, b| a.record.created_at.cmp(&b.record.created_at)) else {
        return Err(Error::new(
            ErrorKind::NotFound,
            "no image in the store has a kernel to boot with",
        )
        .hint(
            "give --kernel VMLINUZ and --modules DIR, or --kernel-from with the path of an \
             image that `smartvm image build` made",
        ));
    };
    output::note(format_args!("note: the kernel is that of {}", found.name));
    Ok(found.dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_by_the_last_part_of_their_name() {
        for (name, short) in [
            ("alpine", "alpine"),
            ("registry.example:5000/team/tool:1.2", "tool"),
            ("tool@sha256:00ff", "tool"),
            ("odd name", "odd-name"),
        ] {
            assert_eq!(short_name(name), short);
        }
    }
}
