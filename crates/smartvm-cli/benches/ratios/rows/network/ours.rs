//! What smartvm does for one more VM: its steps, as a start takes them.

use std::collections::HashMap;
use std::fs::File;
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
    up: Mutex<HashMap<usize, Up>>,
}

/// What is up of one VM.
#[derive(Default)]
struct Up {
    steps: Vec<(Step, Outcome)>,
    /// What a start closes while Firecracker comes up.
    open: Vec<File>,
}

impl Up {
    fn apply(&mut self, step: Step, network: &Network) -> Outcome {
        let mut hands = Hands {
            keeper: None,
            network: Some(network),
            cancelled: &|| false,
            before: &[],
            open: &mut self.open,
        };
        let outcome = step.apply(&mut hands).unwrap();
        self.steps.push((step, outcome.clone()));
        outcome
    }
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
        let mut up = Up::default();
        let leased = up.apply(lease, &self.network).lease.unwrap();
        let wiring = self.network.wiring(vec![leased]).unwrap();
        for step in wiring.connect(&vm, &self.spec, &[]).unwrap().steps {
            up.apply(Step::Network(step), &self.network);
        }
        self.up.lock().unwrap().insert(number, up);
    }

    fn down(&self, number: usize) {
        let Up { steps, open } = self.up.lock().unwrap().remove(&number).unwrap();
        drop(open);
        for (step, outcome) in steps.iter().rev() {
            step.undo(Some(outcome)).unwrap();
        }
    }
}
