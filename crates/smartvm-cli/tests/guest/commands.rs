//! Commands in a guest: streams, status, environment, user.

use crate::support::{Vm, image, smartvm};

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

#[test]
fn commands_in_one_guest_keep_their_streams_and_statuses_apart() {
    let vm = Vm::start("streams");
    let status = |argv: &[&str]| vm.exec(&[], argv).output().unwrap().status.code().unwrap();
    assert_eq!(status(&["true"]), 0);
    assert_eq!(status(&["sh", "-c", "exit 37"]), 37);
    assert_eq!(status(&["sh", "-c", "kill -9 $$"]), 137);
    assert_eq!(status(&["no-such-command"]), 127);
    assert_eq!(status(&["/etc/passwd"]), 126);

    let script = "head -c 10485760 /dev/zero; echo done >&2; exit 5";
    let large = vm.exec(&[], &["sh", "-c", script]).output().unwrap();
    assert_eq!(large.status.code(), Some(5));
    assert_eq!(large.stdout.len(), 10 << 20);
    assert!(large.stdout.iter().all(|&byte| byte == 0));
    assert_eq!(String::from_utf8(large.stderr).unwrap(), "done\n");

    let binary: Vec<u8> = (0..1_000_003_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let echoed = vm
        .exec(&["-i"], &["cat"])
        .write_stdin(binary.clone())
        .output()
        .unwrap();
    assert_eq!(echoed.status.code(), Some(0));
    assert!(
        echoed.stdout == binary,
        "{} bytes came back",
        echoed.stdout.len()
    );

    let flags = ["-e", "GREETING=hi there", "-w", "/tmp", "-u", "1000:1000"];
    let script = "echo $GREETING; pwd; id -u; id -g";
    let said = vm.exec(&flags, &["sh", "-c", script]).output().unwrap();
    assert_eq!(
        String::from_utf8(said.stdout).unwrap(),
        "hi there\n/tmp\n1000\n1000\n"
    );
}
