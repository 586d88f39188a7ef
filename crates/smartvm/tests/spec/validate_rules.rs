//! Every rule of a spec in itself: a document that breaks it, and the place that is named.

use serde_json::{Value, json};
use smartvm::spec::{self, Format, MicroVmSpec};
use smartvm::validate::{ValidateContext, validate};

/// A valid spec, and one that most rules can be broken in.
fn sound() -> Value {
    json!({
        "bootSource": {"kernelImagePath": "vmlinux"},
        "machineConfig": {"vcpuCount": 2, "memSizeMib": 256},
        "drives": [
            {"driveId": "root", "pathOnHost": "root.img", "isRootDevice": true},
            {"driveId": "data", "pathOnHost": "data.img", "isRootDevice": false}
        ],
        "networkInterfaces": [
            {"ifaceId": "eth0", "hostDevName": "tap0", "guestMac": "06:00:ac:1e:00:02"},
            {"ifaceId": "eth1"}
        ],
        "vsock": {"guestCid": 3, "udsPath": "/run/v.sock"},
        "balloon": {"amountMib": 64, "deflateOnOom": true},
        "mmds": {"networkInterfaces": ["eth0"]},
        "metadata": {},
        "firewall": {"egress": {"rules": [{"action": "deny", "protocol": "tcp"}]}},
        "jail": {"cgroup": {}},
        "logger": {"logPath": "log"},
        "serial": {"path": "console"}
    })
}

fn set(document: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
        parent => parent[name] = value,
    }
}

/// What is wrong once these places of the sound spec are changed: places and problems.
pub(crate) fn broken(
    changes: &[(&str, Value)],
    context: &ValidateContext,
) -> Vec<(String, String)> {
    let mut document = sound();
    for (pointer, value) in changes {
        set(&mut document, pointer, value.clone());
    }
    let spec: MicroVmSpec = spec::load(&document.to_string(), Format::Json)
        .unwrap_or_else(|problems| panic!("{changes:?}: {problems}"));
    match validate(&spec, context) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .into_iter()
            .map(|problem| {
                assert!(!problem.allowed.is_empty(), "{problem}");
                (problem.path, problem.problem)
            })
            .collect(),
    }
}

