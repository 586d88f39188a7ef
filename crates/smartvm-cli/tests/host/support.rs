//! What the host tier's tests share: a private corner of the host, and its picture as outside
//! tools see it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use smartvm::spec::{
    BootSource, Drive, Jail, JailMode, Logger, MachineConfig, Metrics, MicroVmSpec, SmartVmOptions,
    Vsock,
};
use smartvm::{Parts, SmartVm};
use smartvm_emulate::tiny_guest::{self, Ending};

use crate::lab::end_all_of;

/// The smartvm executable.
pub(crate) const SMARTVM: &str = env!("CARGO_BIN_EXE_smartvm");

/// The Firecracker that the tests run.
pub(crate) fn firecracker() -> PathBuf {
    std::env::var_os("SMARTVM_TEST_FIRECRACKER")
        .expect("SMARTVM_TEST_FIRECRACKER names Firecracker; run the tests by `cargo xtask test`")
        .into()
}

/// Copies a program that is to be run at once. Another process does: what this one has open for
/// writing, another test's child may have open still when the copy is run, which is refused then.
pub(crate) fn copy_program(from: impl AsRef<Path>, to: &Path) {
    let copied = Command::new("cp").arg(from.as_ref()).arg(to).status();
    assert!(copied.unwrap().success());
}

/// A small file system of its own, held in memory, in a directory of a corner's; unmounted when
/// dropped.
pub(crate) struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Of this size, as `mount` has it.
    pub(crate) fn mount(at: PathBuf, size: &str) -> Self {
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(&at)
            .status();
        assert!(mounted.unwrap().success());
        Self { at }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.at).status();
        // Another failure is told already.
        assert!(std::thread::panicking() || unmounted.unwrap().success());
    }
}

/// A private corner of the host: everything a test makes is in here.
pub(crate) struct Corner {
    root: PathBuf,
    /// Removes it at the end, in the process that made it.
    made: Option<tempfile::TempDir>,
}

impl Corner {
    pub(crate) fn new() -> Self {
        Self::in_dir(&std::env::temp_dir())
    }

    /// A corner on a tmpfs, where runtime directories are as a rule.
    pub(crate) fn in_memory() -> Self {
        Self::in_dir(Path::new("/dev/shm"))
    }

    fn in_dir(dir: &Path) -> Self {
        let mut builder = tempfile::Builder::new();
        let made = builder.prefix("smartvm-host-").tempdir_in(dir).unwrap();
        let corner = Self {
            root: made.path().to_owned(),
            made: Some(made),
        };
        std::fs::write(corner.file("tiny"), tiny_guest::elf(Ending::Halt)).unwrap();
        std::fs::write(corner.file("tiny-reset"), tiny_guest::elf(Ending::Reset)).unwrap();
        for dir in ["staging", "sockets", "logs"] {
            std::fs::create_dir(corner.file(dir)).unwrap();
        }
        for drive in ["root.img", "data.img"] {
            std::fs::write(corner.file(drive), vec![7; 64 << 10]).unwrap();
        }
        corner
    }

