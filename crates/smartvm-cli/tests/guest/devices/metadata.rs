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

/// What the service lets whoever asks in this way read, as the guest's wget is told it.
fn get(vm: &Vm, service: &Service, token: &str, key: &str) -> String {
    let address = service.address;
    vm.said(&format!("wget -q -O - {token} http://{address}/{key}"))
}

/// A token for half an hour, as wget passes it on. It has to be asked for by hand: wget can't.
fn token(vm: &Vm, service: &Service) -> String {
    let request = "PUT /latest/api/token HTTP/1.1\\r\\n\
        X-metadata-token-ttl-seconds: 1800\\r\\n\\r\\n";
    // The service leaves the connection open: the end is a time without a byte.
    let script = format!("(printf '{request}'; sleep 1) | nc {} 80", service.address);
    let answer = vm.said(&script);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let token = answer.lines().next_back().unwrap().trim();
    format!("--header 'X-metadata-token: {token}'")
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
    let token = match service.version {
        Version::V1 => String::new(),
        Version::V2 => token(vm, service),
    };
    let get = |key: &str| get(vm, service, &token, key);
    assert_eq!(get("role"), "web");
    if service.version == Version::V2 {
        let without = vm.said(&format!("! wget -O - http://{address}/role 2>&1"));
        assert!(without.contains("401"), "{without}");
    }
    change(vm, "patch", &json!({ "role": "db", "size": 3 }));
    assert_eq!(get("role"), "db");
    change(vm, "patch", &json!({ "size": null }));
    let got = smartvm()
        .args(["metadata", "get", &vm.id])
        .output()
        .unwrap();
    let got: Value = serde_json::from_slice(&got.stdout).unwrap();
    assert_eq!(got, json!({ "role": "db" }));
    change(vm, "set", &json!({ "other": "all of it" }));
    assert_eq!(get("other"), "all of it");
}
