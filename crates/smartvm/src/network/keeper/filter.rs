//! Has the kernel not even tell what can't matter: it wakes whoever it tells, several times for
//! each guest that comes or goes, and the guest waits meanwhile.
//!
//! These are programs of the kernel's old packet filter, which see a message as it would be
//! received. What they don't understand they let through.

use std::io;
use std::os::fd::AsRawFd;

// linux/bpf_common.h: what is loaded (from a place, from behind X), reckoned, and jumped by.
const LENGTH: u16 = 0x80;
const HALF: u16 = 0x28;
const BYTE: u16 = 0x30;
const HALF_OF_X: u16 = 0x48;
const BYTE_OF_X: u16 = 0x50;
const X: u16 = 0x01;
const X_FROM_MEMORY: u16 = 0x61;
const TO_MEMORY: u16 = 0x02;
const X_TO_MEMORY: u16 = 0x03;
const TO_X: u16 = 0x07;
const SHIFT_LEFT: u16 = 0x64;
const ADD: u16 = 0x04;
const ADD_X: u16 = 0x0c;
const AND: u16 = 0x54;
const IS: u16 = 0x15;
const IS_AT_LEAST: u16 = 0x35;
const IS_MORE_THAN_X: u16 = 0x2d;
const RETURN: u16 = 0x06;

/// As many bytes as there are.
const TELL: u32 = u32::MAX;
const DROP: u32 = 0;

// linux/netlink.h, linux/rtnetlink.h, linux/if_link.h
const KIND: u32 = 4;
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
/// Behind the headers: a device's name comes first.
const FIRST_KIND: u32 = 34;
const FIRST_VALUE: u32 = 36;
const NAME: u16 = 3;
/// No description of a device is shorter.
const SHORTEST: u32 = 64;

// linux/netfilter/nf_tables.h: elements, and the number of a transaction.
const ELEMENTS: [u16; 3] = [10 << 8 | 12, 10 << 8 | 14, 10 << 8 | 15];
/// So many messages are looked at of those that come at once.
const MESSAGES: usize = 6;

type Program = Vec<libc::sock_filter>;

/// Has a socket of rtnetlink's tell nothing of devices whose names begin like these.
pub(super) fn without_devices(socket: &impl AsRawFd, names: &[String]) -> io::Result<()> {
    attach(socket, devices(names))
}

/// Has a socket of nfnetlink's tell nothing of elements that come and go.
pub(super) fn without_elements(socket: &impl AsRawFd) -> io::Result<()> {
    attach(socket, elements())
}

fn devices(names: &[String]) -> Program {
    // Too short, another kind, or not its name first: told.
    let mut program = vec![
        op(LENGTH, 0),
        test(IS_AT_LEAST, SHORTEST, 1, 0),
        op(RETURN, TELL),
        op(HALF, KIND),
        test(IS, read(NEW_LINK), 2, 0),
        test(IS, read(DELETE_LINK), 1, 0),
        op(RETURN, TELL),
        op(HALF, FIRST_KIND),
        test(IS, read(NAME), 1, 0),
        op(RETURN, TELL),
    ];
    for name in names {
        // The shortest description has more bytes than the longest name.
        for ((place, byte), left) in (FIRST_VALUE..)
            .zip(name.bytes())
            .zip((1..=name.len()).rev())
        {
            program.push(op(BYTE, place));
            // Another: on to the next name.
            program.push(test(IS, byte.into(), 0, (2 * left - 1) as u8));
        }
        program.push(op(RETURN, DROP));
    }
    program.push(op(RETURN, TELL));
    program
}

