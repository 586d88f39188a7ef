//! Agents that are late, absent, from elsewhere, or broken.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::ErrorKind;
use crate::agent::Connection;

const SOON: Duration = Duration::from_secs(60);

/// A host's connection to an agent that says exactly this, then hangs up.
async fn greeted_with(bytes: &[u8]) -> crate::Result<Connection> {
    let (host, mut agent) = tokio::io::duplex(1 << 16);
    agent.write_all(bytes).await.expect("room");
    drop(agent);
    Connection::over(host, SOON).await
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_le_bytes();
    [&length[..], &[kind], payload].concat()
}

const GREETING: &[u8] = br#"{"versions":[3],"agent":"0","bootId":"b"}"#;

/// A running command of an agent that is the test itself.
async fn scripted() -> (crate::agent::Session, DuplexStream) {
    let (host, mut agent) = tokio::io::duplex(1 << 16);
    agent.write_all(&frame(1, GREETING)).await.expect("room");
    agent.write_all(&frame(3, b"{}")).await.expect("room");
    let connection = Connection::over(host, SOON).await.expect("greeted");
    let command = Command::new("x").stdin(true);
    let session = connection.exec(&command, SOON).await.expect("started");
    (session, agent)
}

#[tokio::test]
async fn an_agent_without_a_common_version_is_refused() {
    let greeting = br#"{"versions":[7,6],"agent":"9.9","bootId":"b"}"#;
    let error = greeted_with(&frame(1, greeting))
        .await
        .expect_err("too new");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("[7, 6]"), "{error}");
    assert!(error.way_out().is_some());
}

#[tokio::test]
async fn what_is_no_greeting_is_corrupt_and_silence_is_a_guest_that_left() {
    for bytes in [
        &frame(8, b"{\"code\":0}")[..],
        &frame(1, b"{}"),
        &frame(99, b""),
        b"HTTP/1.1 200 OK\r\n\r\n",
        &[0xff; 64],
        &frame(1, GREETING)[..10],
    ] {
        let error = greeted_with(bytes).await.expect_err("no greeting");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    let error = greeted_with(b"").await.expect_err("nothing");
    assert_eq!(error.kind(), ErrorKind::Guest, "{error}");
    let busy = frame(2, br#"{"code":"busy","message":"full"}"#);
    let error = greeted_with(&busy).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Guest, "{error}");
    assert!(error.to_string().ends_with("full"), "{error}");
}

#[tokio::test]
async fn an_agent_that_breaks_the_rules_while_a_command_runs_is_an_error() {
    let over_window = frame(7, &(256 * 1024 + 1u32).to_le_bytes());
    for bytes in [
        frame(99, b""),
        frame(7, b"123"),
        frame(8, b"{}"),
        frame(1, GREETING),
        frame(129, b"data"),
        over_window,
        vec![0xff; 5],
        frame(5, b"cut off")[..8].to_vec(),
    ] {
        let (mut session, mut agent) = scripted().await;
        agent.write_all(&bytes).await.expect("room");
        drop(agent);
        let error = session.next_event().await.expect_err("against the rules");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{bytes:?}: {error}");
        let error = session.write_stdin(b"x").await.expect_err("it is over");
        assert_eq!(error.kind(), ErrorKind::WrongState);
        let error = session.next_event().await.expect_err("it is over");
        assert_eq!(error.kind(), ErrorKind::WrongState);
    }
}

#[tokio::test]
async fn a_guest_that_ends_takes_the_command_with_it_as_an_error() {
    let (mut session, agent) = scripted().await;
    drop(agent);
    let error = session.next_event().await.expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::Guest);
    assert!(error.way_out().is_some());
}

