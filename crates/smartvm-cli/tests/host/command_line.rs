//! The command line's contract: what it prints, and its exit status.

use smartvm::spec::MicroVmSpec;

use crate::support::Corner;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn named(corner: &Corner, id: &str) -> MicroVmSpec {
    let mut spec = corner.small();
    spec.id = Some(id.into());
    spec
}

#[test]
fn detached_vms_are_seen_and_ended_by_other_processes() {
    let corner = Corner::new();
    let spec = corner.spec_file(&named(&corner, "web-1"));
    let before = corner.picture();
    let run = |args: &[&str]| corner.command().args(args).assert();
    let mut start = corner.command();
    start
        .args(["run", "--assume-kvm", "--detach", "-f"])
        .arg(&spec);
    start.assert().success().stdout("web-1\n");
    let listed = run(&["--json", "ps"]).success();
    let listed: serde_json::Value = serde_json::from_slice(&listed.get_output().stdout).unwrap();
    assert_eq!(listed[0]["id"], "web-1");
    assert_eq!(listed[0]["state"], "running");
    run(&["pause", "web"]).success();
    run(&["resume", "web-1"]).success();
    assert_eq!(
        text(&run(&["logs", "web"]).success().get_output().stdout),
        "TINY GUEST UP\n"
    );
    run(&["inspect", "web"]).success();
    run(&["rm", "web"]).code(4);
    run(&["stop", "--force", "web"]).success();
    run(&["wait", "web"])
        .success()
        .stdout("killed on request\n");
    run(&["logs", "web"]).success().stdout("TINY GUEST UP\n");
    corner.becomes(&before, "after stop");
    run(&["rm", "web"]).success();
    run(&["inspect", "web"]).code(3);
    run(&["gc"]).success().stdout("");
}

#[test]
fn created_vms_are_started_by_other_processes() {
    let corner = Corner::new();
    let spec = corner.spec_file(&named(&corner, "later"));
    let run = |args: &[&str]| corner.command().args(args).assert();
    let created = corner
        .command()
        .args(["create", "--assume-kvm", "-f"])
        .arg(&spec)
        .assert();
    created.success().stdout("later\n");
    run(&["gc"]).success().stdout("");
    run(&["exec", "later", "--", "true"]).code(125);
    run(&["start", "--assume-kvm", "later"]).success();
    run(&["start", "--assume-kvm", "later"]).code(4);
    // It outlives the command that started it: ending would take its keeper milliseconds.
    let waited = run(&["wait", "--timeout", "1", "later"]).code(1);
    assert!(text(&waited.get_output().stderr).contains("still runs"));
    run(&["pause", "later"]).success();
    run(&["rm", "--force", "later"]).success();
    run(&["ps", "--all"]).success();
    run(&["start", "later"]).code(3);
}

#[test]
fn every_problem_of_a_spec_is_told_with_its_path_and_status_2() {
    let corner = Corner::new();
    let mut spec = named(&corner, "bad_id");
    spec.machine_config.vcpu_count = 33;
    let path = corner.spec_file(&spec);
    let refused = corner
        .command()
        .args(["validate", "-f"])
        .arg(&path)
        .assert()
        .code(2);
    let told = text(&refused.get_output().stderr);
    assert!(
        told.contains("id") && told.contains("machineConfig.vcpuCount"),
        "{told}"
    );
    let refused = corner
        .command()
        .args(["--json", "validate", "-f"])
        .arg(&path)
        .assert()
        .code(2);
    let told = text(&refused.get_output().stderr);
    let last: serde_json::Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["kind"], "invalid");
    assert!(last["error"]["cleanup"].as_array().unwrap().is_empty());
}

#[test]
fn problems_of_shape_and_of_content_are_told_together() {
    let corner = Corner::new();
    let mut spec = named(&corner, "bad_id");
    spec.machine_config.vcpu_count = 33;
    let shaped = serde_json::to_string(&spec).unwrap();
    let path = corner.file("spec.json");
    std::fs::write(&path, shaped.replacen('{', "{\"colour\":\"red\",", 1)).unwrap();
    for verb in ["validate", "plan", "create", "run"] {
        let refused = corner.command().args([verb, "-f"]).arg(&path).assert();
        let told = text(&refused.code(2).get_output().stderr);
        for place in ["colour", "id", "machineConfig.vcpuCount"] {
            assert!(told.contains(place), "{verb}: {place} is missing in {told}");
        }
    }
}

