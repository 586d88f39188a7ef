//! Network namespaces.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::UnshareFlags;

/// A network namespace, held by a process that does nothing.
pub(crate) struct Space(Child);

impl Space {
    pub(crate) fn new() -> Self {
        let child = Command::new("unshare")
            .args(["--net", "sleep", "1200"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let space = Self(child);
        let mine = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        // `unshare` has done its work once the process is elsewhere.
        wait(|| std::fs::read_link(space.path()).is_ok_and(|theirs| theirs != mine));
        space.run("ip link set lo up");
        space
    }

    /// The process that holds it.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.pid())
    }

    /// A command inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    pub(crate) fn try_run(&self, line: &str) -> (bool, String) {
        let mut words = line.split(' ');
        let output = self
            .command(words.next().unwrap())
            .args(words)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }

    pub(crate) fn run(&self, line: &str) -> String {
        let (good, text) = self.try_run(line);
        assert!(good, "{line}: {text}");
        text
    }

    /// Does something on a thread inside.
    pub(crate) fn inside<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter();
                    task()
                })
                .join()
                .unwrap()
        })
    }

    /// Moves the calling thread into it for good.
    pub(crate) fn enter(&self) {
        let space = std::fs::File::open(self.path()).unwrap();
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&space),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .unwrap();
    }

    pub(crate) fn udp(&self, at: &str) -> UdpSocket {
        self.inside(|| UdpSocket::bind(at).unwrap())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Gives the calling thread new namespaces of its own, for all that it starts from now on.
#[allow(unsafe_code)]
pub(crate) fn move_in(namespaces: UnshareFlags) {
    // SAFETY: only this thread's namespaces change; no descriptor is affected.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }.unwrap();
}

pub(crate) fn wait(mut until: impl FnMut() -> bool) {
    // In an emulated host the clock runs ahead.
    let end = Instant::now() + Duration::from_secs(60);
    while !until() {
        assert!(Instant::now() < end, "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}