#[tokio::test]
async fn stdin_waits_for_credit_and_control_does_not() {
    let (mut session, mut agent) = scripted().await;
    // The request, whose length the first two bytes tell.
    let mut request = [0; 5];
    agent.read_exact(&mut request).await.expect("a request");
    let mut rest = vec![0; usize::from(request[0])];
    agent.read_exact(&mut rest).await.expect("all of it");

    let control = session.control();
    let (input, _events) = session.parts();
    tokio::select! {
        biased;
        sent = input.write(b"x") => panic!("without credit: {sent:?}"),
        sent = control.signal(2) => sent.expect("sent"),
    }
    let mut sent = [0; 9];
    agent.read_exact(&mut sent).await.expect("a frame");
    assert_eq!(sent, [4, 0, 0, 0, 68, 2, 0, 0, 0]);
    let none = control.signal(0).await.expect_err("no such signal");
    assert_eq!(none.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_guest_that_comes_up_late_is_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("vsock.sock");
    let agent = Agent::over_vsock(&path);
    let boot = async {
        // First no socket at all, then one whose guest refuses, then an agent.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let listener = UnixListener::bind(&path).expect("a socket");
        std::thread::spawn(move || {
            for _ in 0..3 {
                drop(listener.accept().expect("a connection"));
            }
            let (stream, _) = listener.accept().expect("a connection");
            answer(stream);
        });
        std::future::pending::<()>().await;
    };
    let greeting = tokio::select! {
        greeting = agent.wait_ready(SOON) => greeting.expect("ready"),
        () = boot => unreachable!("it never ends by itself"),
    };
    assert_eq!(greeting.versions, [4, 3]);
}

#[tokio::test]
async fn a_guest_that_never_comes_up_is_a_timeout_with_the_last_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let agent = Agent::over_vsock(directory.path().join("vsock.sock"));
    let error = agent.wait_ready(Duration::from_millis(30)).await;
    let error = error.expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("vsock.sock"), "{error}");
    assert!(error.way_out().is_some());
}

#[tokio::test]
async fn an_agent_that_never_answers_is_a_timeout() {
    let (host, _agent) = tokio::io::duplex(1024);
    let error = Connection::over(host, Duration::from_millis(20)).await;
    assert_eq!(error.expect_err("silent").kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn the_clocks_are_told_and_an_ordinary_agent_does_not_shut_down() {
    let guest = FakeGuest::new();
    let pong = guest.agent().ping().await.expect("an answer");
    assert!(pong.unix_nanos > pong.uptime_nanos && pong.uptime_nanos > 0);
    let error = guest.agent().shutdown().await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Guest);
}

#[tokio::test]
async fn a_request_too_large_for_the_protocol_is_invalid() {
    let guest = FakeGuest::new();
    let command = Command::new("true").arg("x".repeat(1 << 20));
    let error = guest.agent().exec(&command).await.expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.way_out().is_some());
}

#[tokio::test]
async fn an_agent_of_the_version_before_is_too_old_for_a_main_command() {
    let connection = greeted_with(&frame(1, GREETING)).await.expect("greeted");
    let error = connection.run_main(&Command::new("httpd"), SOON).await;
    let error = error.expect_err("too old");
    assert_eq!(error.kind(), ErrorKind::Guest);
    let text = error.to_string();
    assert!(text.contains("httpd") && text.contains("too old"), "{text}");
    assert!(error.way_out().is_some());
}

#[tokio::test]
async fn a_main_command_is_asked_for_in_the_documented_form_and_has_no_streams() {
    let newest = br#"{"versions":[4],"agent":"0","bootId":"b"}"#;
    let (host, mut agent) = tokio::io::duplex(1 << 16);
    agent.write_all(&frame(1, newest)).await.expect("room");
    let accepted = frame(3, br#"{"pid":7}"#);
    agent.write_all(&accepted).await.expect("room");
    let connection = Connection::over(host, SOON).await.expect("greeted");
    let command = Command::new("httpd").arg("-f").env("A", "b").user("1000");
    let command = command.current_dir("/srv");
    let main = connection.run_main(&command, SOON).await.expect("begun");
    assert_eq!(main.pid(), Some(7));
    let request = concat!(
        r#"{"version":4,"operation":{"run-main":{"argv":["httpd","-f"],"#,
        r#""env":[["A","b"]],"cwd":"/srv","user":"1000"}}}"#
    );
    let mut sent = vec![0; 5 + request.len()];
    agent.read_exact(&mut sent).await.expect("a request");
    assert_eq!(sent, frame(65, request.as_bytes()));

    for command in [
        Command::new("sh").stdin(true),
        Command::new("sh").terminal(24, 80, "xterm"),
    ] {
        let connection = greeted_with(&frame(1, newest)).await.expect("greeted");
        let error = connection.run_main(&command, SOON).await;
        assert_eq!(error.expect_err("streams").kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn an_ordinary_agent_runs_no_main_command() {
    let guest = FakeGuest::new();
    let error = guest.agent().run_main(&Command::new("true")).await;
    assert_eq!(error.expect_err("refused").kind(), ErrorKind::Guest);
}
