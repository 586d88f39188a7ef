//! Commands with a terminal of their own.

use std::time::Duration;

use crate::pty::Pty;
use crate::support::{Vm, smartvm};

#[test]
fn a_command_has_a_terminal_of_the_users_size_which_follows_it() {
    let vm = Vm::start("terminal");
    let mut pty = Pty::open(30, 100);
    let before = pty.modes();
    let mut exec = smartvm();
    exec.args(["exec", "-it", &vm.id, "--", "sh"]);
    let running = pty.run(&exec);
    pty.hear("# ");
    pty.say("tty; stty size; echo term is $TERM\r");
    pty.hear("/dev/pts/");
    pty.hear("30 100");
    pty.hear("term is dumb");
    pty.resize(41, 120);
    hear_after(&mut pty, "41 120", "stty size\r");
    assert_ne!(pty.modes(), before, "what is typed goes on byte by byte");
    // Ctrl-C is for the command in the guest.
    pty.say("sleep 1000; echo never\r");
    pty.hear("echo never");
    hear_after(&mut pty, "still-here", "\x03echo still-''here\r");
    pty.say("exit 7\r");
    assert_eq!(running.wait(), Some(7));
    assert_eq!(pty.modes(), before, "the terminal is as it was");
}

/// Types this until that is shown: a signal takes its time to the guest.
fn hear_after(pty: &mut Pty, shown: &str, typed: &str) {
    for _ in 0..30 {
        pty.say(typed);
        if pty.hears(shown, Duration::from_secs(2)) {
            return;
        }
    }
    panic!("{shown:?} never came of {typed:?}");
}
