//! Images by the command line: what is in use stays.

use serde_json::Value;

use crate::support::{Corner, copy_program, firecracker};

fn json(corner: &Corner, args: &[&str]) -> Value {
    let done = corner.command().arg("--json").args(args).assert().success();
    serde_json::from_slice(&done.get_output().stdout).unwrap()
}

/// A hosted manifest whose kernel is the tiny guest.
pub(crate) fn offer(corner: &Corner, id: &str) -> String {
    let manifest = format!(
        r#"{{"schemaVersion":1,"bundleId":"{id}","arch":"x86_64","firecrackerVersion":"1.12.1",
        "rootfsType":"ext4","kernel":{{"path":"tiny"}},"rootfs":{{"path":"root.img"}}}}"#
    );
    let path = corner.file("manifest.json");
    std::fs::write(&path, manifest).unwrap();
    path.display().to_string()
}

#[test]
fn an_image_is_pulled_seen_run_and_kept_while_a_vm_uses_it() {
    let corner = Corner::new();
    let run = |args: &[&str]| corner.command().args(args).assert();
    let manifest = offer(&corner, "web");
    run(&["image", "pull", "--manifest-path", &manifest])
        .success()
        .stdout("web\n");
    run(&["image", "pull", "hosted"]).code(2);
    run(&["image", "pull", "Newest"]).code(2);
    run(&["image", "clone", "web", "copy"])
        .success()
        .stdout("copy\n");
    run(&["image", "clone", "web", "copy"]).code(4);
    run(&["image", "verify", "web"]).success();
    run(&["image", "inspect", "none"]).code(3);
    let listed = json(&corner, &["image", "ls"]);
    assert_eq!(
        (&listed[0]["name"], &listed[1]["name"]),
        (&"copy".into(), &"web".into())
    );
    assert_eq!(listed[1]["record"]["baseImage"]["preset"], "hosted");
    assert_eq!(listed[1]["usedBy"], Value::Null);
    assert_eq!(
        json(&corner, &["image", "inspect", "web"])["manifest"]["bundleId"],
        "web"
    );

    run(&["run", "--assume-kvm", "-d", "--id", "a", "--image", "web"]).success();
    assert_eq!(json(&corner, &["image", "ls"])[1]["usedBy"], "VM a");
    let refused = run(&["image", "rm", "web"]).code(4);
    let told = String::from_utf8(refused.get_output().stderr.clone()).unwrap();
    assert!(told.contains("in use by VM a"), "{told}");
    run(&["image", "pull", "--force", "--manifest-path", &manifest]).code(4);
    let pruned = json(&corner, &["image", "prune", "--max-size", "0"]);
    assert_eq!(pruned["images"][0]["name"], "copy");
    // Two others come, and two are kept besides the one in use.
    for id in ["two", "three"] {
        let path = offer(&corner, id);
        run(&["image", "pull", "--manifest-path", &path]).success();
    }
    let names = |listed: Value| -> Vec<String> {
        let all = listed.as_array().unwrap();
        all.iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(json(&corner, &["image", "ls"])), ["three", "web"]);
    // What only a snapshot needs stays too, wherever that is.
    let elsewhere = corner.file("elsewhere").display().to_string();
    let snapshots = [
        (vec!["create", "a", "base", "--no-agent"], "base"),
        (
            vec!["create", "a", "--output", &elsewhere, "--no-agent"],
            &elsewhere,
        ),
    ];
    for (args, _) in &snapshots {
        run(&[&["snapshot"], &args[..]].concat()).success();
    }
    run(&["rm", "--force", "a"]).success();
    for (_, name) in &snapshots {
        let user = format!("the snapshot {name}");
        let listed = json(&corner, &["image", "ls"]);
        let web = listed.as_array().unwrap().last().unwrap();
        assert_eq!(
            (&web["name"], &web["usedBy"]),
            (&"web".into(), &user.clone().into())
        );
        let refused = run(&["image", "rm", "web"]).code(4);
        let told = String::from_utf8(refused.get_output().stderr.clone()).unwrap();
        assert!(told.contains(&format!("in use by {user}")), "{told}");
        let pruned = json(&corner, &["image", "prune", "--max-size", "0"]);
        assert_ne!(pruned["images"][0]["name"], "web");
        run(&["image", "pull", "--manifest-path", &offer(&corner, "three")]).success();
        run(&["image", "pull", "--manifest-path", &offer(&corner, "four")]).success();
        let left = names(json(&corner, &["image", "ls"]));
        assert_eq!(left.last().unwrap(), "web", "not evicted either: {left:?}");
        run(&["image", "rm", "four"]).success();
        run(&["snapshot", "rm", name]).success();
    }
    run(&["image", "rm", "web"]).success();
    run(&["image", "rm", "web"]).code(3);
    assert!(names(json(&corner, &["image", "ls"])).is_empty());
}

