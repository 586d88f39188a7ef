//! Commands in a guest: streams, status, environment, user.

use crate::support::{image, smartvm};

#[test]
fn run_prints_what_the_command_printed_exits_with_its_status_and_leaves_nothing() {
    let script = "uname -a; echo to-stderr >&2; exit 37";
    let mut run = smartvm();
    run.args(["run", "--id", "main-job", "--image"])
        .arg(image())
        .args(["--", "sh", "-c", script]);
    let ran = run.assert().code(37);
    let out = String::from_utf8(ran.get_output().stdout.clone()).unwrap();
    let err = String::from_utf8(ran.get_output().stderr.clone()).unwrap();
    assert!(
        out.starts_with("Linux ") && out.lines().count() == 1,
        "stdout: {out}"
    );
    assert!(
        err.contains("to-stderr") && !out.contains("to-stderr"),
        "stderr: {err}"
    );
    smartvm().args(["pause", "main-job"]).assert().code(3);
}
