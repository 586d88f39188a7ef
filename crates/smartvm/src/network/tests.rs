//! What the options and the spec say reaches the steps and the firewall.

use std::path::Path;

use serde_json::json;

use super::firewall::Ruleset;
use super::*;
use crate::spec::{FirewallConfig, MicroVmSpec};

fn rules() -> FirewallConfig {
    serde_json::from_value(json!({ "egress": { "defaultAction": "deny", "rules": [{
        "action": "allow", "to": "10.0.0.0/8", "protocol": "tcp", "ports": [80, 443],
        "comment": "office",
    }] } }))
    .unwrap()
}

fn firewall(options: &SmartVmOptions) -> Ruleset {
    let id = "0a1b2c".into();
    network(options).rules(&Instance { id }, None)
}

fn network(options: &SmartVmOptions) -> Network {
    Network::new(Path::new("/run/vms"), options).unwrap()
}

#[test]
fn the_guests_own_rules_reach_the_steps() {
    let id: VmId = "web".parse().unwrap();
    let spec: MicroVmSpec = serde_json::from_value(json!({
        "bootSource": { "kernelImagePath": "/k" },
        "machineConfig": { "vcpuCount": 1, "memSizeMib": 128 },
        "networkInterfaces": [{ "ifaceId": "net0", "guestMac": "06:aa:00:00:00:01" }],
        "firewall": rules(),
    }))
    .unwrap();
    let network = network(&SmartVmOptions::default());
    let wiring = network.preview(&id, &["net0".to_owned()]).unwrap();
    let wired = wiring.connect(&id, &spec, &[]).unwrap();
    let NetworkStep::LeaseAddress { firewall, mac, .. } = &wired.leases[0] else {
        panic!("{:?}", wired.leases);
    };
    assert_eq!(firewall, &rules().egress);
    assert_eq!(mac.unwrap().to_string(), "06:aa:00:00:00:01");
    // The step that is taken when the VM is made is the plan's.
    let taken = network.lease_step(
        &id,
        &spec.network_interfaces[0],
        spec.firewall.as_ref(),
        None,
    );
    assert_eq!(taken.unwrap(), wired.leases[0]);
}

#[test]
fn the_options_rules_reach_the_firewall() {
    let mut options = SmartVmOptions::default();
    assert_eq!(firewall(&options).egress, None);
    options.firewall = Some(rules());
    assert_eq!(firewall(&options).egress, rules().egress);
}

#[test]
fn options_open_what_is_closed_by_default() {
    let mut options = SmartVmOptions::default();
    let closed = firewall(&options);
    assert!(!closed.guests_may_talk && closed.host_services.is_empty());
    options.guests_may_talk = Some(true);
    options.host_services = vec!["dns".into(), "tcp/8080".into()];
    let open = firewall(&options);
    let services = ["dns", "tcp/8080"].map(|text| HostService::parse(text).unwrap());
    assert_eq!(open.host_services, services.concat());
    assert!(open.guests_may_talk);
    let preview = network(&options).preview(&"a".parse().unwrap(), &[]);
    assert!(!preview.unwrap().isolated);
}
