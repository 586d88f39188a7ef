//! One connection through vsock, from within a guest: `call PORT WORD` opens it towards the host,
//! `answer PORT WORD` waits for it. Each says the word and prints what the host says. A program
//! of the guest tier's tests.

// A test's program: what fails fails the test.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader, Write};

use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockListener, VsockStream};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [way, port, word] = &words[..] else {
        panic!("call or answer, a port, a word: {words:?}")
    };
    let port = port.parse().unwrap();
    let mut stream = match way.as_str() {
        "call" => VsockStream::connect_with_cid_port(VMADDR_CID_HOST, port).unwrap(),
        _ => {
            let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port).unwrap();
            // Whoever started it waits for this line.
            println!("listening");
            listener.accept().unwrap().0
        }
    };
    writeln!(stream, "{word}").unwrap();
    let mut said = String::new();
    BufReader::new(stream).read_line(&mut said).unwrap();
    print!("{said}");
}
