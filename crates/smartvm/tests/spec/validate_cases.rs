//! Rules of a spec that take more than one field, and what just passes.

use serde_json::{Value, json};
use smartvm::spec::{Arch, RuntimeOptions};
use smartvm::validate::ValidateContext;

use crate::validate_rules::broken;

#[test]
fn what_is_right_at_the_edge_passes() {
    let x86 = ValidateContext::default();
    #[rustfmt::skip]
    let table = [
        ("/id", json!("x".repeat(64))),
        ("/bootSource/bootArgs", json!("~".repeat(2048))),
        ("/bootSource/bootArgs", json!("")),
        ("/machineConfig/vcpuCount", json!(32)),
        ("/machineConfig/vcpuCount", json!(1)),
        ("/machineConfig/cpuTemplate", json!("None")),
        ("/machineConfig/cpuTemplate", json!("T2CL")),
        ("/drives", json!([])),
        ("/networkInterfaces/1/hostDevName", json!("tap012345678901")),
        ("/vsock/guestCid", json!(u32::MAX - 1)),
        ("/vsock/udsPath", json!(format!("/{}/{}", "d".repeat(200), "x".repeat(90)))),
        ("/balloon/amountMib", json!(255)),
        ("/balloon/statsPollingIntervalS", json!(0)),
        ("/metadata", json!({"a": "x".repeat(51_192)})),
        ("/firewall", json!({"egress": {"rules": [{"action": "allow", "to": "0.0.0.0/0"}]}})),
        ("/firewall", json!({"egress": {"rules": [{"action": "allow", "to": "10.0.0.1/32", "protocol": "udp", "ports": [1, 65535]}]}})),
        ("/firewall", json!({})),
        ("/drives/1/rateLimiter", json!({"bandwidth": {"size": 1, "oneTimeBurst": 0, "refillTime": 1}})),
        ("/labels", json!({"a.b/c-d_e": ""})),
        ("/maxRuntimeS", json!(1)),
    ];
    for (pointer, value) in table {
        let found = broken(&[(pointer, value)], &x86);
        assert_eq!(found, [], "{pointer}");
    }
}

#[test]
fn threads_come_in_pairs_and_huge_pages_are_even() {
    let x86 = ValidateContext::default();
    let smt = |vcpus: u8| {
        let machine = json!({"vcpuCount": vcpus, "memSizeMib": 256, "smt": true});
        broken(&[("/machineConfig", machine)], &x86).len()
    };
    assert_eq!([1, 2, 3, 4, 31].map(smt), [0, 0, 1, 0, 1]);
    let huge = |memory: u64| {
        let machine = json!({"vcpuCount": 1, "memSizeMib": memory, "hugePages": "2M"});
        broken(&[("/machineConfig", machine)], &x86).len()
    };
    assert_eq!([256, 257].map(huge), [0, 1]);
}

#[test]
fn another_architecture_has_its_own_rules_and_is_accepted() {
    let arm = ValidateContext::new(Arch::Aarch64, RuntimeOptions::default());
    assert_eq!(broken(&[], &arm), []);
    let place = |field: &str, value: Value| {
        let found = broken(&[(&format!("/machineConfig/{field}"), value)], &arm);
        found.into_iter().map(|it| it.0).collect::<Vec<_>>()
    };
    assert_eq!(place("smt", json!(true)), ["machineConfig.smt"]);
    assert_eq!(place("smt", json!(false)), [""; 0]);
    assert_eq!(
        place("cpuTemplate", json!("T2")),
        ["machineConfig.cpuTemplate"]
    );
    assert_eq!(place("cpuTemplate", json!("V1N1")), [""; 0]);
}

#[test]
fn a_vhost_user_drive_takes_nothing_that_its_process_decides() {
    let x86 = ValidateContext::default();
    let of = |more: Value| {
        let mut drive = json!({"driveId": "v", "isRootDevice": false, "socket": "s"});
        let (drive_fields, more) = (drive.as_object_mut().unwrap(), more.as_object().unwrap());
        drive_fields.extend(more.clone());
        let found = broken(&[("/drives/1", drive)], &x86);
        found.into_iter().map(|it| it.0).collect::<Vec<_>>()
    };
    assert_eq!(of(json!({})), [""; 0]);
    assert_eq!(of(json!({"cacheType": "Writeback"})), [""; 0]);
    assert_eq!(of(json!({"isReadOnly": true})), ["drives[1].isReadOnly"]);
    assert_eq!(of(json!({"ioEngine": "Sync"})), ["drives[1].ioEngine"]);
    assert_eq!(of(json!({"ephemeral": true})), ["drives[1].ephemeral"]);
    let limiter = json!({"rateLimiter": {"ops": {"size": 1, "refillTime": 1}}});
    assert_eq!(of(limiter), ["drives[1].rateLimiter"]);
    assert_eq!(of(json!({"pathOnHost": "x"})), ["drives[1].socket"]);
}

#[test]
fn an_image_shared_by_two_drives_needs_copies_or_readers() {
    let shared = |first: Value, second: Value, staged: bool| {
        let drive = |id: &str, path: &str, more: Value| {
            let mut drive = json!({"driveId": id, "isRootDevice": false, "pathOnHost": path});
            drive
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            drive
        };
        let runtime = RuntimeOptions::builder()
            .ephemeral_writable_drives(staged)
            .build();
        let drives = json!([
            drive("a", "d/./x.img", first),
            drive("b", "d//x.img", second)
        ]);
        let context = ValidateContext::new(Arch::X86_64, runtime);
        let found = broken(&[("/drives", drives)], &context);
        found.into_iter().map(|it| it.0).collect::<Vec<_>>()
    };
    let none = [""; 0];
    let second = ["drives[1].pathOnHost"];
    assert_eq!(shared(json!({}), json!({}), true), none);
    assert_eq!(shared(json!({}), json!({}), false), second);
    assert_eq!(shared(json!({"ephemeral": false}), json!({}), true), none);
    let kept = json!({"ephemeral": false});
    assert_eq!(shared(kept.clone(), kept, true), second);
    let reader = json!({"isReadOnly": true});
    assert_eq!(shared(reader.clone(), reader.clone(), false), none);
    assert_eq!(shared(reader, json!({}), false), second);
}

#[test]
fn all_problems_are_told_at_once() {
    let x86 = ValidateContext::default();
    let changes = [
        ("/id", json!("a b")),
        ("/machineConfig/vcpuCount", json!(0)),
        ("/drives/1/isRootDevice", json!(true)),
        ("/drives/1/driveId", json!("root")),
        ("/vsock/guestCid", json!(1)),
        ("/balloon/amountMib", json!(9999)),
        ("/mmds/networkInterfaces", json!(["lo"])),
    ];
    assert_eq!(broken(&changes, &x86).len(), changes.len());
}
