//! Connections through vsock, opened by the host and by the guest.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crate::support::{Vm, peer, smartvm, until};

/// Where the peer is in the guest.
const PEER: &str = "/tmp/peer";
/// Listened on from before the guest's start.
const EARLY: u32 = 5000;
/// Listened on while the guest runs.
const LATE: u32 = 5001;
/// In the guest.
const INSIDE: u32 = 6000;

/// Says a word to who is at the other end, and returns the other's.
fn exchange(stream: UnixStream, word: &str) -> String {
    writeln!(&stream, "{word}").unwrap();
    let mut said = String::new();
    BufReader::new(stream).read_line(&mut said).unwrap();
    said.trim_end().to_owned()
}

/// Waits for one connection that a guest opens.
pub(super) struct Awaited {
    port: u32,
    said: JoinHandle<String>,
}

impl Awaited {
    fn at(socket: &Path, port: u32) -> Self {
        let socket = PathBuf::from(format!("{}_{port}", socket.display()));
        let listener = UnixListener::bind(&socket).unwrap();
        // A jailed guest's user, too.
        std::fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
        let answer = move || exchange(listener.accept().unwrap().0, "host");
        Self {
            port,
            said: std::thread::spawn(answer),
        }
    }

    /// Before the guest's start: beside the socket that its spec names.
    pub(super) fn early(socket: &Path) -> Self {
        Self::at(socket, EARLY)
    }

    fn comes_from(self, vm: &Vm) {
        assert_eq!(vm.said(&format!("{PEER} call {} guest", self.port)), "host");
        assert_eq!(self.said.join().unwrap(), "guest");
    }
}

pub(super) fn both_ways(vm: &Vm, socket: &Path, early: Awaited) {
    let to = format!("{}:{PEER}", vm.id);
    smartvm().arg("cp").arg(peer()).arg(&to).assert().success();
    early.comes_from(vm);
    // Where the socket really is.
    Awaited::at(&socket.canonicalize().unwrap(), LATE).comes_from(vm);
    let nobody = vm.exec(&[], &[PEER, "call", "5002", "guest"]).output();
    assert!(!nobody.unwrap().status.success(), "nobody listens there");

    let answer = format!("{PEER} answer {INSIDE} guest > /tmp/answered 2>&1 &");
    vm.said(&answer);
    until("the guest's listening", || {
        vm.said("cat /tmp/answered") == "listening"
    });
    let mut stream = BufReader::new(UnixStream::connect(socket).unwrap());
    // In one piece: Firecracker doesn't wait for the rest of a line.
    let connect = format!("CONNECT {INSIDE}\n");
    stream.get_mut().write_all(connect.as_bytes()).unwrap();
    let mut accepted = String::new();
    stream.read_line(&mut accepted).unwrap();
    assert!(accepted.starts_with("OK "), "{accepted}");
    let mut said = String::new();
    stream.read_line(&mut said).unwrap();
    assert_eq!(said, "guest\n");
    writeln!(stream.get_ref(), "host").unwrap();
    until("the host's word", || {
        vm.said("cat /tmp/answered") == "listening\nhost"
    });
}
