//! What smartvm does for one more VM: its steps, as a start takes them.

use std::cell::RefCell;
use std::collections::HashMap;

use smartvm::name::VmId;
use smartvm::network::Network;
use smartvm::spec::{MicroVmSpec, NetworkInterface, SmartVmOptions};
use smartvm::step::{Hands, Outcome, Step};

use super::Way;
use crate::corner::{Corner, SMARTVM};

pub(super) struct Ours {
    pub(super) network: Network,
    spec: MicroVmSpec,
    up: RefCell<HashMap<usize, Vec<(Step, Outcome)>>>,
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
            network: network.kept_by(SMARTVM.as_ref()),
            spec,
            up: RefCell::default(),
        }
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
    fn up(&self, number: usize) {
        let vm: VmId = format!("vm{number}").parse().unwrap();
        let preview = self.network.preview(&vm, &["net0".into()]).unwrap();
        let planned = preview.connect(&vm, &self.spec, &[]).unwrap().leases;
        let lease = Step::Network(planned[0].clone());
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
        self.up.borrow_mut().insert(number, done);
    }

    fn down(&self, number: usize) {
        let steps = self.up.borrow_mut().remove(&number).unwrap();
        for (step, outcome) in steps.iter().rev() {
            step.undo(Some(outcome)).unwrap();
        }
    }
}
