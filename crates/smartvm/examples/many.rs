//! Boots many VMs of one kernel at once, tells what happens to them, and ends them all:
//! `cargo run -p smartvm --example many -- KERNEL COUNT`.

// An example talks to whoever runs it.
#![allow(clippy::print_stdout)]

use std::sync::Arc;

use smartvm::spec::{BootSource, MachineConfig, MicroVmSpec, SmartVmOptions};
use smartvm::vm::{StartOptions, StopMode, stop_all};
use smartvm::{Error, ErrorKind, Parts, SmartVm};

#[tokio::main(flavor = "current_thread")]
async fn main() -> smartvm::Result<()> {
    let usage = || Error::new(ErrorKind::Invalid, "usage: many KERNEL COUNT");
    let mut arguments = std::env::args().skip(1);
    let kernel = arguments.next().ok_or_else(usage)?;
    let count = arguments.next().and_then(|text| text.parse::<usize>().ok());
    let count = count.ok_or_else(usage)?;
    let mut options = SmartVmOptions::default();
    options.firecracker_binary_path = std::env::var_os("SMARTVM_FIRECRACKER").map(Into::into);
    let smartvm = Arc::new(SmartVm::open(options, Parts::default())?);
    let mut events = smartvm.events()?;
    let spec = MicroVmSpec::builder()
        .boot_source(BootSource::builder().kernel_image_path(kernel).build())
        .machine_config(
            MachineConfig::builder()
                .vcpu_count(1)
                .mem_size_mib(128)
                .build(),
        )
        .build();
    let starts: Vec<_> = (0..count)
        .map(|_| {
            let (smartvm, spec) = (Arc::clone(&smartvm), spec.clone());
            tokio::spawn(async move {
                let mut vm = smartvm.create(&spec).await?;
                vm.start(&StartOptions::default()).await?;
                Ok::<_, Error>(vm)
            })
        })
        .collect();
    let mut vms = Vec::new();
    for start in starts {
        let started = start.await;
        vms.push(started.map_err(|e| Error::new(ErrorKind::Io, "a task failed").because(e))??);
    }
    let ended = stop_all(&mut vms, StopMode::Kill).await;
    println!(
        "{} VMs ended",
        ended.iter().filter(|one| one.is_ok()).count()
    );
    let mut ends = 0;
    while ends < count {
        let event = events.next().await?;
        println!("{} {} {}", event.at, event.id, event.state);
        ends += usize::from(event.end.is_some());
    }
    Ok(())
}
