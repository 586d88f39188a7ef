//! The floor: the same microVM by a minimal loop of raw API calls, with everything prepared.
//! Firecracker is started in a directory with all files at hand, and what the plan would send
//! is written to its socket, byte by byte ready beforehand.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use smartvm::firecracker::client::Request;
use smartvm::jail::{Ids, JailStep};
use smartvm::plan::{Launch, Plan};
use smartvm::rundir::file;
use smartvm::step::Step;

use crate::corner::Corner;

/// The user of jailed raw starts.
const USER: Ids = Ids {
    uid: 1_899_999_999,
    gid: 1_899_999_999,
};

/// What is prepared for one raw start.
pub(crate) struct RawLoop {
    directory: PathBuf,
    command: Command,
    requests: Vec<Vec<u8>>,
    /// Kept open as a keeper keeps them.
    _pipes: Vec<File>,
}

/// A microVM that the raw loop has started. Ends when dropped.
pub(crate) struct Started {
    directory: PathBuf,
    child: Child,
    stream: UnixStream,
}

impl RawLoop {
    /// Prepares what the plan wants, in a directory of this name, or in the jail's own.
    pub(crate) fn prepare(corner: &Corner, plan: &Plan, name: &str) -> Self {
        let directory = match plan.root.is_jail() {
            true => plan.root.path().to_owned(),
            false => corner.file(name),
        };
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new(corner.firecracker());
        command.current_dir(&directory).env_clear();
        let mut pipes = Vec::new();
        for step in &plan.steps {
            let here = |path: &PathBuf| {
                let inside = path.strip_prefix(plan.root.path());
                directory.join(inside.or(path.strip_prefix(&plan.run_dir)).unwrap())
            };
            match step {
                Step::MakeDir { path } => std::fs::create_dir(here(path)).unwrap(),
                Step::Link { path, target } => {
                    std::os::unix::fs::symlink(target, here(path)).unwrap();
                }
                Step::MakeFifo { path } => pipes.push(pipe(&here(path))),
                Step::Jail(JailStep::MakePipe { path }) => {
                    pipes.push(pipe(path));
                    give(path);
                }
                Step::Jail(JailStep::Bring { source, target, .. }) => {
                    std::fs::copy(source, target).unwrap();
                    give(target);
                }
                Step::Jail(_) | Step::ReserveSocket { .. } | Step::UseSnapshot { .. } => {}
                Step::SpawnVmm {
                    jailer: Some(jailer),
                    executable,
                    args,
                    ..
                } => {
                    command = Command::new(&jailer.executable);
                    let args = jailer.arguments(executable, USER, args).unwrap();
                    command.args(args).current_dir(&directory).env_clear();
                }
                Step::SpawnVmm { args, .. } => drop(command.args(args)),
                other => panic!("the raw loop doesn't know how to prepare: {other}"),
            }
        }
        let console = File::create(directory.join("console")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console);
        let planned = plan.requests.iter().map(encode);
        let start = match plan.launch {
            Launch::Boot => Some(encoded(
                "PUT",
                "/actions",
                br#"{"action_type":"InstanceStart"}"#,
            )),
            _ => None,
        };
        Self {
            directory,
            command,
            requests: planned.chain(start).collect(),
            _pipes: pipes,
        }
    }

    /// Starts the microVM: what is measured.
    pub(crate) fn run(mut self) -> Started {
        let child = self.command.spawn().unwrap();
        let socket = self.directory.join(file::API_SOCKET);
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(_) => std::thread::sleep(Duration::from_micros(100)),
            }
        };
        let mut started = Started {
            directory: self.directory,
            child,
            stream,
        };
        for request in &self.requests {
            started.ask(request);
        }
        started
    }
}

impl Started {
    /// Sends a request, and reads the answer.
    pub(crate) fn ask(&mut self, request: &[u8]) {
        let mut answer = [0; 4096];
        self.stream.write_all(request).unwrap();
        let length = self.stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    }

    /// Kills it; doesn't wait.
    pub(crate) fn signal(&mut self) {
        self.child.kill().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn reap(&mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Reaped already, it can't be killed once more.
        let _reaped = self.child.kill();
        self.child.wait().unwrap();
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// A request, ready to be written.
pub(crate) fn encode(request: &Request) -> Vec<u8> {
    let method = format!("{:?}", request.method()).to_uppercase();
    encoded(&method, request.path(), request.body())
}

fn pipe(path: &Path) -> File {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path, fifo, mode, 0).unwrap();
    let pipe = OpenOptions::new().read(true).write(true).open(path);
    pipe.unwrap()
}

fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(USER.uid), Some(USER.gid)).unwrap();
}

fn encoded(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}
