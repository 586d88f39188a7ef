//! The verbs that change a running VM and look into it, as they are typed: what they print,
//! their statuses, and what they say of what can't be.

use serde_json::{Value, json};
use smartvm::spec::MicroVmSpec;

use crate::support::{Corner, refusal};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A detached VM of the corner's, which is called `web`.
fn start(corner: &Corner, spec: &MicroVmSpec) {
    let file = corner.spec_file(spec);
    let mut start = corner.command();
    start
        .args(["run", "--assume-kvm", "--detach", "--jail", "off"])
        .args(["--id", "web", "-f"])
        .arg(&file);
    start.assert().success();
}

fn assert_refused(corner: &Corner, args: &[&str], status: i32, kind: &str, words: &str) {
    let error = refusal(corner.command().arg("--json").args(args), status);
    assert_eq!(error["kind"], kind, "{args:?}: {error}");
    assert!(error.to_string().contains(words), "{args:?}: {error}");
}

#[test]
fn update_says_what_is_then_so_and_what_cannot_be() {
    let corner = Corner::new();
    let mut spec = corner.large();
    let balloon = json!({ "amountMib": 0, "deflateOnOom": true, "statsPollingIntervalS": 1 });
    spec.balloon = Some(serde_json::from_value(balloon).unwrap());
    start(&corner, &spec);
    let limit = "copied=bandwidth:1MiB/1000,ops:500/1000/50";
    let mut update = corner.command();
    update.args(["--json", "update", "web", "--limit-drive", limit]);
    update.args(["--grow", "copied=1MiB", "--balloon-statistics", "5"]);
    let updated = update.assert().success();
    let now: Value = serde_json::from_slice(&updated.get_output().stdout).unwrap();
    assert_eq!(
        now["drives"][0]["rateLimiter"],
        json!({
            "bandwidth": { "size": 1 << 20, "refillTime": 1000 },
            "ops": { "size": 500, "refillTime": 1000, "oneTimeBurst": 50 },
        })
    );
    assert_eq!(now["balloon"]["statsPollingIntervalS"], 5);
    let inspected = corner.command().args(["inspect", "web"]).output().unwrap();
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(inspected[0]["spec"], now, "others see it, too");

    let missing = corner.file("missing.img").display().to_string();
    let swap = format!("copied={missing}");
    let refused = |args: &[&str], status: i32, kind: &str, words: &str| {
        let args: Vec<_> = ["update", "web"].iter().chain(args).copied().collect();
        assert_refused(&corner, &args, status, kind, words);
    };
    refused(
        &["--limit-drive", "nobody=none"],
        3,
        "not-found",
        "copied, linked",
    );
    refused(&["--grow", "nobody=1GiB"], 3, "not-found", "nobody");
    refused(&["--limit-rx", "eth0=none"], 3, "not-found", "eth0");
    refused(&["--swap", &swap], 3, "not-found", &missing);
    refused(&["--balloon", "128"], 2, "invalid", "balloon.amountMib");
    refused(&["--balloon", "999999"], 2, "invalid", "balloon.amountMib");
    refused(&["--balloon-statistics", "0"], 2, "invalid", "switched");
    refused(&["--grow", "copied=512"], 2, "invalid", "only grow");
    refused(&["--grow", "copied=lots"], 2, "invalid", "lots");
    refused(
        &["--limit-drive", "copied=speed:1/1"],
        2,
        "invalid",
        "neither bandwidth nor ops",
    );
    refused(
        &["--limit-drive", "copied=ops:0/1000"],
        2,
        "invalid",
        "ops.size",
    );
    refused(&[], 2, "invalid", "nothing to change");
    assert_refused(
        &corner,
        &["update", "x", "--balloon", "1"],
        3,
        "not-found",
        "x",
    );
    let inspected = corner.command().args(["inspect", "web"]).output().unwrap();
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(inspected[0]["spec"], now, "nothing of that was done");
}

#[test]
fn stats_are_told_to_people_and_to_programs() {
    let corner = Corner::new();
    start(&corner, &corner.large());
    let told = corner.command().args(["stats", "web"]).output().unwrap();
    let told = text(&told.stdout);
    for name in ["pid ", "cpu ", "memory ", "threads "] {
        assert!(told.lines().any(|line| line.starts_with(name)), "{told}");
    }
    let stats = corner.command().args(["--json", "stats", "web"]).output();
    let stats: Value = serde_json::from_slice(&stats.unwrap().stdout).unwrap();
    assert!(
        stats["vmm"]["residentBytes"].as_u64().unwrap() > 1 << 20,
        "{stats}"
    );
    assert!(stats["metrics"]["utc_timestamp_ms"].is_u64(), "{stats}");
    assert_eq!(stats["balloon"], Value::Null);
    assert_refused(&corner, &["stats", "nobody"], 3, "not-found", "nobody");
    let mut created = corner.small();
    created.id = Some("later".into());
    let file = corner.spec_file(&created);
    let mut create = corner.command();
    create.args(["create", "--assume-kvm", "-f"]).arg(file);
    create.assert().success();
    assert_refused(&corner, &["stats", "later"], 4, "wrong-state", "created");
}

