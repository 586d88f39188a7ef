//! The least that it takes: one ioctl after the other, one message after the other, over sockets
//! that are open already. An address is taken as simply as can be: by a file that nobody else can
//! make, or two processes would give it to two guests.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};

use super::{Floor, Go, Way};

const NEW_ELEMENT: u8 = 12;
const DELETE_ELEMENT: u8 = 14;
const CREATE: u16 = 0x400;

pub(super) struct Raw {
    /// Those that nobody uses.
    route: Mutex<Vec<Socket>>,
    netfilter: Mutex<Socket>,
    bridge: u32,
    leases: PathBuf,
    /// How the names of devices begin.
    names: String,
}

impl Floor for Raw {
    fn new(dir: &Path, names: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        Self {
            route: Mutex::default(),
            netfilter: Mutex::new(open(NETLINK_NETFILTER)),
            bridge: index("svbr0"),
            leases: dir.to_owned(),
            names: names.to_owned(),
        }
    }
}

fn open(protocol: isize) -> Socket {
    let mut socket = Socket::new(protocol).unwrap();
    socket.bind_auto().unwrap();
    socket.connect(&SocketAddr::new(0, 0)).unwrap();
    socket
}

fn index(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: the name is a C string.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

impl Raw {
    fn link(&self, message: RouteNetlinkMessage) {
        let payload = NetlinkPayload::InnerMessage(message);
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let idle = self.route.lock().unwrap().pop();
        let socket = idle.unwrap_or_else(|| open(NETLINK_ROUTE));
        socket.send(&bytes, 0).unwrap();
        done(&socket);
        self.route.lock().unwrap().push(socket);
    }

    fn tap(&self, number: usize) -> String {
        format!("{}r{number}", self.names)
    }

    fn lease(&self, number: usize) -> PathBuf {
        let [.., high, low] = (number as u32 + 2).to_be_bytes();
        self.leases.join(format!("10.1.{high}.{low}"))
    }

    fn elements(&self, verbs: &[u8], number: usize) {
        let mut name = self.tap(number).into_bytes();
        name.resize(16, 0);
        let [.., high, low] = (number as u32 + 2).to_be_bytes();
        let key = [
            &name[..],
            &[6, 0, 0, 0, high, low, 0, 0],
            &[10, 1, high, low],
        ]
        .concat();
        let mut batch = message(0x10, 0, &[0, 0, 0, 10]);
        for verb in verbs {
            for (set, key, ack) in [("taps\0", &name, 0), ("guests\0", &key, NLM_F_ACK)] {
                let element = attribute(1, &attribute(1, &attribute(1, key)));
                let body = [
                    &[7, 0, 0, 0][..],
                    &attribute(1, b"smartvm_svbr0\0"),
                    &attribute(2, set.as_bytes()),
                    &attribute(3, &element),
                ];
                batch.extend(message(
                    10 << 8 | u16::from(*verb),
                    CREATE | ack,
                    &body.concat(),
                ));
            }
        }
        batch.extend(message(0x11, 0, &[0, 0, 0, 10]));
        let socket = self.netfilter.lock().unwrap();
        socket.send(&batch, 0).unwrap();
        done(&socket);
    }
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = (16 + body.len()) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// No forwarding by the device itself, and no source address that doesn't lead back to it.
fn settings() -> LinkAttribute {
    let setting = |kind, value: u32| attribute(kind, &value.to_ne_bytes());
    let settings = attribute(1, &[setting(1, 0), setting(8, 1)].concat());
    LinkAttribute::Other(DefaultNla::new(26, attribute(2, &settings)))
}

/// Reads an acknowledgement: an error of number 0.
fn done(socket: &Socket) {
    let (bytes, _) = socket.recv_from_full().unwrap();
    let code = i32::from_ne_bytes(bytes[16..20].try_into().unwrap());
    assert_eq!(code, 0, "{}", std::io::Error::from_raw_os_error(-code));
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn tap(name: &str) -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .unwrap();
    // SAFETY: all bytes zero is a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    // IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
    request.ifr_ifru.ifru_flags = 0x0002 | 0x1000 | 0x4000;
    // SAFETY: TUNSETIFF reads and writes an ifreq, which is borrowed for the call; the others take
    // numbers.
    let results = unsafe {
        [
            libc::ioctl(file.as_raw_fd(), 0x4004_54ca, &raw mut request),
            libc::ioctl(file.as_raw_fd(), 0x4004_54cc, 0),
            libc::ioctl(file.as_raw_fd(), 0x4004_54cb, 1),
        ]
    };
    assert_eq!(results, [0; 3], "{}", std::io::Error::last_os_error());
    file
}

impl Way for Raw {
    const GO: Go = Go::AtOnce;

    fn up(&self, number: usize) {
        let name = self.tap(number);
        let mut lease = File::create_new(self.lease(number)).unwrap();
        lease.write_all(name.as_bytes()).unwrap();
        self.elements(&[NEW_ELEMENT], number);
        let _tap = tap(&name);
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
        let mut message = LinkMessage::default();
        message.header.index = index(&name);
        message.attributes = vec![
            LinkAttribute::IfAlias("benchmark".into()),
            LinkAttribute::Address(vec![0xfe, 0, 0, 0, 0, 1]),
            LinkAttribute::Controller(self.bridge),
            settings(),
        ];
        self.link(RouteNetlinkMessage::SetLink(message.clone()));
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        let port = InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(true)]);
        message.attributes = vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(port),
        ])];
        self.link(RouteNetlinkMessage::NewLink(message));
    }

    fn down(&self, number: usize) {
        let mut message = LinkMessage::default();
        message.header.index = index(&self.tap(number));
        self.link(RouteNetlinkMessage::DelLink(message));
        self.elements(&[DELETE_ELEMENT], number);
        std::fs::remove_file(self.lease(number)).unwrap();
    }
}
