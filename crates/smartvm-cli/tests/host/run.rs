//! `smartvm run` as a user at a terminal meets it: its console, Ctrl-C, time limits, images
//! that aren't whole.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::tcgetattr;
use smartvm_emulate::tiny_guest::LINE;

use crate::support::{Corner, SMARTVM, eventually, firecracker};

const PATIENCE: Duration = Duration::from_secs(30);

/// `smartvm run` of the tiny guest, with more arguments.
fn run(corner: &Corner, arguments: &[&str]) -> Command {
    let mut command = Command::new(SMARTVM);
    command
        .args(["run", "--assume-kvm", "-f"])
        .arg(corner.spec_file(&corner.small()))
        .args(arguments)
        .env("SMARTVM_DATA_DIR", corner.file("data"))
        .env("SMARTVM_RUNTIME_DIR", corner.file("run"))
        .env("SMARTVM_FIRECRACKER", firecracker())
        .stderr(Stdio::null());
    command
}

/// How it ends, within [`PATIENCE`].
fn ended(child: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it didn't end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn greeted(child: &mut Child) {
    let mut line = [0; LINE.len()];
    let stdout = child.stdout.as_mut().unwrap();
    stdout.read_exact(&mut line).unwrap();
    assert_eq!(line, LINE.as_bytes());
}

#[test]
fn ctrl_c_stops_the_vm_and_cleans_up() {
    let corner = Corner::new();
    let command = &mut run(&corner, &[]);
    let before = corner.picture();
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        greeted(&mut child);
        rustix::process::kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(ended(&mut child).code(), Some(status));
        assert_eq!(corner.picture(), before);
    }
}

#[test]
fn a_guest_that_never_comes_up_is_ended_at_the_timeout_with_124() {
    let corner = Corner::new();
    // It has no agent: nobody answers.
    let mut command = run(&corner, &["--timeout", "2", "--", "true"]);
    let before = corner.picture();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    assert_eq!(ended(&mut command.spawn().unwrap()).code(), Some(124));
    assert_eq!(corner.picture(), before);
}

#[test]
fn a_detached_vm_whose_command_never_begins_is_none_and_leaves_nothing() {
    let corner = Corner::new();
    let words = |more: &[&'static str]| [&["--detach"], more, &["--", "true"]].concat();
    // It has no agent: nobody answers.
    let mut late = run(&corner, &words(&["--timeout", "2"]));
    let mut left = run(&corner, &words(&[]));
    let before = corner.picture();
    late.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = late.spawn().unwrap();
    assert_eq!(ended(&mut child).code(), Some(124));
    let mut said = String::new();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(said, "", "no id of a VM that is none");
    assert_eq!(corner.picture(), before);

    left.stdin(Stdio::null()).stdout(Stdio::null());
    for (signal, status) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let mut child = left.spawn().unwrap();
        // From then on its agent is waited for.
        eventually("the guest runs", || {
            let vms = corner.smartvm().list().unwrap();
            let console = vms.first().map(|(id, _)| {
                let run_dir = corner.file("run").join(id.as_str());
                std::fs::read(run_dir.join("console.log")).unwrap_or_default()
            });
            let line = LINE.trim_end().as_bytes();
            console.is_some_and(|it| it.windows(line.len()).any(|part| part == line))
        });
        rustix::process::kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(ended(&mut child).code(), status);
        // Once there is nobody but its keeper to end it.
        eventually("all is given back", || corner.picture() == before);
    }
}

#[test]
fn without_a_command_the_console_is_attached_until_its_key_detaches() {
    let corner = Corner::new();
    let mut command = run(&corner, &[]);
    let before = corner.picture();
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let keyboard = openpt(flags).unwrap();
    grantpt(&keyboard).unwrap();
    unlockpt(&keyboard).unwrap();
    let name = ptsname(&keyboard, Vec::new()).unwrap();
    let terminal = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let settings = tcgetattr(&terminal).unwrap();
    command
        .stdin(OwnedFd::from(terminal.try_clone().unwrap()))
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    greeted(&mut child);
    let raw = tcgetattr(&terminal).unwrap();
    assert_ne!(
        raw.local_modes, settings.local_modes,
        "keys go to the guest"
    );
    // Ctrl-C is the guest's; Ctrl-] is not.
    let mut keyboard = File::from(keyboard);
    keyboard.write_all(b"typed\x03").unwrap();
    keyboard.write_all(b"\x1d").unwrap();
    assert_eq!(ended(&mut child).code(), Some(0));
    let after = tcgetattr(&terminal).unwrap();
    assert_eq!(
        after.local_modes, settings.local_modes,
        "the terminal is as before"
    );
    assert_eq!(corner.picture(), before);
}

#[test]
fn an_image_that_is_not_whole_is_refused_and_nothing_started() {
    let corner = Corner::new();
    let image = corner.file("image");
    std::fs::create_dir(&image).unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 1, "bundleId": "test", "arch": "x86_64",
        "firecrackerVersion": "1.12.1", "rootfsType": "ext4",
        "kernel": { "path": "vmlinux", "sizeBytes": 157 },
        "rootfs": { "path": "root", "sha256": "0".repeat(64) },
    });
    std::fs::copy(corner.file("tiny"), image.join("vmlinux")).unwrap();
    std::fs::write(image.join("root"), "a root").unwrap();
    std::fs::write(image.join("manifest.json"), manifest.to_string()).unwrap();
    let before = corner.picture();
    let refused = |says: &str| {
        let mut run = corner.command();
        run.args(["run", "--assume-kvm", "--image"]).arg(&image);
        let told = run.args(["--", "true"]).assert().code(125);
        let told = String::from_utf8(told.get_output().stderr.clone()).unwrap();
        assert!(told.contains(says), "{says} is missing in {told}");
        let mut verify = corner.command();
        verify.args(["image", "verify"]).arg(&image);
        verify.assert().code(1);
        assert_eq!(corner.picture(), before, "{says}");
    };
    refused("root");
    // Cut short.
    let kernel = File::options().write(true).open(image.join("vmlinux"));
    kernel.unwrap().set_len(100).unwrap();
    refused("100");
}
