//! The service's sessions, driven frame by frame as a host, good or bad, would.

#![allow(clippy::expect_used)] // a test's helpers fail the test

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use smartvm_agent::protocol::{
    Accepted, AddEntropy, Decoder, ErrorCode, Exec, Frame, Greeting, Kind, Operation, Refusal,
    Request, STDIN_WINDOW, encode,
};
use smartvm_agent::service::{Guest, serve, serve_refusal};

/// The host's end of one session.
struct Host {
    stream: UnixStream,
    decoder: Decoder,
    agent: Option<JoinHandle<std::io::Result<()>>>,
}

impl Host {
    fn new(guest: Guest) -> Self {
        let (host, agent) = UnixStream::pair().expect("a pair of sockets");
        host.set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        let agent = std::thread::spawn(move || serve(OwnedFd::from(agent), &guest));
        Self {
            stream: host,
            decoder: Decoder::new(),
            agent: Some(agent),
        }
    }

    /// A session whose greeting has come.
    fn greeted() -> Self {
        let mut host = Self::new(Guest::ordinary());
        let frame = host.receive().expect("a greeting");
        Greeting::decode(&frame).expect("a greeting");
        host
    }

    fn started(argv: &[&str], stdin: bool) -> (Self, i32) {
        let mut host = Self::greeted();
        host.request(Operation::Exec(Exec {
            argv: argv.iter().map(|&argument| argument.to_owned()).collect(),
            stdin,
            ..Exec::default()
        }));
        let frame = host.receive().expect("an answer");
        let accepted = Accepted::decode(&frame).expect("started");
        (host, accepted.pid.expect("a process id"))
    }

    fn raw(&mut self, bytes: &[u8]) {
        // The agent may have closed the connection already: that is for the test to see.
        let _ = self.stream.write_all(bytes);
    }

    fn send(&mut self, kind: Kind, payload: &[u8]) {
        let mut bytes = Vec::new();
        encode(kind, payload, &mut bytes).expect("encoded");
        self.raw(&bytes);
    }

    fn request(&mut self, operation: Operation) {
        let mut bytes = Vec::new();
        let request = Request {
            version: 3,
            operation,
        };
        request.encode(&mut bytes).expect("encoded");
        self.raw(&bytes);
    }

    /// The next frame; None at the end of the connection.
    fn receive(&mut self) -> Option<Frame> {
        let mut chunk = vec![0; 65536];
        loop {
            if let Some(frame) = self.decoder.next_frame().expect("sound frames") {
                return Some(frame);
            }
            match self.stream.read(&mut chunk).expect("an answer in time") {
                0 => return None,
                length => self.decoder.feed(&chunk[..length]),
            }
        }
    }

    /// The refusal that comes next, but for output and credit.
    fn refusal(&mut self) -> Refusal {
        loop {
            let frame = self.receive().expect("a refusal");
            if !matches!(frame.kind, Kind::Stdout | Kind::Stderr | Kind::Credit) {
                return Refusal::decode(&frame).expect("a refusal");
            }
        }
    }

    /// Says that nothing more will come, as a host that hangs up does, and sees that nothing
    /// follows.
    fn expect_end(&mut self) {
        // The agent may have closed its end already.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        assert_eq!(self.receive(), None);
    }

    /// Hangs up, and waits for the agent's end of the session, which must not panic.
    fn end(mut self) -> std::io::Result<()> {
        let agent = self.agent.take().expect("a session");
        drop(self);
        agent.join().expect("no panic")
    }
}

/// Waits until no process (but perhaps its remains) has this number.
fn wait_for_end(pid: i32) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            return;
        };
        if stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim().starts_with('Z'))
        {
            return;
        }
        assert!(Instant::now() < end, "process {pid} is still there: {stat}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_greeting_comes_first_and_says_which_versions() {
    let mut host = Host::new(Guest::ordinary());
    let greeting = Greeting::decode(&host.receive().expect("a frame")).expect("a greeting");
    assert_eq!(greeting.versions, [4, 3]);
    assert!(!greeting.agent.is_empty() && !greeting.boot_id.is_empty());
    host.end().expect("a host that leaves is no failure");
}

