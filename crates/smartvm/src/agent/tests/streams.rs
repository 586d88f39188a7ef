//! Stdin, stdout and stderr in earnest amounts.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::*;
use crate::ErrorKind;
use crate::agent::{Event, ExitStatus};

const WINDOW: usize = smartvm_agent::protocol::STDIN_WINDOW as usize;

#[tokio::test]
async fn ten_mebibytes_a_separate_stderr_and_status_37_come_through() {
    let guest = FakeGuest::new();
    let expected = noise(10 << 20);
    std::fs::write(guest.path("data"), &expected).expect("a file");
    let command = shell("cat \"$0\"; echo trouble >&2; exit 37")
        .arg(guest.path("data").to_str().expect("text"));
    let session = guest.agent().exec(&command).await.expect("started");
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let status = session
        .run_with(tokio::io::empty(), &mut stdout, &mut stderr)
        .await
        .expect("ended");
    assert!(stdout == expected, "{} bytes", stdout.len());
    assert_eq!(stderr, b"trouble\n");
    assert_eq!(status, ExitStatus::Code(37));
}

#[tokio::test]
async fn five_mebibytes_of_binary_stdin_come_back() {
    let guest = FakeGuest::new();
    let input = noise(5 << 20);
    let session = guest.agent().exec(&Command::new("cat").stdin(true)).await;
    let mut stdout = Vec::new();
    let status = session
        .expect("started")
        .run_with(&input[..], &mut stdout, tokio::io::sink())
        .await
        .expect("ended");
    assert!(stdout == input, "{} bytes", stdout.len());
    assert_eq!(status, ExitStatus::Code(0));
}

#[tokio::test]
async fn a_signal_passes_stdin_that_nobody_reads() {
    let guest = FakeGuest::new();
    let command = Command::new("sleep").arg("1000").stdin(true);
    let mut session = guest.agent().exec(&command).await.expect("started");
    let control = session.control();
    let (input, mut events) = session.parts();
    let fill = async {
        let block = vec![0; WINDOW];
        let mut sent = 0;
        // More than the window can only be sent once the command has read some.
        loop {
            let piece = input.write(&block).await.expect("room or the end");
            sent += piece;
            if sent >= WINDOW {
                control.signal(15).await.expect("sent");
            }
        }
    };
    let end = async {
        loop {
            if let Event::Exit(status) = events.next().await.expect("an event") {
                return status;
            }
        }
    };
    let status = tokio::select! {
        biased;
        status = end => status,
        () = fill => unreachable!("it never ends by itself"),
    };
    assert_eq!(status, ExitStatus::Signal(15));
}

#[tokio::test]
async fn no_more_stdin_leaves_than_the_agent_grants() {
    let guest = FakeGuest::new();
    let command = Command::new("sleep").arg("1000").stdin(true);
    let mut session = guest.agent().exec(&command).await.expect("started");
    let (input, mut events) = session.parts();
    let block = vec![0; WINDOW];
    let mut sent = 0;
    loop {
        tokio::select! {
            piece = input.write(&block) => sent += piece.expect("room"),
            event = events.next() => panic!("nothing is expected: {event:?}"),
            // All is in the pipe and in the agent's hands; nobody reads any of it.
            () = tokio::time::sleep(Duration::from_millis(300)) => break,
        }
    }
    // The window, and what fits into the command's pipe beyond it.
    assert!(
        (WINDOW..WINDOW + 256 * 1024).contains(&sent),
        "{sent} bytes"
    );
}

#[tokio::test]
async fn a_command_that_closes_its_stdin_does_not_stop_the_host() {
    let guest = FakeGuest::new();
    let input = noise(2 << 20);
    let command = shell("exec 0<&-; echo closed; exit 3").stdin(true);
    let session = guest.agent().exec(&command).await.expect("started");
    let output = session.output(&input, 1024).await.expect("ended");
    assert_eq!(output.stdout, b"closed\n");
    assert_eq!(output.status, ExitStatus::Code(3));
}

