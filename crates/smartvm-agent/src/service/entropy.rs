//! Randomness from the host, for a guest that was restored from a snapshot: without it, two
//! guests of one snapshot would make the same keys.

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::protocol::{AddEntropy, ErrorCode, MOST_ENTROPY, Refusal};

/// `RNDADDENTROPY` and `RNDRESEEDCRNG` of linux/random.h.
const ADD_ENTROPY: libc::Ioctl = 0x4008_5203_u32 as libc::Ioctl;
const RESEED: libc::Ioctl = 0x5207;

/// `struct rand_pool_info` with room for the most that is taken.
#[repr(C)]
struct Pool {
    entropy_bits: libc::c_int,
    size_bytes: libc::c_int,
    bytes: [u8; MOST_ENTROPY],
}

/// Stirs it into the kernel's pool, counted in full, and has the generator begin anew from it.
pub(super) fn add(entropy: &AddEntropy) -> Result<(), Refusal> {
    let bytes = entropy.bytes().ok_or_else(|| {
        let message = format!("adding randomness: not 1 to {MOST_ENTROPY} bytes in hexadecimal");
        Refusal::new(ErrorCode::BadRequest, message)
    })?;
    let failed = |error: std::io::Error| {
        let code = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => ErrorCode::PermissionDenied,
            _ => ErrorCode::Failed,
        };
        Refusal::new(code, format!("adding randomness: {error}"))
    };
    let mut pool = Pool {
        // At most MOST_ENTROPY bytes: both numbers are small.
        entropy_bits: (bytes.len() * 8) as libc::c_int,
        size_bytes: bytes.len() as libc::c_int,
        bytes: [0; MOST_ENTROPY],
    };
    pool.bytes[..bytes.len()].copy_from_slice(&bytes);
    let random = File::open("/dev/urandom").map_err(failed)?;
    // SAFETY: the kernel reads `size_bytes` bytes behind the two numbers, which are there.
    if unsafe { libc::ioctl(random.as_raw_fd(), ADD_ENTROPY, &raw const pool) } != 0 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    // SAFETY: this request takes no argument.
    if unsafe { libc::ioctl(random.as_raw_fd(), RESEED) } != 0 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    Ok(())
}