    /// The corner that another process made.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root, made: None }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    pub(crate) fn options(&self) -> SmartVmOptions {
        SmartVmOptions::builder()
            .data_dir(self.file("data"))
            .runtime_dir(self.file("run"))
            .firecracker_binary_path(firecracker())
            .build()
    }

    pub(crate) fn smartvm(&self) -> SmartVm {
        self.smartvm_with(self.options())
    }

    pub(crate) fn smartvm_with(&self, options: SmartVmOptions) -> SmartVm {
        let mut parts = Parts::default();
        parts.keeper = Some(SMARTVM.into());
        parts.assume_kvm = true;
        SmartVm::open(options, parts).unwrap()
    }

    /// The smallest spec: the tiny guest, which halts for ever.
    pub(crate) fn small(&self) -> MicroVmSpec {
        MicroVmSpec::builder()
            .boot_source(
                BootSource::builder()
                    .kernel_image_path(self.file("tiny"))
                    .build(),
            )
            .machine_config(
                MachineConfig::builder()
                    .vcpu_count(1)
                    .mem_size_mib(128)
                    .build(),
            )
            .build()
    }

    /// The spec with the largest plan that there is: every kind of step is in it.
    pub(crate) fn large(&self) -> MicroVmSpec {
        let drive = |id: &str, image: &str| {
            Drive::builder()
                .drive_id(id)
                .path_on_host(self.file(image))
                .is_root_device(false)
        };
        let boot_source = BootSource::builder()
            .kernel_image_path(self.file("tiny"))
            .initrd_path(self.file("data.img"))
            .build();
        MicroVmSpec::builder()
            .id("large")
            .boot_source(boot_source)
            .machine_config(
                MachineConfig::builder()
                    .vcpu_count(1)
                    .mem_size_mib(128)
                    .build(),
            )
            .drives(vec![
                drive("copied", "root.img").build(),
                drive("linked", "data.img").is_read_only(true).build(),
            ])
            .staging_dir(self.file("staging"))
            .vsock(
                Vsock::builder()
                    .guest_cid(7)
                    .uds_path(self.file("sockets/v.sock"))
                    .build(),
            )
            .logger(
                Logger::builder()
                    .log_path(self.file("logs/vmm.log"))
                    .build(),
            )
            .metrics(
                Metrics::builder()
                    .metrics_path(self.file("logs/metrics"))
                    .build(),
            )
            .build()
    }

    /// The largest plan, in a jail.
    pub(crate) fn large_jailed(&self) -> MicroVmSpec {
        let mut spec = self.large();
        spec.jail = Some(
            Jail::builder()
                .mode(JailMode::Required)
                .chroot_base(self.file("jail"))
                .new_pid_ns(true)
                .build(),
        );
        spec
    }

    /// A smartvm command in this corner.
    pub(crate) fn command(&self) -> assert_cmd::Command {
        self.settle(assert_cmd::Command::new(SMARTVM))
    }

    /// A smartvm command in this corner and in namespaces of its own, started there by a
    /// script: `$0` is the corner, `"$@"` the command.
    pub(crate) fn unshared(&self, namespaces: &[&str], script: &str) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::new("unshare");
        command.args(namespaces).args(["sh", "-ec", script]);
        command.arg(&self.root).arg(SMARTVM);
        self.settle(command)
    }

    fn settle(&self, mut command: assert_cmd::Command) -> assert_cmd::Command {
        command
            .env("SMARTVM_DATA_DIR", self.file("data"))
            .env("SMARTVM_RUNTIME_DIR", self.file("run"))
            .env("SMARTVM_FIRECRACKER", firecracker())
            .env_remove("SMARTVM_CONFIG")
            .timeout(Duration::from_secs(60));
        command
    }

    /// A spec as a file for the command line.
    pub(crate) fn spec_file(&self, spec: &MicroVmSpec) -> PathBuf {
        let path = self.file("spec.json");
        std::fs::write(&path, serde_json::to_vec(spec).unwrap()).unwrap();
        path
    }

    /// This corner as outside tools see it: files, processes, sockets. What stays of a VM on
    /// purpose (its record, the user's own log files) is left out.
    pub(crate) fn picture(&self) -> Vec<String> {
        let root = self.path().to_str().unwrap();
        let lines = |program: &str, args: &[&str]| {
            let out = Command::new(program).args(args).output().unwrap();
            assert!(
                out.status.success() || program == "find",
                "{program}: {out:?}"
            );
            String::from_utf8(out.stdout).unwrap()
        };
        let on_purpose = |line: &str| {
            let inside = line.strip_prefix(root).unwrap_or(line);
            let base = inside.strip_prefix("/data").unwrap_or(inside);
            // The bases of jails stay, empty, as the data directory itself does.
            let bases = [
                "/jail",
                "/jail/firecracker",
                "/jail/.ids",
                "/jail/.ids/lock",
            ];
            ["/run", "/run/.ended", "/data"].contains(&inside)
                || bases.contains(&base)
                || inside.starts_with("/run/.ended/")
                || inside.starts_with("/logs/")
        };
        let files = lines("find", &[root]);
        let processes = lines("ps", &["-eo", "args"]);
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        let mut picture: Vec<String> = files
            .lines()
            .filter(|line| !on_purpose(line))
            .map(Into::into)
            .collect();
        let of_ours = |line: &&str| line.contains(root) && !line.starts_with("find ");
        picture.extend(
            processes
                .lines()
                .filter(of_ours)
                .map(|line| format!("process {line}")),
        );
        picture.extend(firecrackers_in(root));
        picture.extend(
            sockets
                .lines()
                .filter(of_ours)
                .map(|line| format!("socket {line}")),
        );
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        picture.extend(
            mounts
                .lines()
                .filter(of_ours)
                .map(|line| format!("mount {line}")),
        );
        if Path::new("/sys/fs/cgroup/smartvm").exists() {
            picture.push("cgroup of smartvm's".into());
        }
        picture.sort();
        picture
    }

    /// Waits until the corner looks as before; fails with the difference if it never does.
    pub(crate) fn becomes(&self, before: &[String], when: &str) {
        becomes(|| self.picture(), before, when);
    }
}

impl Drop for Corner {
    fn drop(&mut self) {
        if self.made.is_some() {
            end_all_of(&self.root);
        }
    }
}

/// What a command with `--json` that can't succeed tells at its end, with this status.
pub(crate) fn refusal(command: &mut assert_cmd::Command, status: i32) -> serde_json::Value {
    let refused = command.assert().code(status).stdout("");
    let told = String::from_utf8_lossy(&refused.get_output().stderr);
    let last: serde_json::Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["cleanup"], serde_json::json!([]), "{last}");
    last["error"].clone()
}

/// Waits until a picture is as before; fails with the difference if it never is.
pub(crate) fn becomes(picture: impl Fn() -> Vec<String>, before: &[String], when: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let now = picture();
        if now == before {
            return;
        }
        let left: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
        assert!(Instant::now() < deadline, "{when}: this is left: {left:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Firecrackers that work in a run dir below `root`: their command line doesn't name it.
fn firecrackers_in(root: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let cwds = processes.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok());
    cwds.filter(|cwd| cwd.starts_with(root))
        .map(|cwd| format!("works in {}", cwd.display()))
        .collect()
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: never");
        std::thread::sleep(Duration::from_millis(5));
    }
}
