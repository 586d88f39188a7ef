//! The balloon.

use serde_json::Value;

use super::update;
use crate::support::{Vm, smartvm, until};

/// A line of the guest's /proc/meminfo, in KiB.
pub(super) fn figure(vm: &Vm, name: &str) -> u64 {
    let script = format!("sed -n 's/^{name}: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo");
    vm.said(&script).parse().unwrap()
}

pub(super) fn taken_away_and_given_back(vm: &Vm) {
    let available = || figure(vm, "MemAvailable");
    let before = available();
    update(vm, &["--balloon", "64"]);
    until("the balloon's effect", || available() + (50 << 10) < before);
    until("its statistics", || {
        let stats = smartvm()
            .args(["--json", "stats", &vm.id])
            .output()
            .unwrap();
        let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
        stats["balloon"]["actualMib"] == 64 && stats["balloon"]["totalMemory"].is_u64()
    });
    update(vm, &["--balloon-statistics", "2"]);
    update(vm, &["--balloon", "16"]);
    until("some memory's return", || available() + (34 << 10) > before);
    // The guest can't spare that much: the balloon takes what there is, nobody dies.
    update(vm, &["--balloon", "0"]);
    until("the memory's return", || available() + (14 << 10) > before);
    smartvm()
        .args(["update", &vm.id, "--balloon", "192"])
        .assert()
        .code(2);
}