fn elements() -> Program {
    let [low, high, zeros] = match cfg!(target_endian = "little") {
        true => [0, 1, 2],
        false => [3, 2, 0],
    };
    let [of_length, of_message] = [0, 1];
    let mut program = vec![op(X, 0)];
    for _ in 0..MESSAGES {
        program.extend([
            op(LENGTH, 0),
            // All were looked at.
            test(IS_MORE_THAN_X, 0, 1, 0),
            op(RETURN, DROP),
            op(HALF_OF_X, KIND),
            test(IS, read(ELEMENTS[0]), 3, 0),
            test(IS, read(ELEMENTS[1]), 2, 0),
            test(IS, read(ELEMENTS[2]), 1, 0),
            op(RETURN, TELL),
            op(HALF_OF_X, zeros),
            test(IS, 0, 1, 0),
            op(RETURN, TELL),
            // X goes on by this message's length, in whole words.
            op(X_TO_MEMORY, of_message),
            op(BYTE_OF_X, high),
            op(SHIFT_LEFT, 8),
            op(TO_MEMORY, of_length),
            op(BYTE_OF_X, low),
            op(X_FROM_MEMORY, of_length),
            op(ADD_X, 0),
            op(ADD, 3),
            op(AND, !3),
            op(X_FROM_MEMORY, of_message),
            op(ADD_X, 0),
            op(TO_X, 0),
        ]);
    }
    program.push(op(RETURN, TELL));
    program
}

/// What the filter reads where the kernel wrote this: it reads as networks do.
fn read(half: u16) -> u32 {
    u16::from_be_bytes(half.to_ne_bytes()).into()
}

fn op(code: u16, k: u32) -> libc::sock_filter {
    test(code, k, 0, 0)
}

/// Jumps over so many if it is, or isn't.
fn test(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn attach(socket: &impl AsRawFd, mut program: Program) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len().try_into().map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the option reads the structure and the program that it points to, both of which
    // live through the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// A message of this kind, with this body.
    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn link(kind: u16, name: &str) -> Vec<u8> {
        let mut body = vec![0; 16];
        body.extend((4 + name.len() as u16 + 1).to_ne_bytes());
        body.extend(NAME.to_ne_bytes());
        body.extend(name.as_bytes());
        body.resize(200, 0);
        message(kind, &body)
    }

    /// What is told of these, through the kernel's own filter.
    fn told(program: Program, sent: &[Vec<u8>]) -> Vec<bool> {
        let (from, to) = UnixDatagram::pair().unwrap();
        attach(&to, program).unwrap();
        to.set_nonblocking(true).unwrap();
        let passes = |bytes: &Vec<u8>| {
            from.send(bytes).unwrap();
            let mut buffer = [0; 1024];
            to.recv(&mut buffer)
                .is_ok_and(|length| length == bytes.len())
        };
        sent.iter().map(passes).collect()
    }

    #[test]
    fn nothing_is_told_of_guests_devices_and_all_of_others() {
        let sent = [
            link(NEW_LINK, "sv0a1b2c-2"),
            link(DELETE_LINK, "sv0a1b2c-200"),
            link(NEW_LINK, "sv0a1bxf4240"),
            link(NEW_LINK, "sv0a1b2d-2"),
            link(NEW_LINK, "sv0a1b2c"),
            link(NEW_LINK, "svbr0"),
            link(DELETE_LINK, "svbr0"),
            link(20, "sv0a1b2c-2"),
            message(NEW_LINK, &[0; 16]),
        ];
        let names = ["sv0a1b2c-".to_owned(), "sv0a1bx".to_owned()];
        let expected = [false, false, false, true, true, true, true, true, true];
        assert_eq!(told(devices(&names), &sent), expected);
    }

    #[test]
    fn elements_alone_are_not_told_but_whatever_comes_with_them() {
        let [new, delete, number] = ELEMENTS.map(|kind| message(kind, &[0; 21]));
        let deleted_rule = message(10 << 8 | 8, &[0; 24]);
        let pad = |messages: &[&Vec<u8>]| {
            let mut all = Vec::new();
            for message in messages {
                all.extend_from_slice(message);
                all.resize(all.len().next_multiple_of(4), 0);
            }
            all
        };
        let sent = [
            pad(&[&number]),
            pad(&[&new, &new]),
            pad(&[&new, &new, &delete, &delete]),
            pad(&[&new, &deleted_rule]),
            pad(&[&deleted_rule]),
            pad(&[&new; MESSAGES + 1]),
        ];
        let expected = [false, false, false, true, true, true];
        assert_eq!(told(elements(), &sent), expected);
    }
}