#[tokio::test]
async fn output_waits_for_a_slow_host() {
    const LENGTH: usize = 2 << 20;
    // The host stops when so much is left. In some of these cases the command has ended, with
    // the last of its output still in its pipe since there is no room further on; how much
    // that takes depends on the size of the socket's buffers.
    let runs = (200..1000).step_by(25).map(|kibibytes| {
        tokio::spawn(async move {
            let guest = FakeGuest::new();
            let command = shell("exec head -c \"$0\" /dev/zero").arg(LENGTH.to_string());
            let mut session = guest.agent().exec(&command).await.expect("started");
            let (mut seen, mut waited) = (0, false);
            while let Event::Stdout(bytes) = session.next_event().await.expect("an event") {
                seen += bytes.len();
                if seen + (kibibytes << 10) > LENGTH && !waited {
                    waited = true;
                    // Longer than the agent waits for a command that is only silent.
                    tokio::time::sleep(Duration::from_millis(2500)).await;
                }
            }
            assert_eq!(seen, LENGTH, "stopped with {kibibytes} KiB left");
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.expect("all of it");
    }
}

#[tokio::test]
async fn output_of_more_than_the_limit_ends_the_command() {
    let guest = FakeGuest::new();
    let session = guest.agent().exec(&Command::new("yes")).await;
    let session = session.expect("started");
    let pid = session.pid().expect("a process id");
    let error = session.output(b"", 100_000).await.expect_err("too much");
    assert_eq!(error.kind(), ErrorKind::Guest);
    wait_for_end(pid).await;
}

#[tokio::test]
async fn a_sink_that_fails_ends_the_command() {
    let guest = FakeGuest::new();
    let session = guest.agent().exec(&Command::new("yes")).await;
    let session = session.expect("started");
    let pid = session.pid().expect("a process id");
    let result = session
        .run_with(tokio::io::empty(), Full, tokio::io::sink())
        .await;
    assert_eq!(result.expect_err("no room").kind(), ErrorKind::Io);
    wait_for_end(pid).await;
}

/// A file on a full disk.
struct Full;

impl tokio::io::AsyncWrite for Full {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Err(std::io::ErrorKind::StorageFull.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_the_command_as_a_broken_pipe_would() {
    let guest = FakeGuest::new();
    let session = guest.agent().exec(&Command::new("yes")).await;
    let session = session.expect("started");
    let pid = session.pid().expect("a process id");
    let (stdout, reader) = tokio::io::duplex(1024);
    drop(reader);
    let status = session
        .run_with(tokio::io::empty(), stdout, tokio::io::sink())
        .await
        .expect("no failure of ours");
    assert_eq!(status, ExitStatus::Signal(13));
    assert_eq!(status.code_for_shell(), 141);
    wait_for_end(pid).await;
}

#[tokio::test]
async fn events_dropped_half_way_lose_nothing() {
    let guest = FakeGuest::new();
    let expected = noise(1 << 20);
    let command = Command::new("cat").stdin(true);
    let mut session = guest.agent().exec(&command).await.expect("started");
    let (input, mut events) = session.parts();
    let feed = async {
        let mut rest = expected.as_slice();
        while !rest.is_empty() {
            rest = &rest[input.write(rest).await.expect("sent")..];
        }
    };
    let mut feed = std::pin::pin!(feed);
    let (mut fed, mut seen) = (false, Vec::new());
    while seen.len() < expected.len() {
        tokio::select! {
            () = &mut feed, if !fed => fed = true,
            () = tokio::task::yield_now() => {}
            event = events.next() => match event.expect("an event") {
                Event::Stdout(bytes) => seen.extend(bytes),
                other => panic!("{other:?}"),
            },
        }
    }
    assert!(seen == expected);
}

#[tokio::test]
async fn writes_dropped_half_way_leave_the_session_sound() {
    let guest = FakeGuest::new();
    let command = shell("wc -c").stdin(true);
    let mut session = guest.agent().exec(&command).await.expect("started");
    let (input, mut events) = session.parts();
    let block = vec![7; WINDOW];
    let mut sent = 0;
    // Most of these are dropped while they wait: for credit, or for the socket.
    while sent < 4 * WINDOW {
        tokio::select! {
            biased;
            piece = input.write(&block) => sent += piece.expect("sent"),
            event = events.next() => panic!("nothing is expected: {event:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    input.close().await.expect("ended");
    let mut counted = String::new();
    loop {
        match events.next().await.expect("an event") {
            Event::Stdout(bytes) => counted.push_str(std::str::from_utf8(&bytes).expect("text")),
            Event::Stderr(bytes) => panic!("{bytes:?}"),
            Event::Exit(status) => break assert_eq!(status, ExitStatus::Code(0)),
        }
    }
    let counted: usize = counted.trim().parse().expect("a number");
    assert!(counted >= sent, "{counted} of at least {sent}");
}