#[test]
fn randomness_that_is_none_is_refused_and_some_is_taken() {
    for hex in ["", "0", "zz", &"00".repeat(513)] {
        let mut host = Host::greeted();
        host.request(Operation::AddEntropy(AddEntropy { hex: hex.into() }));
        assert_eq!(host.refusal().code, ErrorCode::BadRequest, "{hex:?}");
    }
    let mut host = Host::greeted();
    host.request(Operation::AddEntropy(AddEntropy::new(&[7; 64])));
    let frame = host.receive().expect("an answer");
    // Only the guest's root may: this test may run as anybody.
    if frame.kind != Kind::Done {
        let refusal = Refusal::decode(&frame).expect("a refusal");
        assert_eq!(refusal.code, ErrorCode::PermissionDenied);
    }
}

#[test]
fn another_version_is_refused_whatever_it_asks_for() {
    for request in [
        &br#"{"version":5,"operation":{"exec":{"argv":["true"]}}}"#[..],
        br#"{"version":99,"unheard":{"of":[]}}"#,
        br#"{"version":0}"#,
    ] {
        let mut host = Host::greeted();
        host.send(Kind::Request, request);
        assert_eq!(host.refusal().code, ErrorCode::UnsupportedVersion);
        host.expect_end();
    }
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    for request in [
        &b""[..],
        b"{",
        b"\xff\xff",
        b"[3]",
        br#"{"version":3}"#,
        br#"{"version":"1","operation":"ping"}"#,
        br#"{"version":3,"operation":"dance"}"#,
        br#"{"version":3,"operation":{"exec":{"argv":["true"],"unheardOf":1}}}"#,
        br#"{"version":3,"operation":{"run-main":{"argv":["true"],"stdin":true}}}"#,
        br#"{"version":3,"operation":{"exec":{"argv":[]}}}"#,
        br#"{"version":3,"operation":{"exec":{"argv":[""]}}}"#,
        br#"{"version":3,"operation":{"exec":{"argv":["a\u0000b"]}}}"#,
        br#"{"version":3,"operation":{"exec":{"argv":["true"],"env":[["A=B","c"]]}}}"#,
        br#"{"version":3,"operation":{"exec":{"argv":["true"],"env":[["","c"]]}}}"#,
        br#"{"version":3,"operation":{"read-file":{"path":"relative"}}}"#,
        br#"{"version":3,"operation":{"write-file":{"path":"/x","mode":4096}}}"#,
    ] {
        let mut host = Host::greeted();
        host.send(Kind::Request, request);
        let text = String::from_utf8_lossy(request);
        assert_eq!(host.refusal().code, ErrorCode::BadRequest, "{text}");
        host.expect_end();
    }
}

#[test]
fn frames_that_make_no_sense_end_the_session_with_a_reason() {
    let oversized = [&u32::MAX.to_le_bytes()[..], &[Kind::Request as u8]].concat();
    for bytes in [
        &[0, 0, 0, 0, 0][..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0, 0, 0, 0, Kind::Stdin as u8],
        &[0, 0, 0, 0, Kind::Greeting as u8],
        &oversized,
    ] {
        let mut host = Host::greeted();
        host.raw(bytes);
        assert_eq!(host.refusal().code, ErrorCode::Protocol, "{bytes:?}");
        host.expect_end();
        assert!(host.end().is_err(), "the agent's log tells it too");
    }
}

#[test]
fn a_request_cut_off_ends_the_session_quietly() {
    let mut host = Host::greeted();
    host.raw(&[100, 0, 0, 0, Kind::Request as u8, b'{']);
    host.end().expect("a host that leaves is no failure");
}

