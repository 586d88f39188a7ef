//! From an OCI image to a bundle: what is said on the command line of it.

use std::path::PathBuf;

use clap::Args;
use smartvm::spec::RootfsType;
use smartvm::storage::build::KernelSource;
use smartvm::storage::oci::OciImage;
use smartvm::storage::rootfs::RootfsOptions;
use smartvm::storage::store::{Claim, Record, Store};
use smartvm::storage::{BuildOptions, Bundle, Watch, build};
use smartvm::{Error, ErrorKind, Result, SmartVm, agent};

use super::{build_into, format, size};
use crate::{image_spec, output};

/// Where an image that is no bundle yet goes, and what it boots with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct MakeArgs {
    /// The image's name here [default: from its own]
    #[arg(long, value_name = "NAME", conflicts_with = "output")]
    pub(super) name: Option<String>,
    /// Where the image is made, instead of in the store
    #[arg(short, long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
    /// The kernel: vmlinuz (bzImage) or vmlinux
    #[arg(long, value_name = "VMLINUZ|VMLINUX", conflicts_with = "kernel_from")]
    pub(super) kernel: Option<PathBuf>,
    /// The kernel's modules: a directory with modules.dep
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// Take kernel and initramfs from this image [default: the newest in the store]
    #[arg(long, value_name = "IMAGE")]
    pub(super) kernel_from: Option<String>,
    /// Size of the root file system, such as 512MiB or 2GiB [default: what fits, and some room]
    #[arg(long, value_parser = size)]
    size: Option<u64>,
    /// What the root file system is made: ext4, or squashfs, which is compressed and read-only
    /// (what guests write goes to an overlay) [default: ext4]
    #[arg(long, value_name = "ext4|squashfs", value_parser = format)]
    format: Option<RootfsType>,
    /// Replace the image that is there
    #[arg(long)]
    pub(super) replace: bool,
    /// The guest agent [default: smartvm-agent beside smartvm]
    #[arg(long, value_name = "PATH", env = "SMARTVM_AGENT")]
    agent: Option<PathBuf>,
}

impl MakeArgs {
    /// Whether anything is asked for: the agent may come from the environment.
    pub(super) fn asks_for_nothing(&self) -> bool {
        let agent = self.agent.clone();
        *self
            == Self {
                agent,
                ..Self::default()
            }
    }
}

/// Makes a bundle of an OCI image: in the store under the claimed name, else where `--output`
/// says.
pub(super) fn make(
    vms: &SmartVm,
    image: &OciImage,
    claimed: Option<(&Claim, Record)>,
    args: MakeArgs,
    watch: &mut Watch<'_>,
) -> Result<Bundle> {
    let store = super::store::store(vms)?;
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
    size.format = args.format.unwrap_or(RootfsType::Ext4);
    let mut options = BuildOptions::builder()
        .kernel(kernel)
        .rootfs(image.root())
        .agent(agent::binary::find(args.agent.as_deref())?)
        .output(args.output.unwrap_or_default())
        .process(image.process().clone())
        .replace(args.replace)
        .size(size)
        .build();
    options.modules = args.modules;
    options.name = Some(match image.name() {
        Some(name) => format!("{name} ({})", image.digest()),
        None => image.digest().to_owned(),
    });
    match claimed {
        None => build(&options, watch),
        Some((claim, record)) => build_into(&store, claim, options, &record, watch),
    }
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
