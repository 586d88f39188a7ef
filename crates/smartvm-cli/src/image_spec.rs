//! The spec of a VM that runs an image.

use std::path::Path;

use smartvm::spec::{BootSource, Drive, MachineConfig, MicroVmSpec, RootfsType, SmartVmOptions};
use smartvm::storage::store::{Held, Store};
use smartvm::storage::{Bundle, ImageProcess, Progress, Watch, drive, initramfs};
use smartvm::{Error, Result};

use crate::output;

/// The kernel's words where a spec gives none: Firecracker's default, with a console.
const DEFAULT_BOOT_ARGS: &str = "console=ttyS0 reboot=k panic=1 pci=off";
/// The word by which our initramfs keeps its agent as the guest's init.
const AGENT_AS_INIT: &str = "smartvm.init=agent";
/// Memory of a VM that only names an image, in MiB.
const MEMORY_MIB: u64 = 256;

/// An image that is run: from the store, where nobody removes it meanwhile, or from anywhere.
pub(crate) enum Image {
    Stored(Box<Held>),
    Elsewhere(Box<Bundle>),
}

impl Image {
    pub(crate) fn bundle(&self) -> &Bundle {
        match self {
            Self::Stored(held) => held.bundle(),
            Self::Elsewhere(bundle) => bundle,
        }
    }
}

/// The store that the options name.
pub(crate) fn store(options: &SmartVmOptions) -> Result<Store> {
    Store::open(&options.base_image_cache_dir())
}

/// The image with this name, or at this path if it contains `/`.
pub(crate) fn find(options: &SmartVmOptions, image: &str) -> Result<Image> {
    if image.contains('/') {
        let bundle = Bundle::load(Path::new(image))?;
        return Ok(Image::Elsewhere(Box::new(bundle)));
    }
    let held = store(options)?.hold(image)?;
    Ok(Image::Stored(Box::new(held)))
}

/// A spec that runs the image, whose files are as its manifest says. The image is to be held
/// until the VM is made.
pub(crate) fn from_image(
    options: &SmartVmOptions,
    image: &str,
    scratch: Option<u64>,
    modules: Option<&Path>,
) -> Result<(MicroVmSpec, Image)> {
    let image = find(options, image)?;
    let bundle = image.bundle();
    let mut tell = |progress: Progress| {
        if let Progress::Stage(stage) = progress {
            output::note(stage);
        }
    };
    let verified = options.data_dir().join("verified");
    let watch = &mut Watch::new(&mut tell, &|| false);
    bundle.verify_once(&verified, watch)?;
    let mut boot_source = BootSource::builder()
        .kernel_image_path(&bundle.kernel().path)
        .boot_args(bundle.boot_args())
        .build();
    boot_source.initrd_path = Some(match bundle.initrd() {
        Some(initrd) => initrd.path.clone(),
        // Commands can be run in any image.
        None => {
            let agent = smartvm::agent::binary::find(None)?;
            let dir = options.data_dir().join("initramfs");
            initramfs::of_agent(&agent, modules, &dir, watch)?
        }
    });
    let overlay = match (scratch, bundle.rootfs_type()) {
        (Some(_), _) => Some("smartvm.overlay=/dev/vdb"),
        (None, RootfsType::Squashfs) => Some("smartvm.overlay=tmpfs"),
        (None, _) => None,
    };
    let args = boot_source.boot_args.get_or_insert_default();
    if let Some(overlay) = overlay.filter(|_| !args.contains("smartvm.overlay=")) {
        args.push(' ');
        args.push_str(overlay);
    }
    let root = Drive::builder()
        .drive_id("root")
        .path_on_host(&bundle.rootfs().path)
        .is_root_device(true)
        .is_read_only(bundle.is_read_only() || scratch.is_some())
        .build();
    let mut drives = vec![root];
    if let Some(size) = scratch {
        drives.push(blank(options, size)?);
    }
    let spec = MicroVmSpec::builder()
        .boot_source(boot_source)
        .machine_config(
            MachineConfig::builder()
                .vcpu_count(1)
                .mem_size_mib(MEMORY_MIB)
                .build(),
        )
        .drives(drives)
        .build();
    Ok((spec, image))
}

/// What the image of a VM says of processes in it, if it runs one.
pub(crate) fn process_of(spec: &MicroVmSpec) -> Option<ImageProcess> {
    let kernel = &spec.boot_source.kernel_image_path;
    // Anything else than an image is beside other kernels.
    let bundle = Bundle::load(kernel.parent()?).ok()?;
    let is_it = bundle.kernel().path.canonicalize().ok() == kernel.canonicalize().ok();
    bundle.manifest().process.clone().filter(|_| is_it)
}

/// A drive for what the guest writes: a copy of a blank one, gone with the VM.
fn blank(options: &SmartVmOptions, size: u64) -> Result<Drive> {
    let dir = options.data_dir().join("scratch");
    smartvm::durable::private_dir(&dir)?;
    let path = dir.join(format!("ext4-{size}.img"));
    if !path.is_file() {
        let new = tempfile::tempdir_in(&dir).map_err(|e| Error::io("making", &dir, e))?;
        let made = new.path().join("drive");
        drive::create_ext4(&made, size, &|| false)?;
        std::fs::rename(&made, &path).map_err(|e| Error::io("naming", &path, e))?;
    }
    Ok(Drive::builder()
        .drive_id("scratch")
        .path_on_host(path)
        .is_root_device(false)
        .ephemeral(true)
        .build())
}

/// Has the guest run a single command under the agent, without the root's own init. An
/// initramfs that isn't ours passes the word on unread.
pub(crate) fn keep_agent_as_init(spec: &mut MicroVmSpec) {
    if spec.boot_source.initrd_path.is_none() {
        return;
    }
    let args = spec
        .boot_source
        .boot_args
        .get_or_insert_with(|| DEFAULT_BOOT_ARGS.into());
    if !args
        .split_whitespace()
        .any(|word| word.starts_with("smartvm.init="))
    {
        args.push(' ');
        args.push_str(AGENT_AS_INIT);
    }
}
