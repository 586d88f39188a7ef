//! Boots a kernel, shows what it prints for five seconds, and ends it:
//! `cargo run -p smartvm --example boot -- KERNEL [ROOTFS]`.
//!
//! Firecracker is named by `SMARTVM_FIRECRACKER`; the `smartvm` executable, which keeps VMs,
//! is found on PATH.

// An example talks to whoever runs it.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use smartvm::keeper::ring;
use smartvm::rundir::file;
use smartvm::spec::{BootSource, Drive, MachineConfig, MicroVmSpec, SmartVmOptions};
use smartvm::vm::{StartOptions, StopMode};
use smartvm::{Error, ErrorKind, Parts, SmartVm};

#[tokio::main(flavor = "current_thread")]
async fn main() -> smartvm::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let kernel = arguments
        .next()
        .ok_or_else(|| Error::new(ErrorKind::Invalid, "usage: boot KERNEL [ROOTFS]"))?;
    let mut spec = MicroVmSpec::builder()
        .boot_source(
            BootSource::builder()
                .kernel_image_path(kernel)
                .boot_args("console=ttyS0 reboot=k panic=1 pci=off")
                .build(),
        )
        .machine_config(
            MachineConfig::builder()
                .vcpu_count(1)
                .mem_size_mib(256)
                .build(),
        )
        .build();
    if let Some(rootfs) = arguments.next() {
        spec.drives = vec![
            Drive::builder()
                .drive_id("root")
                .path_on_host(rootfs)
                .is_root_device(true)
                .build(),
        ];
    }
    let mut options = SmartVmOptions::default();
    options.firecracker_binary_path = std::env::var_os("SMARTVM_FIRECRACKER").map(Into::into);
    let smartvm = SmartVm::open(options, Parts::default())?;
    let mut vm = smartvm.create(&spec).await?;
    vm.start(&StartOptions::default()).await?;
    println!("VM {} runs", vm.id());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let console = ring::tail(&vm.run_dir().file(file::CONSOLE), 16 << 10)?;
    println!("{}", String::from_utf8_lossy(&console));
    let ended = vm.stop(StopMode::Graceful(Duration::from_secs(5))).await?;
    println!("VM {} ended: {}", ended.id, ended.reason);
    Ok(())
}
