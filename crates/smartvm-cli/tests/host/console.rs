//! The console, at a terminal.

use smartvm::ErrorKind;
use smartvm_emulate::tiny_guest::LINE;

use crate::pty::Pty;
use crate::support::Corner;

#[test]
fn a_console_is_left_by_its_detach_keys_which_are_shown_and_its_vm_runs_on() {
    let corner = Corner::new();
    let mut spec = corner.small();
    spec.id = Some("console".into());
    let spec = corner.spec_file(&spec);
    let mut start = corner.command();
    start
        .args(["run", "--assume-kvm", "--detach", "-f"])
        .arg(&spec);
    start.assert().success();
    let mut pty = Pty::open(24, 80);
    let before = pty.modes();
    for (flags, shown, leaves) in [
        (&[][..], "ctrl-] detaches", "ab\x1d"),
        (
            &["--detach-keys", "ctrl-p,q"],
            "ctrl-p,q detaches",
            "\x1d\x10x\x10q",
        ),
    ] {
        let mut console = corner.command();
        console.args(["console", "console"]).args(flags);
        let running = pty.run(&console);
        pty.hear(shown);
        // Then its standard input is listened to.
        pty.hear(LINE.trim_end());
        assert_ne!(pty.modes(), before);
        pty.say(leaves);
        assert_eq!(running.wait(), Some(0));
        assert_eq!(pty.modes(), before, "the terminal is as it was");
        let vm = corner.smartvm().get(&"console".parse().unwrap()).unwrap();
        assert_eq!(vm.state().unwrap().state.to_string(), "running");
    }
    // Its VM's end ends it as well.
    let running = pty.run(corner.command().args(["console", "console"]));
    pty.hear(LINE.trim_end());
    let mut stop = corner.command();
    stop.args(["stop", "--force", "console"]).assert().success();
    assert_eq!(running.wait(), Some(0));
    let gone = corner.smartvm().get(&"console".parse().unwrap());
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn detach_keys_that_nobody_could_type_are_wrong_usage() {
    let corner = Corner::new();
    for keys in ["", "ctrl-", "ctrl-1", "abc"] {
        corner
            .command()
            .args(["console", "--detach-keys", keys, "x"])
            .assert()
            .code(2);
    }
}
