//! The library without the cargo feature `network`: what asks for the network is refused before
//! anything is made, what needs none goes on.
//!
//! `cargo test -p smartvm --no-default-features --test without_network`

#![cfg(not(feature = "network"))]
// A helper of a test may fail as loudly as the test itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use smartvm::ledger::Ledger;
use smartvm::spec::{self, Format, MicroVmSpec, SmartVmOptions};
use smartvm::step::{Outcome, Step};
use smartvm::validate::{ValidateContext, validate};
use smartvm::{ErrorKind, Parts, Result, SmartVm};
use tempfile::TempDir;

const NO_NETWORK: &str = "this build of smartvm has no network";
const WITH_NETWORK: &str = "build with the cargo feature `network`";

/// A directory for all that a VM needs, and Firecracker as far as it says its version.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let firecracker = dir.path().join("firecracker");
        std::fs::write(&firecracker, "#!/bin/sh\necho Firecracker v1.12.1\n").unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&firecracker, executable).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn open(&self, more: Value) -> Result<SmartVm> {
        let mut options = json!({
            "dataDir": self.path("data"),
            "runtimeDir": self.path("run"),
            "firecrackerBinaryPath": self.path("firecracker"),
        });
        extend(&mut options, more);
        let text = options.to_string();
        let options: SmartVmOptions = spec::load(&text, Format::Json).unwrap();
        let mut parts = Parts::default();
        parts.keeper = Some("/bin/true".into());
        SmartVm::open(options, parts)
    }

    /// What is in the directory of the VMs.
    fn made(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("run")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }
}

fn extend(object: &mut Value, more: Value) {
    let Value::Object(more) = more else {
        panic!("{more}");
    };
    object.as_object_mut().unwrap().extend(more);
}

fn asking_for(more: Value) -> MicroVmSpec {
    let mut spec = json!({
        "id": "web",
        "bootSource": { "kernelImagePath": "/k" },
        "machineConfig": { "vcpuCount": 1, "memSizeMib": 128 },
    });
    extend(&mut spec, more);
    spec::load(&spec.to_string(), Format::Json).unwrap()
}

#[tokio::test]
async fn a_spec_that_asks_for_the_network_is_refused_before_anything_is_made() {
    let bench = Bench::new();
    let smartvm = bench.open(json!({})).unwrap();
    let before = bench.made();
    let spec = asking_for(json!({ "networkInterfaces": [{ "ifaceId": "net0" }] }));
    let refused = [
        smartvm.plan(&spec).unwrap_err(),
        smartvm.create(&spec).await.unwrap_err(),
    ];
    for refused in refused {
        assert_eq!(refused.kind(), ErrorKind::Host);
        let expected = format!("interface net0 names no TAP device, and {NO_NETWORK}");
        assert_eq!(refused.to_string(), expected);
        let way_out = refused.way_out().unwrap();
        assert!(way_out.starts_with(WITH_NETWORK), "{way_out}");
    }
    assert_eq!(bench.made(), before);
}

#[test]
fn a_check_names_every_field_that_asks_for_the_network() {
    let bench = Bench::new();
    let spec = asking_for(json!({
        "networkInterfaces": [{ "ifaceId": "own", "hostDevName": "lo" }, { "ifaceId": "leased" }],
        "firewall": { "egress": { "defaultAction": "deny" } },
    }));
    let valid = validate(&spec, &ValidateContext::default()).unwrap();
    let refused = bench.open(json!({})).unwrap().check(&valid).unwrap_err();
    let told = refused.to_string();
    for field in ["networkInterfaces[1].hostDevName", "firewall"] {
        assert!(told.contains(&format!("{field}: {NO_NETWORK}")), "{told}");
    }
    assert_eq!(told.matches(NO_NETWORK).count(), 2, "{told}");
}

#[test]
fn an_interface_with_a_tap_device_of_the_users_needs_no_network() {
    let bench = Bench::new();
    let smartvm = bench.open(json!({})).unwrap();
    let spec = asking_for(json!({
        "networkInterfaces": [{ "ifaceId": "own", "hostDevName": "tap7" }],
    }));
    let plan = smartvm.plan(&spec).unwrap().to_string();
    assert!(plan.contains("tap7"), "{plan}");
}

#[test]
fn options_on_which_somebody_relies_are_refused() {
    let bench = Bench::new();
    for (option, value) in [
        ("wireguard", json!({ "existingInterface": "wg0" })),
        ("firewall", json!({ "egress": { "defaultAction": "deny" } })),
    ] {
        let refused = bench.open(json!({ option: value })).unwrap_err();
        let expected = format!("the option `{option}` is set, and {NO_NETWORK}");
        assert_eq!(refused.to_string(), expected);
    }
    // A name of a bridge that nobody asks for does no harm.
    bench.open(json!({ "bridgeName": "br7" })).unwrap();
}

#[test]
fn what_another_build_did_for_the_network_stays_in_the_ledger_for_who_can_undo_it() {
    let bench = Bench::new();
    let step: Step = serde_json::from_value(json!({
        "do": "network", "network": "join", "dir": "/run/vms/.network", "vm": "web",
    }))
    .unwrap();
    let path = bench.path("ledger.jsonl");
    let path = Path::new(&path);
    let mut ledger = Ledger::create(path).unwrap();
    ledger.run(&step, |_| Ok(Outcome::default())).unwrap();
    drop(ledger);
    for _ in 0..2 {
        let mut ledger = Ledger::open(path).unwrap().unwrap();
        let failed = ledger.undo_all(|entry| entry.step.undo(entry.outcome.as_ref()));
        let [failed] = failed.as_slice() else {
            panic!("{failed:?}");
        };
        assert!(failed.to_string().contains(NO_NETWORK), "{failed}");
        let way_out = failed.way_out().unwrap();
        assert!(way_out.starts_with("`smartvm gc`"), "{way_out}");
    }
}
