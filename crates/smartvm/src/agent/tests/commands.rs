//! Commands: what they get, how they start, how they end.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::ErrorKind;
use crate::agent::{ErrorCode, Event, ExitStatus, Output, refusal, status_for_shell};

async fn run(guest: &FakeGuest, command: Command) -> Output {
    let session = guest.agent().exec(&command).await.expect("started");
    session.output(b"", 1 << 20).await.expect("ended")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn arguments_environment_and_directory_arrive_as_given() {
    let guest = FakeGuest::new();
    let directory = guest.directory.path().canonicalize().expect("a path");
    let command = shell(r#"printf '%s|' "$0" "$@" "$PWD" "$SMARTVM" "$PATH""#)
        .args(["a b", "", "$HOME", "ü\n"])
        .env("SMARTVM", "x=y z")
        .current_dir(&directory);
    let output = run(&guest, command).await;
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expected = format!("a b||$HOME|ü\n|{}|x=y z|{path}|", directory.display());
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(output.status, ExitStatus::Code(0));
}

#[tokio::test]
async fn nothing_of_the_agents_own_environment_leaks() {
    let guest = FakeGuest::new();
    let output = run(&guest, Command::new("env")).await;
    let mut names: Vec<&str> = text(&output.stdout)
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    names.retain(|name| !["PATH", "HOME", "USER", "LOGNAME", "SHELL"].contains(name));
    assert_eq!(names, Vec::<&str>::new());
}

#[tokio::test]
async fn a_program_is_looked_for_in_the_commands_own_path() {
    let guest = FakeGuest::new();
    let program = guest.path("hello");
    std::fs::write(&program, "#!/bin/sh\necho hello\n").expect("a program");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("executable");
    let path = guest.directory.path().to_str().expect("text");
    let command = Command::new("hello").env("PATH", format!("/nonexistent:{path}"));
    assert_eq!(run(&guest, command).await.stdout, b"hello\n");
    let command = Command::new("./hello").current_dir(path);
    assert_eq!(run(&guest, command).await.stdout, b"hello\n");
}

#[tokio::test]
async fn a_shell_tells_the_same_status_as_for_its_own_commands() {
    let guest = FakeGuest::new();
    let plain = guest.path("plain");
    std::fs::write(&plain, "text").expect("a file");
    let orphan = guest.path("orphan");
    std::fs::write(&orphan, "#!/nonexistent/interpreter\n").expect("a file");
    std::fs::set_permissions(&orphan, PermissionsExt::from_mode(0o755)).expect("executable");
    let path = |name: &str| guest.path(name).to_str().expect("text").to_owned();
    let table = [
        (
            "no-such-command".to_owned(),
            127,
            ErrorCode::CommandNotFound,
        ),
        (path("missing"), 127, ErrorCode::CommandNotFound),
        (path("orphan"), 127, ErrorCode::CommandNotFound),
        (path("plain"), 126, ErrorCode::NotExecutable),
        (path(""), 126, ErrorCode::NotExecutable),
    ];
    for (program, status, code) in table {
        let error = guest.agent().exec(&Command::new(&program)).await;
        let error = error.expect_err("can't be started");
        assert_eq!(error.kind(), ErrorKind::Guest, "{error}");
        assert_eq!(status_for_shell(&error), Some(status), "{error}");
        assert_eq!(refusal(&error).map(|refusal| refusal.code), Some(code));
        assert!(error.to_string().contains(&program), "{error}");
    }
}

#[tokio::test]
async fn a_missing_directory_or_user_is_told_as_such() {
    let guest = FakeGuest::new();
    std::fs::write(guest.path("file"), "").expect("a file");
    let table = [
        (
            Command::new("true").current_dir("/no/such/directory"),
            ErrorCode::NoSuchDirectory,
        ),
        (
            Command::new("true").current_dir(guest.path("file")),
            ErrorCode::NoSuchDirectory,
        ),
        (
            Command::new("true").current_dir("relative"),
            ErrorCode::NoSuchDirectory,
        ),
        (
            Command::new("true").user("no-such-user"),
            ErrorCode::NoSuchUser,
        ),
        (
            Command::new("true").user("root:no-such-group"),
            ErrorCode::NoSuchUser,
        ),
        (
            Command::from_argv(Vec::<String>::new()),
            ErrorCode::BadRequest,
        ),
        (Command::new("true").env("A=B", "C"), ErrorCode::BadRequest),
    ];
    for (command, code) in table {
        let error = guest.agent().exec(&command).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Guest, "{error}");
        assert_eq!(refusal(&error).map(|refusal| refusal.code), Some(code));
        assert_eq!(status_for_shell(&error), None, "{error}");
    }
}

#[tokio::test]
async fn another_user_has_that_users_ids_alone() {
    if !rustix::process::geteuid().is_root() {
        // Only root can become others; what the agent is in a guest.
        return;
    }
    let guest = FakeGuest::new();
    let output = run(&guest, Command::new("id").user("12345:23456")).await;
    let ids = text(&output.stdout);
    assert!(ids.starts_with("uid=12345 gid=23456"), "{ids}");
    assert!(!ids.contains("(root)"), "{ids}");
}

#[tokio::test]
async fn the_end_is_told_as_it_was() {
    let guest = FakeGuest::new();
    for (script, status) in [
        ("exit 0", ExitStatus::Code(0)),
        ("exit 37", ExitStatus::Code(37)),
        ("exit 255", ExitStatus::Code(255)),
        ("kill -KILL $$", ExitStatus::Signal(9)),
        ("kill -TERM $$", ExitStatus::Signal(15)),
    ] {
        assert_eq!(run(&guest, shell(script)).await.status, status, "{script}");
    }
}

#[tokio::test]
async fn fifty_at_once_do_not_mix() {
    let guest = FakeGuest::new();
    let runs = (0..50).map(|number| {
        let agent = guest.agent();
        tokio::spawn(async move {
            let command = shell("cat; echo $0 >&2; exit $0").arg(number.to_string());
            let session = agent.exec(&command.stdin(true)).await.expect("started");
            let input = vec![b'a' + (number % 26); 100_000];
            let output = session.output(&input, 1 << 20).await.expect("ended");
            assert!(output.stdout == input, "command {number}");
            assert_eq!(output.stderr, format!("{number}\n").into_bytes());
            assert_eq!(output.status, ExitStatus::Code(number.into()));
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.expect("sound");
    }
}

#[tokio::test]
async fn dropping_a_session_ends_its_command() {
    let guest = FakeGuest::new();
    let sleep = Command::new("sleep").arg("1000");
    let session = guest.agent().exec(&sleep).await.expect("started");
    let pid = session.pid().expect("a process id");
    let control = session.control();
    drop(session);
    wait_for_end(pid).await;
    let late = control.signal(15).await.expect_err("the session is over");
    assert_eq!(late.kind(), ErrorKind::WrongState);
}

#[tokio::test]
async fn what_a_command_leaves_behind_does_not_hold_its_session() {
    let guest = FakeGuest::new();
    let output = run(&guest, shell("sleep 1000 & echo $!; exit 5")).await;
    assert_eq!(output.status, ExitStatus::Code(5));
    let left: i32 = text(&output.stdout).trim().parse().expect("a number");
    let pid = rustix::process::Pid::from_raw(left).expect("a process id");
    // It is meant to live on, as a service started by a command does.
    let killed = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    killed.expect("still there");
}

#[tokio::test]
async fn a_terminal_has_its_size_and_follows_changes() {
    let guest = FakeGuest::new();
    let script = "stty -echo; stty size; test -t 0 && test -t 2 && echo $TERM >&2; \
                  read line; stty size; read line || echo end";
    let command = shell(script).terminal(33, 77, "vt100").stdin(true);
    let mut session = guest.agent().exec(&command).await.expect("started");
    let mut seen = String::new();
    let mut resized = false;
    let status = loop {
        match session.next_event().await.expect("an event") {
            Event::Stdout(bytes) => seen.push_str(text(&bytes)),
            Event::Stderr(bytes) => panic!("a terminal has one stream: {bytes:?}"),
            Event::Exit(status) => break status,
        }
        if !resized && seen.contains("vt100") {
            resized = true;
            let control = session.control();
            control.resize(44, 88).await.expect("resized");
            session.write_stdin(b"\n").await.expect("sent");
            session.close_stdin().await.expect("ended");
        }
    };
    assert_eq!(seen, "33 77\r\nvt100\r\n44 88\r\nend\r\n");
    assert_eq!(status, ExitStatus::Code(0));
}

#[tokio::test]
async fn a_command_begins_with_no_signal_blocked_whatever_the_agent_blocks() {
    // Threads inherit the mask, and so would the command: the fake guest's are made below.
    let guest = std::thread::spawn(|| {
        // SAFETY: the set is initialised by sigemptyset, and only this thread's mask changes.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigaddset(&mut set, libc::SIGCHLD);
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        }
        FakeGuest::new()
    });
    let guest = guest.join().expect("a guest");
    let asked = Command::new("grep").arg("SigBlk").arg("/proc/self/status");
    let output = run(&guest, asked).await;
    assert_eq!(text(&output.stdout), "SigBlk:\t0000000000000000\n");
}
