//! What smartvm does for one more VM: its steps, as a start takes them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;

use smartvm::name::VmId;
use smartvm::network::{Network, NetworkStep};
use smartvm::spec::{MicroVmSpec, NetworkInterface, SmartVmOptions};
use smartvm::step::{Hands, Outcome, Step};

use super::{Go, Way};
use crate::corner::{Corner, SMARTVM};

pub(super) struct Ours {
    pub(super) network: Network,
    dir: PathBuf,
    spec: MicroVmSpec,
    up: Mutex<HashMap<usize, Vec<(Step, Outcome)>>>,
}

impl Ours {
    pub(super) fn new(corner: &Corner) -> Self {
        let mut spec = corner.small();
        spec.network_interfaces = vec![NetworkInterface::builder().iface_id("net0").build()];
        let options = SmartVmOptions::builder()
            .data_dir(corner.file("data"))
            .build();
        let network = Network::new(&corner.file("run"), &options).unwrap();
        Self {
            dir: network.wiring(Vec::new()).unwrap().dir,
            network: network.kept_by(SMARTVM.as_ref()),
            spec,
            up: Mutex::default(),
        }
    }

    /// How the names of guests' devices begin.
    pub(super) fn names(&self) -> String {
        let mark = self.network.wiring(Vec::new()).unwrap().mark;
        format!("sv{}-", mark.split(' ').next_back().unwrap())
    }

    fn apply(&self, step: &Step) -> Outcome {
        let mut hands = Hands {
            keeper: None,
            network: Some(&self.network),
            cancelled: &|| false,
            before: &[],
        };
        step.apply(&mut hands).unwrap()
    }
}

impl Way for Ours {
    const GO: Go = Go::AtOnce;

    fn up(&self, number: usize) {
        let vm: VmId = format!("vm{number}").parse().unwrap();
        let lease = Step::Network(NetworkStep::LeaseAddress {
            dir: self.dir.clone(),
            vm: vm.clone(),
            iface_id: "net0".into(),
            mac: None,
            firewall: None,
            before: None,
        });
        let outcome = self.apply(&lease);
        let leased = outcome.lease.clone().unwrap();
        let wiring = self.network.wiring(vec![leased]).unwrap();
        let steps = wiring.connect(&vm, &self.spec, &[]).unwrap().steps;
        let mut done = vec![(lease, outcome)];
        for step in steps {
            let step = Step::Network(step);
            let outcome = self.apply(&step);
            done.push((step, outcome));
        }
        self.up.lock().unwrap().insert(number, done);
    }

    fn down(&self, number: usize) {
        let steps = self.up.lock().unwrap().remove(&number).unwrap();
        for (step, outcome) in steps.iter().rev() {
            step.undo(Some(outcome)).unwrap();
        }
    }
}
