//! Another address for a guest that was restored from a snapshot while the one that it has
//! belongs to somebody else.

use std::io;
use std::path::Path;

use crate::interface::Interfaces;
use crate::protocol::{ErrorCode, MoveAddress, Refusal};

/// Moves the interface that has the old address to the new one.
pub(super) fn change(wanted: &MoveAddress) -> Result<(), Refusal> {
    let mac = wanted.mac().ok_or_else(|| {
        let message = format!("changing an address: {:?} is no MAC address", wanted.mac);
        Refusal::new(ErrorCode::BadRequest, message)
    })?;
    let failed = |error: io::Error| {
        let code = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => ErrorCode::PermissionDenied,
            _ => ErrorCode::Failed,
        };
        let (from, to) = (wanted.from, wanted.to);
        Refusal::new(
            code,
            format!("changing the address {from} to {to}: {error}"),
        )
    };
    let interfaces = Interfaces::new().map_err(failed)?;
    let names = names().map_err(failed)?;
    let having = |address| {
        let has = |name: &&String| interfaces.address(name).ok().flatten() == Some(address);
        names.iter().find(has)
    };
    let Some(name) = having(wanted.from) else {
        return match having(wanted.to) {
            Some(_) => Ok(()),
            None => Err(failed(io::Error::other("no interface has it"))),
        };
    };
    let gateway = Some(wanted.gateway);
    interfaces
        .set_mac(name, mac)
        .and_then(|()| interfaces.configure(name, wanted.to, wanted.netmask, gateway))
        .map_err(failed)
}

fn names() -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(Path::new("/sys/class/net"))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.collect())
}
