//! The keeper's own memory and start.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use smartvm::keeper;
use smartvm::vm::StopMode;

use crate::corner::{Corner, SMARTVM};
use crate::figures::{Figures, timed};
use crate::row::Row;

/// How long a keeper may take to come to rest: it waits two seconds for something to happen.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const MEMORY: Row = Row {
    name: "keeper-memory",
    about: "memory (PSS) of the keeper of a running VM at rest, the only keeper there is",
    target: Some(1.5),
    measure: memory,
};

pub(crate) const START: Row = Row {
    name: "keeper-start",
    about: "from starting a keeper to its first answer / the program `true` from start to end",
    target: None,
    measure: start,
};

fn memory(corner: &Corner, times: usize) -> Figures {
    let smartvm = corner.smartvm();
    Figures::amounts(times, "MiB", || {
        let mut vm = corner.running(&smartvm);
        let keeper = vm.state().unwrap().keeper.unwrap();
        let memory = at_rest(keeper.pid);
        corner.wait(vm.stop(StopMode::Kill)).unwrap();
        memory
    })
}

/// The memory that a keeper has when it has come to rest: when it has given most back.
fn at_rest(pid: u32) -> f64 {
    let (first, begin) = (pss(pid), Instant::now());
    while begin.elapsed() < PATIENCE {
        let now = pss(pid);
        if now < first / 2.0 {
            return now;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("keeper {pid} gives little back");
}

fn pss(pid: u32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let kib = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"));
    kib.unwrap().parse::<f64>().unwrap() / 1024.0
}

fn start(corner: &Corner, times: usize) -> Figures {
    let run_dir = corner.file("keeper-start");
    std::fs::create_dir(&run_dir).unwrap();
    let keep = serde_json::json!({ "keep": { "runDir": run_dir } });
    // The shortest thing that it answers.
    let said = format!("{keep}\n\"detach\"\n");
    Figures::pairs(
        times,
        || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut command = Command::new(SMARTVM);
            command
                .arg(keeper::VERB)
                .arg(keeper::PROTOCOL.to_string())
                .stdin(OwnedFd::from(theirs));
            let (took, mut child) = timed(|| {
                let child = command.spawn().unwrap();
                (&ours).write_all(said.as_bytes()).unwrap();
                let mut answer = [0; 64];
                let length = (&ours).read(&mut answer).unwrap();
                assert_eq!(&answer[..length], b"\"detached\"\n");
                child
            });
            child.kill().unwrap();
            child.wait().unwrap();
            took
        },
        || timed(|| Command::new("true").status().unwrap()).0,
    )
}
