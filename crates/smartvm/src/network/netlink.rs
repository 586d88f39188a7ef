//! A netlink socket without an async runtime: steps and keepers have none. It belongs to the
//! network namespace of the thread that opened it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::net::RecvFlags;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::namespace::Namespace;
use super::netfilter::Message;

/// How long the kernel may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The kernel sends no more of a list at once than 32 KiB.
const MOST_BYTES: usize = 64 << 10;
/// Of one thing it tells half a page, or why not, and then the question again.
const ANSWER_BYTES: usize = 16 << 10;

/// A socket of rtnetlink that nobody uses, and the network namespace that it belongs to.
static KEPT: Mutex<Option<(Namespace, Socket)>> = Mutex::new(None);

/// A socket of one netlink protocol.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: netlink_sys::Socket,
    /// What was received last.
    buffer: Vec<u8>,
    /// How long the last request was.
    asked: usize,
    /// The first and the last message of it.
    first: u32,
    sequence: u32,
}

impl Socket {
    /// Opens one (`netlink_sys::protocols::NETLINK_ROUTE` and its like).
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let socket = netlink_sys::Socket::new(protocol)?;
        // This binds it, too.
        socket.connect(&SocketAddr::new(0, 0))?;
        set_socket_timeout(socket.as_fd(), Timeout::Recv, Some(PATIENCE))?;
        Ok(Self {
            socket,
            buffer: Vec::new(),
            asked: 0,
            first: 0,
            sequence: 0,
        })
    }

    /// One that was used before in the network namespace that this thread is in, or a new
    /// one; of rtnetlink.
    pub(crate) fn again(namespace: Namespace) -> io::Result<Self> {
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).take();
        match kept {
            Some((of, socket)) if of == namespace => Ok(socket),
            _ => Self::open(NETLINK_ROUTE),
        }
    }

    /// Keeps one for the next who needs it. What it was asked for last has been read.
    pub(crate) fn keep(self, namespace: Namespace) {
        *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some((namespace, self));
    }

    /// Has the kernel do something, and waits until it has. `flags` are those beside
    /// `NLM_F_REQUEST` and `NLM_F_ACK`.
    pub(crate) fn request<T>(&mut self, message: T, flags: u16) -> io::Result<()>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
    {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.answers::<T>(&mut |_| {}, Until::Acknowledged)
    }

    /// Has it do one thing after the other; the first that fails is told.
    pub(crate) fn requests<T>(&mut self, messages: Vec<T>) -> io::Result<()>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
    {
        let first = self.sequence.wrapping_add(1);
        let last = messages.len().saturating_sub(1);
        let mut bytes = Vec::new();
        for (number, message) in messages.into_iter().enumerate() {
            let asks = match number == last {
                true => NLM_F_REQUEST | NLM_F_ACK,
                false => NLM_F_REQUEST,
            };
            bytes.extend(self.encode(message, asks));
        }
        self.first = first;
        self.send_bytes(&bytes)?;
        self.answers::<T>(&mut |_| {}, Until::Acknowledged)
    }

    /// Asks for one thing; `None` if it isn't there.
    pub(crate) fn get<T>(&mut self, message: T) -> io::Result<Option<T>>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
    {
        self.send(message, NLM_F_REQUEST)?;
        self.answer()
    }

    /// One thing that was asked for; `None` if it isn't there.
    fn answer<T: NetlinkDeserializable>(&mut self) -> io::Result<Option<T>> {
        let mut found = None;
        match self.answers(&mut |answer| found = Some(answer), Until::Answered) {
            Ok(()) => Ok(found),
            Err(e) if is_missing(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Asks for several things, each of which may not be there.
    pub(crate) fn get_each<T, const N: usize>(
        &mut self,
        messages: [T; N],
    ) -> io::Result<[Option<T>; N]>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
    {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend(self.encode(message, NLM_F_REQUEST));
        }
        self.first = first;
        self.send_bytes(&bytes)?;
        let mut found = [const { None }; N];
        // The kernel answers in the order of the questions.
        for one in &mut found {
            *one = self.answer()?;
        }
        Ok(found)
    }

    /// Asks for all things of a kind.
    pub(crate) fn dump<T>(&mut self, message: T) -> io::Result<Vec<T>>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
    {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut found = Vec::new();
        self.answers(&mut |answer| found.push(answer), Until::Done)?;
        Ok(found)
    }

    /// Has the tables of netfilter change by these messages, all of them or none, each with its
    /// flags beside `NLM_F_REQUEST`.
    pub(super) fn transaction(&mut self, messages: Vec<(Message, u16)>) -> io::Result<()> {
        let [begin, end] = Message::batch();
        let first = self.sequence.wrapping_add(1);
        let mut bytes = self.encode(begin, NLM_F_REQUEST);
        let last = messages.len().saturating_sub(1);
        for (number, (message, flags)) in messages.into_iter().enumerate() {
            // The last one's answer tells that all is done; what fails is told in any case.
            let asks = match number == last {
                true => NLM_F_REQUEST | NLM_F_ACK,
                false => NLM_F_REQUEST,
            };
            bytes.extend(self.encode(message, asks | flags));
        }
        bytes.extend(self.encode(end, NLM_F_REQUEST));
        self.first = first;
        self.send_bytes(&bytes)?;
        self.answers::<Message>(&mut |_| {}, Until::Acknowledged)
    }

    fn send<T: NetlinkSerializable>(&mut self, message: T, flags: u16) -> io::Result<()> {
        let bytes = self.encode(message, flags);
        self.first = self.sequence;
        self.send_bytes(&bytes)
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.asked = bytes.len();
        self.socket.send(bytes, 0).map(drop)
    }

    fn encode<T: NetlinkSerializable>(&mut self, message: T, flags: u16) -> Vec<u8> {
        let mut message = NetlinkMessage::new(
            NetlinkHeader::default(),
            NetlinkPayload::InnerMessage(message),
        );
        self.sequence = self.sequence.wrapping_add(1);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
        message.serialize(&mut bytes);
        bytes
    }

    /// Reads what belongs to the last request.
    fn answers<T: NetlinkDeserializable>(
        &mut self,
        each: &mut dyn FnMut(T),
        until: Until,
    ) -> io::Result<()> {
        loop {
            let received = self.receive(until)?;
            let mut rest = self.buffer.get(..received).unwrap_or_default();
            while rest.len() >= 16 {
                let message = NetlinkMessage::<T>::deserialize(rest).map_err(io::Error::other)?;
                let length = usize::try_from(message.header.length).map_err(io::Error::other)?;
                rest = rest
                    .get(length.next_multiple_of(4).max(16)..)
                    .unwrap_or_default();
                let ours = self.first..=self.sequence;
                if !ours.contains(&message.header.sequence_number) {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) if error.code.is_none() => match until {
                        Until::Acknowledged => return Ok(()),
                        Until::Answered | Until::Done => {}
                    },
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(inner) => {
                        each(inner);
                        if until == Until::Answered {
                            return Ok(());
                        }
                    }
                    NetlinkPayload::Overrun(_) => {
                        return Err(io::Error::other("the kernel's answer overran the buffer"));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Receives what the kernel sends at once; how long that is.
    fn receive(&mut self, until: Until) -> io::Result<usize> {
        let room = match until {
            Until::Done => MOST_BYTES,
            Until::Acknowledged | Until::Answered => ANSWER_BYTES + self.asked,
        };
        if self.buffer.len() < room {
            self.buffer = vec![0; room];
        }
        loop {
            let into = self.buffer.as_mut_slice();
            match rustix::net::recv(&self.socket, into, RecvFlags::TRUNC) {
                Ok((_, length)) if length > self.buffer.len() => {
                    return Err(io::Error::other("the kernel's answer is too long"));
                }
                Ok((length, _)) => return Ok(length),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the end of an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// That it was done, or why it wasn't.
    Acknowledged,
    /// The one thing asked for.
    Answered,
    /// The end of a list.
    Done,
}

/// Whether an error says that the thing asked for isn't there.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NODEV, Errno::NOENT, Errno::SRCH, Errno::ADDRNOTAVAIL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
