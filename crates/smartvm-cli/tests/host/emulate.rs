//! The emulated host, from outside. Where the tier itself runs in one, this is left out, and
//! says so.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::SMARTVM;

/// Fifty times what it takes on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// `smartvm emulate`, if this machine has what it needs.
fn emulate(arguments: &[&str]) -> Option<Command> {
    let Some(kernel) = std::env::var_os("SMARTVM_TEST_EMULATE_KERNEL") else {
        // Past what libtest keeps to itself of tests that pass.
        let mut seen = std::io::stderr();
        writeln!(seen, "skipped: SMARTVM_TEST_EMULATE_KERNEL names no kernel").unwrap();
        return None;
    };
    let mut command = Command::new(SMARTVM);
    command
        .arg("emulate")
        .args(arguments)
        .env("SMARTVM_EMULATE_KERNEL", kernel)
        .stdin(Stdio::null());
    Some(command)
}

/// The QEMUs that have this directory shared: what would be left behind.
fn qemus_with(directory: &str) -> usize {
    let listed = Command::new("ps").args(["-eo", "args"]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let ours = |line: &&str| line.starts_with("qemu-system") && line.contains(directory);
    listed.lines().filter(ours).count()
}

#[test]
fn a_command_in_it_has_its_own_streams_status_and_place_to_write() {
    let shared = tempfile::tempdir().unwrap();
    let path = shared.path().to_str().unwrap();
    let script = "cat; echo trouble >&2; echo kept > \"$0/kept\"; echo lost > \"$0/../lost-$$\"; \
                  test -c /dev/kvm && exit 37";
    let Some(command) = emulate(&["--write", path, "--", "sh", "-c", script, path]) else {
        return;
    };
    let mut command = assert_cmd::Command::from_std(command);
    command.timeout(PATIENCE);
    let binary: Vec<u8> = (0..=255_u8).cycle().take(100_000).collect();
    let ran = command.write_stdin(binary.clone()).assert().code(37);
    assert!(ran.get_output().stdout == binary, "its stdin came back");
    assert_eq!(ran.get_output().stderr, b"trouble\n");
    assert_eq!(
        std::fs::read(shared.path().join("kept")).unwrap(),
        b"kept\n"
    );
    let siblings = std::fs::read_dir(shared.path().parent().unwrap()).unwrap();
    let mut lost = siblings.flatten().map(|entry| entry.file_name());
    assert!(!lost.any(|name| name.to_string_lossy().starts_with("lost-")));
    assert_eq!(qemus_with(path), 0);
}

#[test]
fn it_ends_at_its_deadline_and_with_its_owner() {
    let shared = tempfile::tempdir().unwrap();
    let path = shared.path().to_str().unwrap();
    let late = ["--write", path, "--timeout", "1", "--", "sleep", "1000"];
    let script = ["--write", path, "--", "sh", "-c", "echo up; sleep 1000"];
    let (Some(mut late), Some(mut owner)) = (emulate(&late), emulate(&script)) else {
        return;
    };
    assert_eq!(late.status().unwrap().code(), Some(124));
    assert_eq!(qemus_with(path), 0);
    let mut owner = owner.stdout(Stdio::piped()).spawn().unwrap();
    let mut up = String::new();
    let mut stdout = BufReader::new(owner.stdout.take().unwrap());
    stdout.read_line(&mut up).unwrap();
    assert_eq!((up.as_str(), qemus_with(path)), ("up\n", 1));
    owner.kill().unwrap();
    owner.wait().unwrap();
    let begin = Instant::now();
    while qemus_with(path) > 0 {
        assert!(begin.elapsed() < PATIENCE, "QEMU outlives its owner");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_reader_of_its_output_that_has_gone_is_no_failure_of_smartvms() {
    let Some(mut command) = emulate(&["--", "yes"]) else {
        return;
    };
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "y\n");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}
