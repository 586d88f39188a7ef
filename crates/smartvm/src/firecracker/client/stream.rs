//! The bytes of a connection to Firecracker, and how they are waited for.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::descriptor;

/// As much room is made for what is received: few answers need more.
const USUAL_BYTES: usize = 1 << 10;
/// How long bytes are looked for before they are slept for. Firecracker stops and starts a guest's
/// processors in a third of it.
const BUSY_POLL: Duration = Duration::from_micros(500);

/// How bytes are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Asleep, as is right for what takes its time.
    Sleeping,
    /// Looking for them again and again before falling asleep, for what comes within a moment: to
    /// fall asleep and be woken takes as long as Firecracker does, above all where this host is a
    /// virtual machine itself.
    BusyPolling,
}

/// A connected socket.
///
/// Only reading is slept for: a request fits into the socket's buffer, and one who waits for room
/// as well is woken when Firecracker has read it, for nothing.
#[derive(Debug)]
pub(super) struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    pub(super) fn over(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        descriptor::readable(stream).map(Self)
    }

    /// Whether it is open, and nothing came that nobody read.
    pub(super) fn is_idle(&self) -> bool {
        let read = |from: &OwnedFd| Ok(rustix::io::read(from, &mut [0])?);
        let nothing = self.0.try_io(Interest::READABLE, read);
        nothing.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }

    pub(super) async fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let stream = UnixStream::from(self.0.get_ref().try_clone()?);
                    tokio::net::UnixStream::from_std(stream)?.writable().await?;
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Adds some of what comes, at least one byte.
    pub(super) async fn receive(&self, into: &mut Vec<u8>, wait: Wait) -> io::Result<()> {
        into.reserve(USUAL_BYTES);
        let polled = match wait {
            Wait::BusyPolling => self.poll(into).await?,
            Wait::Sleeping => None,
        };
        let received = match polled {
            Some(received) => received,
            None => self.sleep_and_read(into).await?,
        };
        match received {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it closed the connection before its answer was whole",
            )),
            _ => Ok(()),
        }
    }

    /// What could be read within a moment, if anything.
    async fn poll(&self, into: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let began = Instant::now();
        loop {
            // This thread's other tasks, and this processor's other threads, Firecracker's among
            // them, lose nothing by the looking.
            tokio::task::yield_now().await;
            rustix::thread::sched_yield();
            match rustix::io::read(&self.0, spare_capacity(into)) {
                Ok(received) => return Ok(Some(received)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            if began.elapsed() >= BUSY_POLL {
                return Ok(None);
            }
        }
    }

    /// Waits until something came that may not have been read yet.
    #[cfg(test)]
    pub(super) async fn readable(&self) {
        drop(self.0.readable().await.unwrap());
    }

    async fn sleep_and_read(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        let room = into.capacity() - into.len();
        loop {
            let mut ready = self.0.readable().await?;
            let read = |from: &AsyncFd<_>| Ok(rustix::io::read(from, spare_capacity(into))?);
            let received = match ready.try_io(read) {
                Ok(received) => received?,
                Err(_not_ready) => continue,
            };
            // All there was; what comes after it, the end too, is told.
            if (1..room).contains(&received) {
                ready.clear_ready();
            }
            return Ok(received);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    fn processor_time() -> Duration {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
    }

    #[tokio::test]
    async fn what_takes_its_time_is_slept_for() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let stream = Stream::over(ours).unwrap();
        let before = processor_time();
        let mut received = Vec::new();
        let answer = async {
            tokio::time::sleep(1000 * BUSY_POLL).await;
            rustix::io::write(&theirs, b"x").unwrap();
        };
        let receive = stream.receive(&mut received, Wait::BusyPolling);
        let (done, ()) = tokio::join!(receive, answer);
        done.unwrap();
        assert_eq!(received, b"x");
        let spent = processor_time() - before;
        assert!(spent < 100 * BUSY_POLL, "{spent:?}");
    }

    #[tokio::test]
    async fn other_tasks_of_the_thread_go_on_while_bytes_are_looked_for() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let stream = Stream::over(ours).unwrap();
        let mut received = Vec::with_capacity(1);
        let other = tokio::spawn(async move { rustix::io::write(&theirs, b"x").unwrap() });
        let polled = stream.poll(&mut received).await.unwrap();
        assert_eq!(
            polled,
            Some(1),
            "the other task wrote after all the looking"
        );
        assert_eq!(other.await.unwrap(), 1);
    }
}
