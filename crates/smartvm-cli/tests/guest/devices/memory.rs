//! The balloon.

use super::{stats, update};
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
        let balloon = &stats(vm)["balloon"];
        balloon["actualMib"] == 64 && balloon["totalMemory"].is_u64()
    });
    update(vm, &["--balloon-statistics", "2"]);
    update(vm, &["--balloon", "16"]);
    until("some memory's return", || available() + (34 << 10) > before);
    update(vm, &["--balloon", "0"]);
    until("the memory's return", || available() + (14 << 10) > before);
    smartvm()
        .args(["update", &vm.id, "--balloon", "192"])
        .assert()
        .code(2);
}

/// A program takes more than is left beside the balloon, which gives way to it.
pub(super) fn left_to_a_program_in_need(vm: &Vm) {
    update(vm, &["--balloon", "64"]);
    until("the balloon", || stats(vm)["balloon"]["actualMib"] == 64);
    let more_than_is_left = figure(vm, "MemAvailable") + (20 << 10);
    vm.said(&format!(
        "dd if=/dev/zero of=/dev/null bs={more_than_is_left}k count=1 2>&1"
    ));
    let left = stats(vm)["balloon"]["actualMib"].as_u64().unwrap();
    assert!(left < 64, "{left} MiB are in the balloon");
}
