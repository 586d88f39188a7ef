//! What the guest tier's tests share.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The smartvm executable.
pub(crate) const SMARTVM: &str = env!("CARGO_BIN_EXE_smartvm");
/// What any command here may take: an emulated guest takes its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

fn given(name: &str) -> PathBuf {
    std::env::var_os(name)
        .unwrap_or_else(|| panic!("{name} is not set: run the tests by `cargo xtask test`"))
        .into()
}

/// The program that sends frames as they are, to be copied into a guest.
pub(crate) fn forge() -> PathBuf {
    given("SMARTVM_TEST_FORGE")
}

/// The program that is one end of a connection through vsock, to be copied into a guest.
pub(crate) fn peer() -> PathBuf {
    given("SMARTVM_TEST_PEER")
}

/// The image that the tests run.
pub(crate) fn image() -> PathBuf {
    given("SMARTVM_TEST_IMAGE")
}

fn manifest() -> Value {
    let manifest = std::fs::read(image().join("manifest.json")).unwrap();
    serde_json::from_slice(&manifest).unwrap()
}

/// A file of it: `kernel`, `initrd` or `rootfs`.
pub(crate) fn image_file(part: &str) -> PathBuf {
    image().join(manifest()[part]["path"].as_str().unwrap())
}

/// What a spec needs to boot it, with more words for its kernel.
pub(crate) fn boot_source(words: &str) -> Value {
    json!({
        "kernelImagePath": image_file("kernel"),
        "initrdPath": image_file("initrd"),
        "bootArgs": format!("{} {words}", manifest()["bootArgs"].as_str().unwrap()),
    })
}

/// Waits until something in a guest, or of one, holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} never came true");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A smartvm command. All tests share one data directory, so that the image is verified once,
/// and one runtime directory: nothing they do may disturb another's VM.
pub(crate) fn smartvm() -> assert_cmd::Command {
    let mut command = assert_cmd::Command::from_std(program());
    command.timeout(PATIENCE);
    command
}

/// The same, to be started and left running.
pub(crate) fn program() -> std::process::Command {
    let mut command = std::process::Command::new(SMARTVM);
    command
        .env("SMARTVM_DATA_DIR", shared("data"))
        .env("SMARTVM_RUNTIME_DIR", shared("run"))
        .env("SMARTVM_FIRECRACKER", given("SMARTVM_TEST_FIRECRACKER"))
        .env_remove("SMARTVM_CONFIG");
    command
}

/// What `ps` tells of a VM.
pub(crate) fn listed(mut smartvm: assert_cmd::Command, id: &str) -> Value {
    let listed = smartvm.args(["ps", "--json"]).assert().success();
    let rows: Value = serde_json::from_slice(&listed.get_output().stdout).unwrap();
    let rows = rows.as_array().unwrap();
    rows.iter().find(|row| row["id"] == id).unwrap().clone()
}

/// A directory that all tests share.
pub(crate) fn shared(name: &str) -> PathBuf {
    std::env::temp_dir().join("smartvm-guest-tier").join(name)
}

/// Where a guest's Firecracker runs. What the guest shows is the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ground {
    Free,
    Jailed,
}

impl Ground {
    /// The jail's mode.
    pub(crate) fn mode(self) -> &'static str {
        match self {
            Self::Free => "off",
            Self::Jailed => "required",
        }
    }

    /// An id that no guest on other ground has.
    pub(crate) fn id(self, name: &str) -> String {
        match self {
            Self::Free => name.to_owned(),
            Self::Jailed => format!("{name}-jailed"),
        }
    }

    /// Looks whether the guest is where it should be.
    pub(crate) fn is_that_of(self, vm: &Vm) {
        let row = listed(smartvm(), &vm.id);
        assert_eq!(row["jailed"], self == Self::Jailed, "{row}");
    }

    /// Boots a guest.
    pub(crate) fn boot(self, spec: &Value) -> Vm {
        let vm = Vm::boot(spec);
        self.is_that_of(&vm);
        vm
    }
}

/// A detached VM of the test's own, removed at its end.
pub(crate) struct Vm {
    pub(crate) id: String,
}

impl Vm {
    /// One of the image that all tests run.
    pub(crate) fn start(id: &str) -> Self {
        Self::of(id, &["--image".as_ref(), image().as_os_str()])
    }

    pub(crate) fn of(id: &str, words: &[impl AsRef<std::ffi::OsStr>]) -> Self {
        let started = smartvm()
            .args(["run", "--detach", "--id", id])
            .args(words)
            .assert();
        Self::taken(started, id)
    }

    /// The VM that this command printed the id of.
    pub(crate) fn taken(started: assert_cmd::assert::Assert, id: &str) -> Self {
        // First of all: whatever is wrong with it is removed then.
        let vm = Self { id: id.to_owned() };
        started.success().stdout(format!("{id}\n"));
        vm
    }

    /// One that was started already.
    pub(crate) fn named(id: &str) -> Self {
        Self { id: id.to_owned() }
    }

    /// The VM of this spec, which has an id.
    pub(crate) fn boot(spec: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("spec.json");
        std::fs::write(&file, spec.to_string()).unwrap();
        // Where the start is only half done, there is something to remove as well.
        let vm = Self::named(spec["id"].as_str().unwrap());
        let mut run = smartvm();
        run.args(["run", "--detach", "-f"]).arg(&file);
        run.assert().success();
        vm
    }

    /// What a script in it prints; it must succeed.
    pub(crate) fn said(&self, script: &str) -> String {
        let ran = self.exec(&[], &["sh", "-c", script]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&ran.stdout), text(&ran.stderr));
        assert!(
            ran.status.success(),
            "{script}: {}: {out} {err}",
            ran.status
        );
        out.trim_end().to_owned()
    }

    /// A command in it.
    pub(crate) fn exec(&self, flags: &[&str], argv: &[&str]) -> assert_cmd::Command {
        let mut command = smartvm();
        command
            .arg("exec")
            .args(flags)
            .args([&self.id, "--"])
            .args(argv);
        command
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let id = &self.id[..];
            for looked in [
                &["inspect", id][..],
                &["logs", id],
                &["logs", "--vmm", id],
                &["exec", id, "--", "sh", "-c", "dmesg | tail -n 40"],
            ] {
                let seen = smartvm().args(looked).output().unwrap();
                let [out, err] = [seen.stdout, seen.stderr]
                    .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                eprintln!("smartvm {}: {out}{err}", looked.join(" "));
            }
        }
        // It may have been removed by its test.
        let _gone = smartvm().args(["rm", "--force", &self.id]).output();
    }
}
