//! The private corner of the host in which is measured: on /dev/shm, where a user's runtime
//! directory is by default.

use std::path::{Path, PathBuf};

use smartvm::spec::{BootSource, MachineConfig, MicroVmSpec, SmartVmOptions};
use smartvm::{MicroVm, Parts, SmartVm};
use smartvm_emulate::tiny_guest::{self, Ending};

/// The smartvm executable, which is also the keeper.
pub(crate) const SMARTVM: &str = env!("CARGO_BIN_EXE_smartvm");

pub(crate) struct Corner {
    root: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    firecracker: PathBuf,
}

impl Corner {
    pub(crate) fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let mut builder = tempfile::Builder::new();
        builder.prefix("smartvm-bench-");
        let root = if shm.is_dir() {
            builder.tempdir_in(shm)
        } else {
            builder.tempdir()
        };
        let root = root.expect("a directory for the benchmark");
        let firecracker = std::env::var_os("SMARTVM_TEST_FIRECRACKER")
            .expect("SMARTVM_TEST_FIRECRACKER names Firecracker; run this by `cargo xtask bench`");
        std::fs::write(root.path().join("tiny"), tiny_guest::elf(Ending::Halt)).unwrap();
        // What the command line uses, too.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        Self {
            root,
            runtime,
            firecracker: firecracker.into(),
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn firecracker(&self) -> &Path {
        &self.firecracker
    }

    /// Waits for what the library does.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// The library, opened and at rest.
    pub(crate) fn smartvm(&self) -> SmartVm {
        let options = SmartVmOptions::builder()
            .data_dir(self.file("data"))
            .runtime_dir(self.file("run"))
            .firecracker_binary_path(&*self.firecracker)
            .build();
        let mut parts = Parts::default();
        parts.keeper = Some(SMARTVM.into());
        parts.assume_kvm = true;
        SmartVm::open(options, parts).unwrap()
    }

    /// The smallest spec: the tiny guest in 128 MiB.
    pub(crate) fn small(&self) -> MicroVmSpec {
        let kernel = BootSource::builder()
            .kernel_image_path(self.file("tiny"))
            .build();
        let machine = MachineConfig::builder().vcpu_count(1).mem_size_mib(128);
        MicroVmSpec::builder()
            .boot_source(kernel)
            .machine_config(machine.build())
            .build()
    }

    /// A VM of that spec which runs.
    pub(crate) fn running(&self, smartvm: &SmartVm) -> MicroVm {
        self.wait(async {
            let mut vm = smartvm.create(&self.small()).await.unwrap();
            vm.start(&smartvm::vm::StartOptions::default())
                .await
                .unwrap();
            vm
        })
    }
}
