use std::io::BufRead;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::*;

const PATIENCE: Timespec = Timespec {
    tv_sec: 20,
    tv_nsec: 0,
};

fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments);
    command
}

fn ends(pidfd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&PATIENCE)).unwrap() == 1
}

fn how_it_ended(machine: &mut Machine) -> Error {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let patience = Duration::from_secs(20);
    runtime
        .block_on(async { tokio::time::timeout(patience, machine.ended()).await })
        .unwrap()
}

#[test]
fn it_gets_its_files_under_their_numbers() {
    let file = in_memory(b"handed over").unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut machine = Machine::run(program("cat", &[&path]), vec![file]).unwrap();
    let ended = how_it_ended(&mut machine);
    assert!(ended.to_string().contains("exit status: 0"), "{ended}");
    assert_eq!(machine.last_words().all(), "handed over");
}

#[test]
fn it_ends_when_it_is_dropped() {
    let machine = Machine::run(program("sleep", &["1000"]), Vec::new()).unwrap();
    let pidfd = machine.pidfd.try_clone().unwrap();
    drop(machine);
    assert!(ends(pidfd));
}

#[test]
fn a_program_that_is_missing_can_be_installed() {
    let error = Machine::run(Command::new("/no/such/qemu"), Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Host);
    assert!(error.way_out().unwrap().contains("apt-get install"));
}

const OWNER: &str = "SMARTVM_EMULATE_TEST_OWNER";

/// The test below runs this one as a process to be killed; alone it has nothing to do.
#[test]
fn an_owner_waits_where_another_test_asks_for_it() {
    if std::env::var_os(OWNER).is_none() {
        return;
    }
    let mut machine = Machine::run(program("sleep", &["1000"]), Vec::new()).unwrap();
    let info = format!("/proc/self/fdinfo/{}", machine.pidfd.as_raw_fd());
    let info = std::fs::read_to_string(info).unwrap();
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    println!("machine {}", pid.unwrap().trim());
    how_it_ended(&mut machine);
}

#[test]
fn it_ends_when_its_owner_is_killed() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("machine::tests::an_owner_waits_where_another_test_asks_for_it")
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = io::BufReader::new(owner.stdout.take().unwrap());
    let pid = stdout
        .lines()
        .map_while(io::Result::ok)
        .find_map(|line| line.split_once("machine ")?.1.parse().ok())
        .unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    let machine = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(ends(machine));
}