#[test]
fn a_blank_drive_is_made_and_none_is_overwritten() {
    let corner = Corner::new();
    let drive = corner.file("new.img").display().to_string();
    let make = [
        "image",
        "create-drive",
        "--size",
        "64MiB",
        "--fs",
        "ext4",
        &drive,
    ];
    corner.command().args(make).assert().success();
    corner.command().args(make).assert().code(4);
    assert_eq!(corner.file("new.img").metadata().unwrap().len(), 64 << 20);
}

#[test]
fn firecracker_versions_are_listed_and_one_in_use_is_kept() {
    let corner = Corner::new();
    let dir = corner.file("data/bin/1.12.1/x86_64");
    std::fs::create_dir_all(&dir).unwrap();
    copy_program(firecracker(), &dir.join("firecracker"));
    let run = |args: &[&str]| {
        let mut command = corner.command();
        command
            .env_remove("SMARTVM_FIRECRACKER")
            .args(args)
            .assert()
    };
    let spec = corner.spec_file(&corner.small());
    let listed = json(&corner, &["firecracker", "ls"]);
    assert_eq!(listed[0]["version"], "1.12.1");
    run(&["firecracker", "install", "1.12.1"]).success();
    let spec = spec.display().to_string();
    run(&["run", "--assume-kvm", "-d", "--id", "a", "-f", &spec]).success();
    run(&["firecracker", "rm", "1.12.1"]).code(4);
    run(&["snapshot", "create", "a", "base", "--no-agent"]).success();
    run(&["rm", "--force", "a"]).success();
    let refused = run(&["firecracker", "rm", "1.12.1"]).code(4);
    let told = String::from_utf8(refused.get_output().stderr.clone()).unwrap();
    assert!(told.contains("in use by the snapshot base"), "{told}");
    run(&["snapshot", "rm", "base"]).success();
    run(&["firecracker", "rm", "1.12.1"]).success();
    run(&["firecracker", "rm", "1.12.1"]).code(3);
}

#[test]
fn with_json_warnings_are_lines_of_json_too() {
    let corner = Corner::new();
    let told = |command: &mut assert_cmd::Command| -> Vec<Value> {
        let done = command.assert().success();
        let text = String::from_utf8(done.get_output().stderr.clone()).unwrap();
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().expect(&text)
    };
    let pull = |id: &str, words: &[&str]| {
        let manifest = offer(&corner, id);
        let mut pull = corner.command();
        pull.args(["image", "pull", "--manifest-path", &manifest])
            .args(words);
        told(&mut pull)
    };
    assert_eq!(pull("one", &["--json"]), [Value::Null; 0]);
    pull("two", &["--json"]);
    // A third image drives out the first.
    let lines = pull("three", &["--json"]);
    let [warning] = &lines[..] else {
        panic!("{lines:?}")
    };
    let message = warning["warning"]["message"].as_str().unwrap();
    assert!(message.contains("one"), "{message}");
    assert_eq!(pull("four", &["--json", "--quiet"]), [Value::Null; 0]);

    // One of the command's own, and not of the library's.
    let spec = corner.spec_file(&corner.small());
    let mut plan = corner.command();
    plan.args(["--json", "plan", "-f"])
        .arg(&spec)
        .env_remove("SMARTVM_FIRECRACKER")
        .env("PATH", "");
    let lines = told(&mut plan);
    let message = lines[0]["warning"]["message"].as_str().unwrap();
    assert!(message.starts_with("no Firecracker was found"), "{message}");
}