#[test]
fn every_rule_names_its_place() {
    let x86 = ValidateContext::default();
    assert_eq!(broken(&[], &x86), []);
    let limiter = |size: u64, refill: u64| json!({"ops": {"size": size, "refillTime": refill}});
    let many = |count: usize| Value::Array(vec![json!("eth0"); count]);
    let labels = (0..65).map(|i| (format!("k{i}"), json!("v"))).collect();
    let drive = |id: usize| json!({"driveId": format!("d{id}"), "isRootDevice": false, "pathOnHost": id.to_string()});
    let rule = |rule: Value| json!({"egress": {"rules": [rule]}});
    let io = |io: Value| json!({"cgroup": {"io": [io]}});
    #[rustfmt::skip]
    let table: Vec<(&str, Value, &str)> = vec![
        ("/id", json!(""), "id"),
        ("/id", json!("a_b"), "id"),
        ("/id", json!("-a"), "id"),
        ("/id", json!("../x"), "id"),
        ("/id", json!("x".repeat(65)), "id"),
        ("/bootSource/kernelImagePath", json!(""), "bootSource.kernelImagePath"),
        ("/bootSource/kernelImagePath", json!("a\0b"), "bootSource.kernelImagePath"),
        ("/bootSource/kernelImagePath", json!("x".repeat(4096)), "bootSource.kernelImagePath"),
        ("/bootSource/initrdPath", json!(""), "bootSource.initrdPath"),
        ("/bootSource/bootArgs", json!("x".repeat(2049)), "bootSource.bootArgs"),
        ("/bootSource/bootArgs", json!("a\nb"), "bootSource.bootArgs"),
        ("/bootSource/bootArgs", json!("a\0b"), "bootSource.bootArgs"),
        ("/bootSource/bootArgs", json!("a\tb"), "bootSource.bootArgs"),
        ("/bootSource/bootArgs", json!("é"), "bootSource.bootArgs"),
        ("/machineConfig/vcpuCount", json!(0), "machineConfig.vcpuCount"),
        ("/machineConfig/vcpuCount", json!(33), "machineConfig.vcpuCount"),
        ("/machineConfig/memSizeMib", json!(0), "machineConfig.memSizeMib"),
        ("/machineConfig/memSizeMib", json!(1 << 25), "machineConfig.memSizeMib"),
        ("/machineConfig/cpuTemplate", json!("T3"), "machineConfig.cpuTemplate"),
        ("/machineConfig/cpuTemplate", json!("V1N1"), "machineConfig.cpuTemplate"),
        ("/drives/0/driveId", json!("a-b"), "drives[0].driveId"),
        ("/drives/0/driveId", json!(""), "drives[0].driveId"),
        ("/drives/1/driveId", json!("root"), "drives[1].driveId"),
        ("/drives/1/isRootDevice", json!(true), "drives[1].isRootDevice"),
        ("/drives/1/pathOnHost", json!(""), "drives[1].pathOnHost"),
        ("/drives/1/pathOnHost", json!(null), "drives[1].pathOnHost"),
        ("/drives/1/socket", json!("s"), "drives[1].socket"),
        ("/drives/0/partUuid", json!(""), "drives[0].partUuid"),
        ("/drives/0/partUuid", json!("a b init=/bin/sh"), "drives[0].partUuid"),
        ("/drives/1/partUuid", json!("0eaa91a0-01"), "drives[1].partUuid"),
        ("/drives/1/rateLimiter", json!({}), "drives[1].rateLimiter"),
        ("/drives/1/rateLimiter", limiter(0, 1), "drives[1].rateLimiter.ops.size"),
        ("/drives/1/rateLimiter", limiter(1, 0), "drives[1].rateLimiter.ops.refillTime"),
        ("/drives/1/rateLimiter", limiter(1, u64::MAX / 1_000_000 + 1), "drives[1].rateLimiter.ops.refillTime"),
        ("/drives", (0..65).map(drive).collect(), "drives"),
        ("/networkInterfaces/1/ifaceId", json!("eth-1"), "networkInterfaces[1].ifaceId"),
        ("/networkInterfaces/1/ifaceId", json!("eth0"), "networkInterfaces[1].ifaceId"),
        ("/networkInterfaces/0/hostDevName", json!("tap0123456789012"), "networkInterfaces[0].hostDevName"),
        ("/networkInterfaces/0/hostDevName", json!("tap%d"), "networkInterfaces[0].hostDevName"),
        ("/networkInterfaces/1/hostDevName", json!("tap0"), "networkInterfaces[1].hostDevName"),
        ("/networkInterfaces/0/guestMac", json!("01:00:5e:00:00:01"), "networkInterfaces[0].guestMac"),
        ("/networkInterfaces/0/guestMac", json!("00:00:00:00:00:00"), "networkInterfaces[0].guestMac"),
        ("/networkInterfaces/0/guestMac", json!("06-00-ac-1e-00-02"), "networkInterfaces[0].guestMac"),
        ("/networkInterfaces/1/guestMac", json!("06:00:AC:1E:00:02"), "networkInterfaces[1].guestMac"),
        ("/networkInterfaces/1/rxRateLimiter", limiter(0, 1), "networkInterfaces[1].rxRateLimiter.ops.size"),
        ("/networkInterfaces/1/txRateLimiter", limiter(1, 0), "networkInterfaces[1].txRateLimiter.ops.refillTime"),
        ("/networkInterfaces/0/mtu", json!(67), "networkInterfaces[0].mtu"),
        ("/mmds/ipv4Address", json!("10.0.0.1"), "mmds.ipv4Address"),
        ("/mmds/ipv4Address", json!("169.254.0.1"), "mmds.ipv4Address"),
        ("/vsock/guestCid", json!(0), "vsock.guestCid"),
        ("/vsock/guestCid", json!(2), "vsock.guestCid"),
        ("/vsock/guestCid", json!(u32::MAX), "vsock.guestCid"),
        ("/vsock/udsPath", json!(""), "vsock.udsPath"),
        ("/vsock/udsPath", json!("/run/.."), "vsock.udsPath"),
        ("/vsock/udsPath", json!(format!("/run/{}", "x".repeat(91))), "vsock.udsPath"),
        ("/balloon/amountMib", json!(256), "balloon.amountMib"),
        ("/balloon/amountMib", json!(1000), "balloon.amountMib"),
        ("/balloon/statsPollingIntervalS", json!(65536), "balloon.statsPollingIntervalS"),
        ("/mmds/networkInterfaces", json!([]), "mmds.networkInterfaces"),
        ("/mmds/networkInterfaces", json!(["eth9"]), "mmds.networkInterfaces[0]"),
        ("/mmds/networkInterfaces", json!(["eth0", "eth0"]), "mmds.networkInterfaces[1]"),
        ("/mmds/networkInterfaces", many(65), "mmds.networkInterfaces"),
        ("/mmds", json!(null), "metadata"),
        ("/metadata", json!([1]), "metadata"),
        ("/metadata", json!({"a": "x".repeat(51_200)}), "metadata"),
        ("/logger/logPath", json!(""), "logger.logPath"),
        ("/metrics", json!({"metricsPath": ""}), "metrics.metricsPath"),
        ("/metrics", json!({"metricsPath": "log"}), "metrics.metricsPath"),
        ("/serial/path", json!("log"), "serial.path"),
        ("/serial/rateLimiter", json!({"size": 0, "refillTime": 1}), "serial.rateLimiter.size"),
        ("/entropy", json!({"rateLimiter": limiter(0, 1)}), "entropy.rateLimiter.ops.size"),
        ("/labels", Value::Object(labels), "labels"),
        ("/labels", json!({"": "v"}), "labels[\"\"]"),
        ("/labels", json!({"a=b": "v"}), "labels[\"a=b\"]"),
        ("/labels", json!({"a": "\u{1b}[2J"}), "labels.a"),
        ("/labels", json!({"a": "x".repeat(256)}), "labels.a"),
        ("/maxRuntimeS", json!(0), "maxRuntimeS"),
        ("/stagingDir", json!(""), "stagingDir"),
        ("/firewall", rule(json!({"action": "deny", "to": "fe80::/10"})), "firewall.egress.rules[0].to"),
        ("/firewall", rule(json!({"action": "deny", "to": "10.0.0.1/8"})), "firewall.egress.rules[0].to"),
        ("/firewall", rule(json!({"action": "deny", "to": "10.0.0.0/33"})), "firewall.egress.rules[0].to"),
        ("/firewall", rule(json!({"action": "deny", "to": "10.0.0.0/"})), "firewall.egress.rules[0].to"),
        ("/firewall", rule(json!({"action": "deny", "to": "10.0.0.0/+8"})), "firewall.egress.rules[0].to"),
        ("/firewall", rule(json!({"action": "deny", "to": "example.org"})), "firewall.egress.rules[0].to"),
        ("/firewall", rule(json!({"action": "deny", "to": ""})), "firewall.egress.rules[0].to"),
        ("/firewall", rule(json!({"action": "deny", "ports": 80})), "firewall.egress.rules[0].ports"),
        ("/firewall", rule(json!({"action": "deny", "protocol": "icmp", "ports": 80})), "firewall.egress.rules[0].ports"),
        ("/firewall", rule(json!({"action": "deny", "protocol": "tcp", "ports": 0})), "firewall.egress.rules[0].ports"),
        ("/firewall", rule(json!({"action": "deny", "protocol": "tcp", "ports": 70000})), "firewall.egress.rules[0].ports"),
        ("/firewall", rule(json!({"action": "deny", "protocol": "udp", "ports": [53, 0]})), "firewall.egress.rules[0].ports[1]"),
        ("/firewall", rule(json!({"action": "deny", "protocol": "udp", "ports": []})), "firewall.egress.rules[0].ports"),
        ("/firewall", rule(json!({"action": "deny", "comment": "a\nb"})), "firewall.egress.rules[0].comment"),
        ("/firewall", rule(json!({"action": "deny", "comment": "x".repeat(129)})), "firewall.egress.rules[0].comment"),
        ("/firewall/egress/rules", vec![json!({"action": "deny"}); 20_001].into(), "firewall.egress.rules"),
        ("/jail", json!({"uidRange": {"first": 0, "count": 1}}), "jail.uidRange.first"),
        ("/jail", json!({"uidRange": {"first": 1, "count": 0}}), "jail.uidRange.count"),
        ("/jail", json!({"gidRange": {"first": 2, "count": u32::MAX}}), "jail.gidRange.count"),
        ("/jail", json!({"chrootBase": ""}), "jail.chrootBase"),
        ("/jail", json!({"netNs": "/run/netns/blue"}), "networkInterfaces[1].hostDevName"),
        ("/jail", json!({"cgroup": {"cpus": 0.001}}), "jail.cgroup.cpus"),
        ("/jail", json!({"cgroup": {"memoryMib": 0}}), "jail.cgroup.memoryMib"),
        ("/jail", json!({"cgroup": {"pids": 0}}), "jail.cgroup.pids"),
        ("/jail", io(json!({"device": "/dev/vda"})), "jail.cgroup.io[0]"),
        ("/jail", io(json!({"device": "", "readOpsPerS": 1})), "jail.cgroup.io[0].device"),
        ("/jail", io(json!({"device": "/dev/vda", "readOpsPerS": 0})), "jail.cgroup.io[0].readOpsPerS"),
        ("/jail", json!({"resourceLimits": {"openFiles": 0}}), "jail.resourceLimits.openFiles"),
    ];
    for (pointer, value, place) in table {
        let found = broken(&[(pointer, value.clone())], &x86);
        let mut shown = value.to_string();
        shown.truncate(80);
        assert_eq!(found.len(), 1, "{pointer} = {shown}: {found:?}");
        assert_eq!(found[0].0, place, "{pointer} = {shown}: {found:?}");
    }
}

#[test]
fn a_network_namespace_is_a_path_and_goes_with_tap_devices_of_its_own() {
    let tap = ("/networkInterfaces/1/hostDevName", json!("tap1"));
    let in_netns = |path: &str| {
        let jail = ("/jail", json!({ "netNs": path }));
        broken(&[tap.clone(), jail], &ValidateContext::default())
    };
    assert_eq!(in_netns("/run/netns/blue"), []);
    let found = in_netns("a\0");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "jail.netNs");
}
