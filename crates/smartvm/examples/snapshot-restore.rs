//! Makes a snapshot of a running VM, and restores it twice:
//! `cargo run --example snapshot-restore -- VM-ID DIRECTORY`

// An example may speak.
#![allow(clippy::print_stdout)]

use std::path::PathBuf;

use smartvm::snapshot::{Place, RestoreOptions, SnapshotOptions};
use smartvm::spec::{SmartVmOptions, SnapshotCreateParams, SnapshotLoadParams};
use smartvm::vm::StopMode;
use smartvm::{Error, ErrorKind, Parts, Result, SmartVm};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(id), Some(dir)) = (arguments.next(), arguments.next()) else {
        return Err(Error::new(
            ErrorKind::Invalid,
            "give a VM's id and a directory",
        ));
    };
    let smartvm = SmartVm::open(SmartVmOptions::default(), Parts::default())?;
    let place = Place::in_directory(&PathBuf::from(dir))?;

    let create = SnapshotCreateParams::builder()
        .snapshot_path(place.state())
        .mem_file_path(place.memory())
        .build();
    let vm = smartvm.get(&id.parse()?)?;
    let snapshot = vm.snapshot(&create, &SnapshotOptions::default()).await?;
    println!("snapshot {} of VM {id}", snapshot.manifest().id);

    let load = SnapshotLoadParams::builder()
        .snapshot_path(place.state())
        .mem_file_path(place.memory())
        .resume_vm(true)
        .build();
    let mut clones = Vec::new();
    for number in 1..=2 {
        let mut options = RestoreOptions::default();
        options.id = Some(format!("{id}-{number}").parse()?);
        clones.push(smartvm.restore(&load, &options).await?);
    }
    for mut clone in clones {
        println!("VM {} is {}", clone.id(), clone.state()?.state);
        clone.stop(StopMode::Kill).await?;
    }
    Ok(())
}
