//! Random numbers, from the kernel itself: a chroot or a container may have no device for them.

use rustix::rand::{GetRandomFlags, getrandom};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};

/// As many bytes as the array has: at most 256, which come all at once.
pub(crate) fn bytes<const COUNT: usize>() -> Result<[u8; COUNT]> {
    const { assert!(COUNT <= 256) };
    let mut bytes = [0; COUNT];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|e| Error::new(ErrorKind::Host, "drawing random numbers").because(e))?;
    debug_assert_eq!(filled, COUNT);
    Ok(bytes)
}

/// An id that nothing else has.
pub(crate) fn uuid() -> Result<Uuid> {
    Ok(uuid::Builder::from_random_bytes(bytes()?).into_uuid())
}
