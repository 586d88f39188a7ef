//! The spec of a VM that runs an image.

use std::path::Path;

use smartvm::Result;
use smartvm::spec::{BootSource, Drive, MachineConfig, MicroVmSpec, SmartVmOptions};
use smartvm::storage::{Bundle, Progress, Watch};

use crate::output;

/// The kernel's words where a spec gives none: Firecracker's default, with a console.
const DEFAULT_BOOT_ARGS: &str = "console=ttyS0 reboot=k panic=1 pci=off";
/// The word by which our initramfs keeps its agent as the guest's init.
const AGENT_AS_INIT: &str = "smartvm.init=agent";
/// Memory of a VM that only names an image, in MiB.
const MEMORY_MIB: u64 = 256;

/// The image with this name, or at this path if it contains `/`.
pub(crate) fn find(options: &SmartVmOptions, image: &str) -> Result<Bundle> {
    if image.contains('/') {
        return Bundle::load(Path::new(image));
    }
    Bundle::load(&options.data_dir().join("images").join(image))
}

/// A spec that runs the image, whose files are as its manifest says.
pub(crate) fn from_image(options: &SmartVmOptions, image: &str) -> Result<MicroVmSpec> {
    let bundle = find(options, image)?;
    let mut tell = |progress: Progress| {
        if let Progress::Stage(stage) = progress {
            output::note(stage);
        }
    };
    let verified = options.data_dir().join("verified");
    bundle.verify_once(&verified, &mut Watch::new(&mut tell, &|| false))?;
    let mut boot_source = BootSource::builder()
        .kernel_image_path(&bundle.kernel().path)
        .boot_args(bundle.boot_args())
        .build();
    boot_source.initrd_path = bundle.initrd().map(|initrd| initrd.path.clone());
    let root = Drive::builder()
        .drive_id("root")
        .path_on_host(&bundle.rootfs().path)
        .is_root_device(true)
        .is_read_only(bundle.is_read_only())
        .build();
    Ok(MicroVmSpec::builder()
        .boot_source(boot_source)
        .machine_config(
            MachineConfig::builder()
                .vcpu_count(1)
                .mem_size_mib(MEMORY_MIB)
                .build(),
        )
        .drives(vec![root])
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
