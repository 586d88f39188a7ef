//! All that looks after a guest is killed, while guests send; then `gc` does its work.

use std::process::{Child, Stdio};

use rustix::process::Signal;
use smartvm::process::ProcessId;
use smartvm::rundir::{RunDir, State, VmState};
use smartvm::spec::WireGuardConfig;
use smartvm_emulate::tiny_guest::{self, Ending};

use crate::lab::network_keeper;
use crate::support::firecracker;
use crate::tunnel::{Fire, Way, until};
use crate::tunnel_ways::{config_file, smartvm};

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The command that runs the VM.
    Owner,
    VmKeeper,
    NetworkKeeper,
}

/// What is written down of the VM, once it is.
fn state(way: &Way) -> Option<VmState> {
    RunDir::at(&way.file("run/fired")).ok()?.state().ok()
}

fn is_alive(process: &ProcessId) -> bool {
    process.is_alive().unwrap()
}

/// One that was stopped is ended by the kernel when its parent dies: it may be gone.
fn signal(process: &ProcessId, signal: Signal) {
    if let Some(open) = process.open().unwrap() {
        open.signal(signal).unwrap();
    }
}

/// The VMM, ended also when the test fails: nothing else would.
struct Vmm(ProcessId);

impl Drop for Vmm {
    fn drop(&mut self) {
        signal(&self.0, Signal::KILL);
    }
}

/// `smartvm run` of a VM on the network.
fn run_a_vm(way: &Way, config: &std::path::Path) -> Child {
    let tiny = way.file("tiny");
    std::fs::write(&tiny, tiny_guest::elf(Ending::Halt)).unwrap();
    let spec = serde_json::json!({
        "id": "fired",
        "bootSource": { "kernelImagePath": tiny },
        "machineConfig": { "vcpuCount": 1, "memSizeMib": 128 },
        "networkInterfaces": [{ "ifaceId": "net0" }],
    });
    let file = way.file("spec.json");
    std::fs::write(&file, spec.to_string()).unwrap();
    let words = ["run", "--assume-kvm", "-f", file.to_str().unwrap()];
    smartvm(config, &words)
        .env("SMARTVM_FIRECRACKER", firecracker())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn nothing_leaves_while_all_that_look_after_it_are_killed_and_gc_leaves_the_host_as_before() {
    use Victim::{NetworkKeeper, Owner, VmKeeper};
    let way = Way::new();
    let options = way.options(WireGuardConfig::Managed(way.managed(way.text(""))));
    let config = config_file(&way, &options);
    let before = way.picture();
    for order in [
        [VmKeeper, Owner, NetworkKeeper],
        [NetworkKeeper, VmKeeper, Owner],
        [Owner, NetworkKeeper, VmKeeper],
    ] {
        let when = |what: &str| format!("{what}, killed in the order {order:?}");
        let mut owner = run_a_vm(&way, &config);
        until("it runs", || {
            assert!(owner.try_wait().unwrap().is_none(), "it was begun");
            state(&way).is_some_and(|known| known.state == State::Running)
        });
        let known = state(&way).unwrap();
        let vmm = Vmm(known.vmm.unwrap());
        let victims = order.map(|victim| match victim {
            Owner => ProcessId::of(owner.id()).unwrap().unwrap(),
            VmKeeper => known.keeper.clone().unwrap(),
            NetworkKeeper => network_keeper(&way.file("run")),
        });
        way.connect_guest();
        let fire = Fire::begin(&way);
        fire.arrives(&when("before"));
        // Whoever is left for a moment would do the work of the dead.
        for process in &victims {
            signal(process, Signal::STOP);
        }
        for (victim, process) in order.iter().zip(&victims) {
            signal(process, Signal::KILL);
            fire.stays_inside(&when(&format!("{victim:?} is dead")));
        }
        owner.wait().unwrap();
        assert!(
            is_alive(&vmm.0),
            "{}",
            when("the VMM, with nobody to end it")
        );
        fire.arrives(&when("with nobody to look after it"));
        let gc = smartvm(&config, &["gc"]).output().unwrap();
        assert!(gc.status.success(), "{gc:?}");
        fire.stays_inside(&when("after gc"));
        assert!(!is_alive(&vmm.0));
        drop(fire);
        way.disconnect_guest();
        until(&when("all is as before"), || way.picture() == before);
    }
}
