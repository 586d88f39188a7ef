//! The main command: its output is the console's, its end is the guest's, and it needs no host.

#![allow(clippy::expect_used)] // a test's helpers fail the test

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use smartvm_agent::protocol::{
    Accepted, Decoder, ErrorCode, Exit, Frame, Kind, Operation, Refusal, Request, RunMain, VERSION,
};
use smartvm_agent::service::{Guest, serve};

const SOON: Duration = Duration::from_secs(60);

/// A guest whose console is a file.
struct Machine {
    directory: tempfile::TempDir,
    guest: Guest,
}

impl Machine {
    fn new(shutdown: fn() -> std::io::Result<()>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut guest = Guest::whole(shutdown);
        guest.console = directory.path().join("console");
        std::fs::write(&guest.console, "").expect("a console");
        Self { directory, guest }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn console(&self) -> String {
        std::fs::read_to_string(&self.guest.console).expect("a console")
    }

    /// Asks for a main command: the host's end of that session, and what hears of its end.
    fn ask(&self, command: RunMain) -> (Host, Receiver<std::io::Result<()>>) {
        let (host, agent) = UnixStream::pair().expect("a pair of sockets");
        host.set_read_timeout(Some(SOON)).expect("a timeout");
        let (tell, told) = channel();
        let guest = self.guest.clone();
        std::thread::spawn(move || tell.send(serve(OwnedFd::from(agent), &guest)));
        let mut host = Host {
            stream: host,
            decoder: Decoder::new(),
        };
        assert_eq!(host.receive().kind, Kind::Greeting);
        let mut bytes = Vec::new();
        let request = Request {
            version: VERSION,
            operation: Operation::RunMain(command),
        };
        request.encode(&mut bytes).expect("encoded");
        host.stream.write_all(&bytes).expect("sent");
        (host, told)
    }
}

struct Host {
    stream: UnixStream,
    decoder: Decoder,
}

impl Host {
    fn receive(&mut self) -> Frame {
        let mut chunk = vec![0; 65536];
        loop {
            if let Some(frame) = self.decoder.next_frame().expect("sound frames") {
                return frame;
            }
            let length = self.stream.read(&mut chunk).expect("an answer in time");
            assert!(length > 0, "the agent hung up");
            self.decoder.feed(&chunk[..length]);
        }
    }

    fn accepted(&mut self) {
        let accepted = Accepted::decode(&self.receive()).expect("begun");
        assert!(accepted.pid.is_some());
    }

    fn refusal(&mut self) -> Refusal {
        Refusal::decode(&self.receive()).expect("a refusal")
    }
}

fn shell(script: &str) -> RunMain {
    RunMain {
        argv: ["sh", "-c", script].map(str::to_owned).into(),
        ..RunMain::default()
    }
}

/// How often a guest was ended: a function to end it, and a counter.
macro_rules! guests_end {
    ($end:ident, $times:ident) => {
        static $times: AtomicUsize = AtomicUsize::new(0);

        #[allow(clippy::unnecessary_wraps)] // the form of a guest's end
        fn $end() -> std::io::Result<()> {
            $times.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    };
}

#[test]
fn it_outlives_its_connection_and_its_end_is_told_on_the_console_and_ends_the_guest() {
    guests_end!(end, ENDED);
    let machine = Machine::new(end);
    let fifo = machine.path("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).expect("a fifo");
    let script = "echo $GREETING from $(pwd); read word < go; echo $word >&2; \
                  printf 'no end of line'; exit 3";
    let command = RunMain {
        env: vec![("GREETING".to_owned(), "hello".to_owned())],
        cwd: Some(machine.directory.path().to_owned()),
        ..shell(script)
    };
    let (mut host, told) = machine.ask(command);
    host.accepted();
    drop(host);
    // It still waits for this.
    std::fs::write(&fifo, "on\n").expect("somebody reads");
    let ended = told.recv_timeout(SOON).expect("it ends");
    ended.expect("a host that leaves is no failure");
    let directory = machine.directory.path().canonicalize().expect("a path");
    let expected = format!(
        "hello from {}\non\nno end of line\n{}",
        directory.display(),
        Exit::Code(3).console_line()
    );
    assert_eq!(machine.console(), expected);
    assert_eq!(ENDED.load(Ordering::SeqCst), 1);
}

#[test]
fn a_guest_whose_command_has_ended_waits_until_its_host_hangs_up() {
    guests_end!(end, ENDED);
    let machine = Machine::new(end);
    let (mut host, told) = machine.ask(shell("exit 0"));
    host.accepted();
    let line = Exit::Code(0).console_line();
    let end = std::time::Instant::now() + SOON;
    while machine.console() != line {
        assert!(std::time::Instant::now() < end, "{:?}", machine.console());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(ENDED.load(Ordering::SeqCst), 0, "the host is there");
    drop(host);
    told.recv_timeout(SOON).expect("it ends").expect("well");
    assert_eq!(ENDED.load(Ordering::SeqCst), 1);
}

#[test]
fn a_signal_that_ends_it_is_told_and_what_it_left_behind_is_not_waited_for() {
    guests_end!(end, ENDED);
    let machine = Machine::new(end);
    let (mut host, told) = machine.ask(shell("sleep 1000 & echo $! > left; kill -9 $$"));
    host.accepted();
    drop(host);
    told.recv_timeout(SOON).expect("it ends").expect("well");
    assert_eq!(machine.console(), Exit::Signal(9).console_line());
    assert_eq!(ENDED.load(Ordering::SeqCst), 1);
}

#[test]
fn what_cannot_be_the_main_command_is_refused_and_leaves_its_place_free() {
    guests_end!(end, ENDED);
    let machine = Machine::new(end);
    let no_program = RunMain {
        argv: vec!["/no/such/program".to_owned()],
        ..RunMain::default()
    };
    let (mut host, _) = machine.ask(no_program);
    assert_eq!(host.refusal().code, ErrorCode::CommandNotFound);
    let (mut host, _) = machine.ask(RunMain::default());
    assert_eq!(host.refusal().code, ErrorCode::BadRequest);

    let fifo = machine.path("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).expect("a fifo");
    let waits = RunMain {
        cwd: Some(machine.directory.path().to_owned()),
        ..shell("read word < go")
    };
    let (mut first, told) = machine.ask(waits);
    first.accepted();
    let (mut second, _) = machine.ask(shell("true"));
    assert_eq!(second.refusal().code, ErrorCode::Busy);
    assert_eq!(ENDED.load(Ordering::SeqCst), 0);
    drop(first);
    std::fs::write(&fifo, "on\n").expect("somebody reads");
    told.recv_timeout(SOON).expect("it ends").expect("well");
    assert_eq!(ENDED.load(Ordering::SeqCst), 1);
}

#[test]
fn an_ordinary_agent_and_one_without_a_console_run_none() {
    for guest in [Guest::ordinary(), {
        let mut guest = Guest::whole(|| Ok(()));
        guest.console = Path::new("/no/such/console").to_owned();
        guest
    }] {
        let mut machine = Machine::new(|| Ok(()));
        machine.guest = guest;
        let (mut host, _) = machine.ask(shell("true"));
        assert_eq!(host.refusal().code, ErrorCode::Unsupported);
    }
}
