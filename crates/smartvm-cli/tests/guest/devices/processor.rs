//! What a guest sees of the processor, with a CPU template and without.

use serde_json::json;

use crate::support::{Ground, Vm, boot_source, image_file, smartvm};
use crate::template::{REFUSAL, Template};

fn shows(vm: &Vm, flag: &str) -> bool {
    let flags = vm.said("grep -m1 ^flags /proc/cpuinfo");
    flags.split_whitespace().any(|one| one == flag)
}

/// In a guest without one.
pub(super) fn hides_nothing(vm: &Vm) {
    let template = Template::of_this_host();
    assert!(!template.fits || shows(vm, template.hides));
}

#[test]
fn a_guest_doesnt_see_what_its_cpu_template_hides() {
    hides_its_flag(Ground::Free);
}

#[test]
fn a_jailed_guest_doesnt_see_what_its_cpu_template_hides() {
    hides_its_flag(Ground::Jailed);
}

fn hides_its_flag(ground: Ground) {
    let template = Template::of_this_host();
    let spec = json!({
        "id": ground.id("template"),
        "jail": { "mode": ground.mode() },
        "bootSource": boot_source("smartvm.init=agent"),
        "machineConfig": { "vcpuCount": 1, "memSizeMib": 128, "cpuTemplate": template.name },
        "drives": [
            { "driveId": "root", "pathOnHost": image_file("rootfs"), "isRootDevice": true },
        ],
    });
    if template.fits {
        assert!(!shows(&ground.boot(&spec), template.hides));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("spec.json");
    std::fs::write(&file, spec.to_string()).unwrap();
    let refused = smartvm().args(["run", "--detach", "-f"]).arg(file).assert();
    let refused = refused.code(1);
    let told = String::from_utf8_lossy(&refused.get_output().stderr);
    assert!(told.contains(REFUSAL), "{told}");
}
