//! Run Firecracker microVMs on a Linux host: isolated, crash-safe, without leaks.
//!
//! A typed description of a microVM (the [`spec`]) is validated, checked against this
//! host, turned into a plan of steps, and carried out through a durable ledger, so that
//! whatever was taken from the host is given back: on failure, on stop, after a crash.
//!
//! # A tour
//!
//! [`SmartVm`] is the place where VMs are: a runtime directory, shared by all processes of one
//! user. [`MicroVm`] is the handle of one of them.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use smartvm::agent::Command;
//! use smartvm::spec::{BootSource, MachineConfig, MicroVmSpec, SmartVmOptions};
//! use smartvm::vm::{StartOptions, StopMode};
//! use smartvm::{Parts, SmartVm};
//!
//! # async fn tour() -> smartvm::Result<()> {
//! let smartvm = SmartVm::open(SmartVmOptions::default(), Parts::default())?;
//! let spec = MicroVmSpec::builder()
//!     .boot_source(BootSource::builder().kernel_image_path("vmlinux").build())
//!     .machine_config(MachineConfig::builder().vcpu_count(1).mem_size_mib(128).build())
//!     .build();
//!
//! // What would be done, without touching the host: steps with their undo, and requests.
//! println!("{}", smartvm.plan(&spec)?);
//!
//! let mut vm = smartvm.create(&spec).await?;
//! vm.start(&StartOptions::default()).await?;
//!
//! // A command in the guest, where our agent runs in it.
//! let agent = vm.agent()?;
//! agent.wait_ready(Duration::from_secs(30)).await?;
//! let uname = Command::from_argv(["uname", "-a"]);
//! let session = agent.exec(&uname).await?;
//!
//! vm.pause().await?;
//! vm.resume().await?;
//! let ended = vm.stop(StopMode::Graceful(Duration::from_secs(10))).await?;
//! println!("{}: {}", ended.id, ended.reason);
//! # Ok(())
//! # }
//! ```
//!
//! An image has all that a guest boots: kernel, initramfs with our agent, root file system. A VM
//! goes on from a snapshot as often as wished, under another id:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use smartvm::snapshot::{Place, RestoreOptions, SnapshotOptions};
//! use smartvm::spec::{
//!     BootSource, Drive, Lifetime, MachineConfig, MicroVmSpec, SnapshotCreateParams,
//!     SnapshotLoadParams,
//! };
//! use smartvm::storage::Bundle;
//! use smartvm::vm::StartOptions;
//!
//! # async fn tour(smartvm: smartvm::SmartVm) -> smartvm::Result<()> {
//! let image = Bundle::load(Path::new("./image"))?;
//! let root = Drive::builder()
//!     .drive_id("root")
//!     .path_on_host(image.rootfs().path.clone())
//!     .is_root_device(true);
//! let mut boot = BootSource::builder()
//!     .kernel_image_path(image.kernel().path.clone())
//!     .boot_args(image.boot_args())
//!     .build();
//! boot.initrd_path = image.initrd().map(|initrd| initrd.path.clone());
//! let spec = MicroVmSpec::builder()
//!     .boot_source(boot)
//!     .machine_config(MachineConfig::builder().vcpu_count(1).mem_size_mib(256).build())
//!     .drives(vec![root.build()])
//!     .lifetime(Lifetime::Detached)
//!     .build();
//! let mut vm = smartvm.create(&spec).await?;
//! vm.start(&StartOptions::default()).await?;
//!
//! let place = Place::in_directory(Path::new("./base"))?;
//! let create = SnapshotCreateParams::builder()
//!     .snapshot_path(place.state())
//!     .mem_file_path(place.memory());
//! vm.snapshot(&create.build(), &SnapshotOptions::default()).await?;
//! let load = SnapshotLoadParams::builder()
//!     .snapshot_path(place.state())
//!     .mem_file_path(place.memory())
//!     .resume_vm(true);
//! let mut options = RestoreOptions::default();
//! options.id = Some("copy".parse()?);
//! let copy = smartvm.restore(&load.build(), &options).await?;
//! println!("VM {} is {}", copy.id(), copy.state()?.state);
//! # Ok(())
//! # }
//! ```
//!
//! What is wrong with a spec is told all at once, each problem with its field:
//!
//! ```
//! use smartvm::spec::{Format, MicroVmSpec};
//!
//! let text = r#"{ "bootSource": { "kernelImagePath": 7 }, "machineConfig": {} }"#;
//! let problems = smartvm::spec::load::<MicroVmSpec>(text, Format::Json).unwrap_err();
//! let told = problems.to_string();
//! assert!(told.contains("bootSource.kernelImagePath"), "{told}");
//! assert!(told.contains("machineConfig"), "{told}");
//! ```
//!
//! Any process hears of what happens, and takes over what an earlier one left:
//!
//! ```no_run
//! # use smartvm::SmartVm;
//! # async fn tour(smartvm: &SmartVm) -> smartvm::Result<()> {
//! let mut events = smartvm.events()?;
//! let found = smartvm.recover().await?;
//! println!("{} VMs live on", found.adopted.len());
//! loop {
//!     let event = events.next().await?;
//!     match event.end {
//!         Some(end) => println!("{} ended: {}", event.id, end.reason),
//!         None => println!("{} is {}", event.id, event.state),
//!     }
//! }
//! # }
//! ```
//!
//! An [`Error`] says what sort of failure it is, and the way out:
//!
//! ```
//! use smartvm::ErrorKind;
//! use smartvm::name::VmId;
//!
//! let error = smartvm::Error::from("no_underscores".parse::<VmId>().unwrap_err());
//! assert_eq!(error.kind(), ErrorKind::Invalid);
//! ```
//!
//! # Cargo features
//!
//! All are on unless `default-features = false` is set:
//!
//! | Feature | Without it there is no |
//! |---|---|
//! | `download` | fetching: Firecracker's releases, base images, images from registries |
//! | `network` | network of ours: addresses, TAP devices, NAT, firewall, tunnel. A spec that asks for it is refused; an interface with a TAP device of the user's own (`hostDevName`) needs none |
//! | `oci` | `storage::oci`: OCI and Docker images, of directories, of archives, and, with `download`, of registries |
//!
//! How a VM survives the death of whoever made it is told in [`keeper`], [`ledger`] and
//! [`teardown`]; `examples/` has whole programs.

pub mod agent;
mod descriptor;
pub mod durable;
pub mod error;
pub mod events;
pub mod firecracker;
pub mod host;
pub mod jail;
pub mod keeper;
pub mod ledger;
pub mod name;
#[cfg_attr(not(feature = "network"), path = "network_left_out.rs")]
pub mod network;
pub mod orchestrator;
pub mod plan;
pub mod process;
mod random;
pub mod rundir;
pub mod snapshot;
pub mod spec;
pub mod step;
pub mod storage;
pub mod teardown;
pub mod validate;
pub mod vm;
pub mod wiring;

pub use error::{Error, ErrorKind, Result};
pub use orchestrator::{Parts, SmartVm};
pub use vm::MicroVm;