/// The VM `web` with a metadata service: its TAP is in a network namespace of its own.
fn start_with_metadata(corner: &Corner) {
    let mut spec = corner.small();
    spec.id = Some("web".into());
    let mut spec = serde_json::to_value(&spec).unwrap();
    spec["networkInterfaces"] = json!([
        { "ifaceId": "eth0", "hostDevName": "smtest0", "guestMac": "06:00:c0:00:02:01" },
    ]);
    spec["mmds"] = json!({ "networkInterfaces": ["eth0"] });
    spec["lifetime"] = "detached".into();
    std::fs::write(corner.file("spec.json"), spec.to_string()).unwrap();
    let script = "mount -t sysfs none /sys; ip tuntap add smtest0 mode tap; \
        ip link set smtest0 up; exec \"$@\"";
    corner
        .unshared(&["--net", "--mount"], script)
        .args(["run", "--assume-kvm", "--detach", "--jail", "off", "-f"])
        .arg(corner.file("spec.json"))
        .assert()
        .success();
}

/// What is left where it dies between Firecracker's answer and writing that down.
fn a_setter_may_die(corner: &Corner) {
    use std::io::{Read, Write};
    let gc = || text(&corner.command().arg("gc").output().unwrap().stdout);
    let inspected = || -> Value {
        let inspected = corner.command().args(["inspect", "web"]).output().unwrap();
        let vms: Value = serde_json::from_slice(&inspected.stdout).unwrap();
        vms[0]["spec"]["metadata"].clone()
    };
    assert_eq!(gc(), "", "nothing is wrong");
    let socket = corner.file("run/web/firecracker.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let put = b"PUT /mmds HTTP/1.1\r\nContent-Length: 7\r\n\r\n{\"c\":2}";
    stream.write_all(put).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 204");
    assert_eq!(inspected(), json!({ "a": { "b": 1 } }));
    let told = "web: corrected (its metadata is another than its state said)\n";
    assert_eq!(gc(), told);
    assert_eq!(inspected(), json!({ "c": 2 }));
    assert_eq!(gc(), "");
}

#[test]
fn metadata_is_set_patched_and_read_and_too_much_of_it_is_refused() {
    let corner = Corner::new();
    start_with_metadata(&corner);
    let get = || -> Value {
        let got = corner.command().args(["metadata", "get", "web"]).output();
        serde_json::from_slice(&got.unwrap().stdout).unwrap()
    };
    let given = |verb: &str, data: &str| {
        let mut command = corner.command();
        command.args(["metadata", verb, "web", "-"]);
        command.write_stdin(data.to_owned()).assert()
    };
    assert_eq!(get(), json!({}));
    given("patch", r#"{"role": "web"}"#).success().stdout("");
    given("patch", r#"{"size": 3, "role": null}"#).success();
    assert_eq!(get(), json!({ "size": 3 }));
    given("set", r#"{"a": {"b": 1}}"#).success();
    assert_eq!(get(), json!({ "a": { "b": 1 } }));
    a_setter_may_die(&corner);

    let large = |bytes: usize| json!({ "large": "x".repeat(bytes) }).to_string();
    let frame = large(0).len();
    given("set", &large(51_200 - frame)).success();
    let too_large = given("set", &large(51_201 - frame)).code(2);
    let told = text(&too_large.get_output().stderr);
    assert!(told.contains("51201") && told.contains("51200"), "{told}");
    // A small patch that makes it too large, all together.
    let patched = given("patch", r#"{"one": "more"}"#).code(2);
    let told = text(&patched.get_output().stderr);
    assert!(told.contains("51200"), "{told}");
    assert_eq!(get()["large"].as_str().unwrap().len(), 51_200 - frame);
    assert_eq!(get()["one"], Value::Null);
    for (data, words) in [
        ("[1]", "object"),
        ("7", "object"),
        ("{", "JSON"),
        ("", "JSON"),
    ] {
        let refused = given("set", data).code(2);
        let told = text(&refused.get_output().stderr);
        assert!(told.contains(words), "{data:?}: {told}");
    }
    assert_refused(&corner, &["metadata", "get", "x"], 3, "not-found", "x");
    corner
        .command()
        .args(["rm", "--force", "web"])
        .assert()
        .success();
    start(&corner, &corner.small());
    for verb in ["set", "patch"] {
        let args = ["metadata", verb, "web", "{}"];
        assert_refused(&corner, &args, 4, "wrong-state", "no metadata service");
    }
    assert_refused(
        &corner,
        &["metadata", "get", "web"],
        4,
        "wrong-state",
        "mmds",
    );
}

#[test]
fn what_cannot_be_copied_is_told_before_the_guest_is_asked() {
    let corner = Corner::new();
    // It has no agent: who asked it would wait for minutes.
    start(&corner, &corner.small());
    let here = corner.file("root.img").display().to_string();
    let dir = corner.path().display().to_string();
    let nowhere = corner.file("no/such/place").display().to_string();
    for (from, to, status, kind, words) in [
        (&*here, &*here, 2, "invalid", "ID:PATH"),
        ("web:/a", "web:/b", 2, "invalid", "ID:PATH"),
        ("-", "-", 2, "invalid", "ID:PATH"),
        (&here, "web:relative", 2, "invalid", "absolute"),
        ("web:", "-", 2, "invalid", "absolute"),
        (&dir, "web:/srv", 2, "invalid", "directory"),
        (&nowhere, "web:/srv/x", 3, "not-found", "no/such/place"),
        ("web:/etc/x", &nowhere, 3, "not-found", "no/such/place"),
        (&here, "nobody:/x", 3, "not-found", "nobody"),
    ] {
        assert_refused(&corner, &["cp", from, to], status, kind, words);
    }
    corner.command().args(["pause", "web"]).assert().success();
    assert_refused(
        &corner,
        &["cp", &here, "web:/x"],
        4,
        "wrong-state",
        "paused",
    );
    corner
        .command()
        .args(["rm", "--force", "web"])
        .assert()
        .success();
    assert_refused(&corner, &["cp", &here, "web:/x"], 3, "not-found", "web");
    assert!(!corner.file("x").exists());
}
