//! Frames that no guest should send.

/// In every frame, before its number.
pub(crate) const MARK: &str = "from the forger ";
/// Where the number is to be put.
const NUMBER: &[u8] = b"??";

/// Who a frame is said to be from, and where it goes.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) to: [u8; 6],
    pub(crate) from: [u8; 6],
    pub(crate) source: [u8; 4],
    pub(crate) target: [u8; 4],
}

impl Frame {
    fn of(self, kind: u16, payload: &[&[u8]]) -> Vec<u8> {
        let mut frame = [&self.to[..], &self.from, &kind.to_be_bytes()].concat();
        for part in payload {
            frame.extend_from_slice(part);
        }
        frame.extend_from_slice(MARK.as_bytes());
        frame.extend_from_slice(NUMBER);
        frame
    }

    /// A datagram's headers. UDP's checksum may be left out.
    fn datagram(self) -> Vec<u8> {
        let length = (MARK.len() + NUMBER.len()) as u8 + 8;
        let mut ip = vec![0x45, 0, 0, 20 + length, 0, 0, 0x40, 0, 64, 17, 0, 0];
        ip.extend(self.source);
        ip.extend(self.target);
        let sum: u32 = ip
            .chunks(2)
            .map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !(sum + (sum >> 16)) as u16;
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip.extend([0x30, 0x39, 0, 9, 0, length, 0, 0]);
        ip
    }

    pub(crate) fn udp(self) -> Vec<u8> {
        self.of(0x0800, &[&self.datagram()])
    }

    /// The same in VLAN 7.
    pub(crate) fn vlan(self) -> Vec<u8> {
        self.of(0x8100, &[&[0, 7, 8, 0], &self.datagram()])
    }

    /// An ARP question (1) or answer (2): `source` is at `from`.
    pub(crate) fn arp(self, operation: u8) -> Vec<u8> {
        let head = [0, 1, 8, 0, 6, 4, 0, operation];
        self.of(
            0x0806,
            &[&head, &self.from, &self.source, &self.to, &self.target],
        )
    }

    /// "I am the router, and 2001:db8:: is your network", to all.
    pub(crate) fn router_advertisement(self) -> Vec<u8> {
        let all = Self {
            to: [0x33, 0x33, 0, 0, 0, 1],
            ..self
        };
        let (mut from, mut to) = ([0; 16], [0; 16]);
        (from[0], from[1], from[15]) = (0xfe, 0x80, 9);
        (to[0], to[1], to[15]) = (0xff, 2, 1);
        let mut prefix = vec![
            3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x20, 1, 0xd, 0xb8,
        ];
        prefix.resize(32, 0);
        let head = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        all.of(0x86dd, &[&ipv6(58, 48), &from, &to, &head, &prefix])
    }

    /// A datagram over IPv6.
    pub(crate) fn ipv6(self) -> Vec<u8> {
        let (mut from, mut to) = ([0; 16], [0; 16]);
        (from[0], from[1], from[15]) = (0xfe, 0x80, 9);
        (to[0], to[1], to[15]) = (0xfe, 0x80, 1);
        self.of(
            0x86dd,
            &[&ipv6(17, 8), &from, &to, &[0x30, 0x39, 0, 9, 0, 26, 0, 0]],
        )
    }
}

fn ipv6(next: u8, length: u8) -> [u8; 8] {
    let length = length + (MARK.len() + NUMBER.len()) as u8;
    [0x60, 0, 0, 0, 0, length, next, 255]
}

/// Frames as the program `forge` reads them, each with its number in it.
pub(crate) fn packed(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut packed = Vec::new();
    for (number, frame) in frames.iter().enumerate() {
        let body = frame.strip_suffix(NUMBER).unwrap();
        packed.extend((frame.len() as u16).to_be_bytes());
        packed.extend_from_slice(body);
        packed.extend(format!("{number:02}").bytes());
    }
    packed
}