#[test]
fn a_host_that_breaks_the_rules_loses_its_command() {
    let over = vec![0; 65536];
    let breaches: [&dyn Fn(&mut Host); 6] = [
        &|host| (0..STDIN_WINDOW / 32768).for_each(|_| host.send(Kind::Stdin, &over)),
        &|host| {
            host.send(Kind::StdinEnd, &[]);
            host.send(Kind::Stdin, b"more");
        },
        &|host| host.send(Kind::Signal, &[0, 0, 0, 0]),
        &|host| host.send(Kind::Signal, &[65, 0, 0, 0]),
        &|host| host.send(Kind::Resize, &[1]),
        &|host| host.send(Kind::Request, b"{}"),
    ];
    for (index, breach) in breaches.iter().enumerate() {
        let (mut host, pid) = Host::started(&["sleep", "1000"], true);
        breach(&mut host);
        assert_eq!(host.refusal().code, ErrorCode::Protocol, "breach {index}");
        wait_for_end(pid);
        assert!(host.end().is_err());
    }
}

#[test]
fn stdin_without_being_asked_for_is_against_the_rules() {
    let (mut host, pid) = Host::started(&["sleep", "1000"], false);
    host.send(Kind::Stdin, b"x");
    assert_eq!(host.refusal().code, ErrorCode::Protocol);
    wait_for_end(pid);
}

#[test]
fn a_lost_connection_ends_the_command_and_its_whole_group() {
    let script = "trap '' HUP; sleep 1000 & echo $!; wait";
    let (mut host, pid) = Host::started(&["sh", "-c", script], false);
    let frame = host.receive().expect("its output");
    assert_eq!(frame.kind, Kind::Stdout);
    let child = String::from_utf8(frame.payload).expect("a number");
    let child: i32 = child.trim().parse().expect("a number");
    host.end().expect("a host that leaves is no failure");
    wait_for_end(pid);
    wait_for_end(child);
}

#[test]
fn only_an_agent_that_looks_after_the_guest_shuts_it_down() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let mut host = Host::greeted();
    host.request(Operation::Shutdown);
    assert_eq!(host.refusal().code, ErrorCode::Unsupported);

    let mut host = Host::new(Guest::whole(|| {
        ASKED.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }));
    host.receive().expect("a greeting");
    host.request(Operation::Shutdown);
    assert_eq!(host.receive().expect("an answer").kind, Kind::Done);
    host.end().expect("shut down");
    assert_eq!(ASKED.load(Ordering::SeqCst), 1);
}

#[test]
fn a_session_too_many_is_told_so() {
    let (mut host, agent) = UnixStream::pair().expect("a pair of sockets");
    let busy = Refusal::new(ErrorCode::Busy, "full");
    let told = busy.clone();
    let agent = std::thread::spawn(move || serve_refusal(OwnedFd::from(agent), told));
    let mut header = [0; 5];
    host.read_exact(&mut header).expect("a frame");
    let mut decoder = Decoder::new();
    decoder.feed(&header);
    let mut payload = vec![0; usize::from(header[0])];
    host.read_exact(&mut payload).expect("its payload");
    decoder.feed(&payload);
    let frame = decoder.next_frame().expect("sound").expect("whole");
    assert_eq!(Refusal::decode(&frame), Ok(busy));
    drop(host);
    agent.join().expect("no panic").expect("told");
}

#[test]
fn a_refusal_that_quotes_a_long_request_still_fits() {
    let mut host = Host::greeted();
    host.request(Operation::Exec(Exec {
        argv: vec!["ü".repeat(200_000)],
        ..Exec::default()
    }));
    let refusal = host.refusal();
    assert_eq!(refusal.code, ErrorCode::CommandNotFound);
    assert!(refusal.message.len() <= 4096);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_whatever_bring_a_session_down(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        kind in prop::sample::select(vec![1u8, 65, 66, 67, 68, 69, 129]),
        framed in any::<bool>(),
    ) {
        let mut host = Host::greeted();
        if framed {
            let length = u32::try_from(bytes.len()).expect("short");
            host.raw(&[&length.to_le_bytes()[..], &[kind]].concat());
        }
        host.raw(&bytes);
        // An error or not: the session is over, and nothing has panicked.
        let _ = host.end();
    }
}