#[test]
fn a_host_without_hardware_virtualization_is_refused_and_the_way_out_named() {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let corner = Corner::new();
    let spec = corner.spec_file(&named(&corner, "x"));
    let mut command = corner.command();
    command.args(["run", "--detach", "-f"]).arg(&spec);
    if flags
        .split_whitespace()
        .any(|flag| matches!(flag, "vmx" | "svm"))
    {
        command.assert().success();
        corner
            .command()
            .args(["rm", "--force", "x"])
            .assert()
            .success();
        return;
    }
    let told = text(&command.assert().code(5).get_output().stderr);
    assert!(
        told.contains("smartvm emulate --") && told.contains("--assume-kvm"),
        "{told}"
    );
}

#[test]
fn a_plan_names_every_step_its_undo_and_every_request() {
    let corner = Corner::new();
    let spec = corner.spec_file(&corner.large());
    let plan = corner
        .command()
        .args(["plan", "-f"])
        .arg(&spec)
        .assert()
        .success();
    let told = text(&plan.get_output().stdout);
    for part in [
        "copy drive copied",
        "undo: remove the copy",
        "/boot-source",
        "InstanceStart",
    ] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
    let plan = corner
        .command()
        .args(["--json", "plan", "-f"])
        .arg(&spec)
        .assert()
        .success();
    let plan: serde_json::Value = serde_json::from_slice(&plan.get_output().stdout).unwrap();
    assert!(
        plan["steps"]
            .as_array()
            .unwrap()
            .iter()
            .any(|step| step["do"] == "stageDrive")
    );
    assert!(!corner.file("run").exists(), "a plan touches nothing");
}

#[test]
fn wrong_usage_is_status_2_and_help_is_0() {
    let corner = Corner::new();
    corner.command().arg("--help").assert().success();
    corner.command().arg("frobnicate").assert().code(2);
    corner.command().args(["run", "--image"]).assert().code(2);
    // What lives on by itself has nobody's terminal.
    for flag in ["-i", "-t"] {
        let run = ["run", "--detach", flag, "--image", "./image", "--", "sh"];
        corner.command().args(run).assert().code(2);
    }
    corner.command().args(["stop", "nobody"]).assert().code(3);
}

#[test]
fn there_is_a_man_page_for_every_verb_and_a_completion_script_for_every_shell() {
    let corner = Corner::new();
    let run = |args: &[&str]| corner.command().args(args).assert().success();
    let pages = corner.file("man");
    run(&["man", "--output", pages.to_str().unwrap()]);
    let help = text(&run(&["--help"]).get_output().stdout);
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs: Vec<_> = verbs
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  "))
        // What is further in goes on with the line before.
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.contains(&"events") && verbs.len() > 20, "{verbs:?}");
    for verb in verbs {
        let page = pages.join(format!("smartvm-{verb}.1"));
        assert!(page.is_file(), "{} is missing", page.display());
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&run(&["completions", shell]).get_output().stdout);
        assert!(script.contains("smartvm") && script.contains("resume"));
    }
}

#[test]
fn systemd_finds_no_fault_with_the_units() {
    let Ok(probe) = std::process::Command::new("systemd-analyze")
        .arg("--version")
        .output()
    else {
        eprintln!("SKIPPED: systemd-analyze isn't installed");
        return;
    };
    assert!(probe.status.success());
    let packaging = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/systemd");
    let corner = Corner::new();
    let unit = std::fs::read_to_string(format!("{packaging}/smartvm@.service")).unwrap();
    // Where it will be installed there is none yet.
    let unit = unit.replace("/usr/bin/smartvm", crate::support::SMARTVM);
    std::fs::write(corner.file("smartvm@.service"), unit).unwrap();
    let slice = format!("{packaging}/smartvm.slice");
    std::fs::copy(slice, corner.file("smartvm.slice")).unwrap();
    let verified = std::process::Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(corner.file("smartvm@x.service"))
        .arg(corner.file("smartvm.slice"))
        .env("SYSTEMD_UNIT_PATH", format!("{}:", corner.path().display()))
        .output()
        .unwrap();
    let told = text(&verified.stderr);
    assert!(
        verified.status.success() && !told.contains("smartvm"),
        "{told}"
    );
}

#[test]
fn ids_are_drawn_where_there_is_no_device_for_random_numbers() {
    let corner = Corner::new();
    let file = corner.spec_file(&corner.small());
    // As in a plain chroot or a small container.
    let script = "mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; \
        mknod -m 600 /dev/kvm c 10 232; exec \"$@\"";
    let mut create = corner.unshared(&["--mount"], script);
    create.args(["create", "--assume-kvm", "-f"]).arg(file);
    let created = create.assert().success();
    let id = String::from_utf8_lossy(&created.get_output().stdout).into_owned();
    assert_eq!(id.trim().len(), 36, "{id}");
}
