//! Sends frames as they are, from within a guest: each with its length before it, on standard
//! input. A program of the guest tier's tests.

// A test's program: what fails fails the test.
#![allow(clippy::unwrap_used)]

#[path = "../../lab/wire.rs"]
mod wire;

use std::io::Read;

fn main() {
    let mut packed = Vec::new();
    std::io::stdin().read_to_end(&mut packed).unwrap();
    let wire = wire::Wire::of("eth0");
    let mut rest = packed.as_slice();
    while let [high, low, frames @ ..] = rest {
        let (frame, more) = frames.split_at(u16::from_be_bytes([*high, *low]).into());
        rest = more;
        wire.send(frame).unwrap();
    }
}
