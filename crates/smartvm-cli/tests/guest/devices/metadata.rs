//! The metadata service, as the guest asks it.

use serde_json::{Value, json};

use crate::support::{Vm, smartvm};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Version {
    V1,
    V2,
}

/// The service that the spec asks for.
pub(super) struct Service {
    pub(super) version: Version,
    pub(super) address: &'static str,
}

/// What the guest is told: the whole answer, for there is no better client in it.
fn ask(vm: &Vm, service: &Service, request: &str) -> String {
    // The service leaves the connection open: the end is a time without a byte.
    let address = service.address;
    let script = format!("(printf '{request}\\r\\n\\r\\n'; sleep 1) | nc {address} 80");
    vm.said(&script)
}

fn body(answer: &str) -> String {
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.lines().next_back().unwrap().trim().to_owned()
}

fn get(vm: &Vm, service: &Service, key: &str) -> String {
    let header = match service.version {
        Version::V1 => String::new(),
        Version::V2 => {
            let request = "PUT /latest/api/token HTTP/1.1\\r\\n\
                X-metadata-token-ttl-seconds: 60";
            format!(
                "\\r\\nX-metadata-token: {}",
                body(&ask(vm, service, request))
            )
        }
    };
    body(&ask(vm, service, &format!("GET {key} HTTP/1.1{header}")))
}

fn change(vm: &Vm, verb: &str, data: &Value) {
    smartvm()
        .args(["metadata", verb, &vm.id, &data.to_string()])
        .assert()
        .success();
}

pub(super) fn answers_inside(vm: &Vm, service: &Service) {
    let address = service.address;
    vm.said(&format!(
        "ip link set eth0 up; ip route add {address} dev eth0"
    ));
    assert_eq!(get(vm, service, "/role"), "web");
    if service.version == Version::V2 {
        let without = ask(vm, service, "GET /role HTTP/1.1");
        assert!(without.starts_with("HTTP/1.1 401"), "{without}");
    }
    change(vm, "patch", &json!({ "role": "db", "size": 3 }));
    assert_eq!(get(vm, service, "/role"), "db");
    change(vm, "patch", &json!({ "size": null }));
    let got = smartvm()
        .args(["metadata", "get", &vm.id])
        .output()
        .unwrap();
    let got: Value = serde_json::from_slice(&got.stdout).unwrap();
    assert_eq!(got, json!({ "role": "db" }));
    change(vm, "set", &json!({ "other": "all of it" }));
    assert_eq!(get(vm, service, "/other"), "all of it");
}
