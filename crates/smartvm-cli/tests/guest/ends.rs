//! How guests end.

use serde_json::{Value, json};

use crate::support::{Vm, image, smartvm};

fn record(id: &str) -> Value {
    let inspected = smartvm().args(["inspect", id]).assert().success();
    let all: Value = serde_json::from_slice(&inspected.get_output().stdout).unwrap();
    all[0].clone()
}

#[test]
fn stop_shuts_the_guest_down_by_its_agent() {
    let vm = Vm::start("stopped");
    vm.exec(&[], &["true"]).assert().success();
    smartvm()
        .args(["stop", "--timeout", "60", &vm.id])
        .assert()
        .success();
    let record = record(&vm.id);
    assert_eq!(record["reason"], "stopped", "{record:#}");
    assert_eq!(record["vmm"], json!({ "exited": 0 }), "{record:#}");
}

#[test]
fn a_guest_that_panics_is_told_as_that_with_its_last_lines() {
    let manifest = std::fs::read_to_string(image().join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    // Its init is none: the kernel panics when that ends.
    let spec = json!({
        "id": "panics",
        "bootSource": {
            "kernelImagePath": image().join(manifest["kernel"]["path"].as_str().unwrap()),
            "bootArgs": "console=ttyS0 reboot=k panic=1 pci=off quiet",
        },
        "machineConfig": { "vcpuCount": 1, "memSizeMib": 128 },
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spec.json");
    std::fs::write(&path, spec.to_string()).unwrap();
    smartvm()
        .args(["run", "-f"])
        .arg(&path)
        .args(["--", "true"])
        .assert()
        .code(125);
    let record = record("panics");
    assert_eq!(record["reason"], "guest-panic", "{record:#}");
    assert_eq!(record["state"], "failed");
    assert!(
        record["console"].as_str().unwrap().contains("Kernel panic"),
        "{record:#}"
    );
    smartvm().args(["rm", "panics"]).assert().success();
}
