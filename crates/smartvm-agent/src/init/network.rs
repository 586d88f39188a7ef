//! The guest's network as `ip=` describes it: one interface, one route; and the host's name.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::address::Address;
use super::log;

use smartvm_agent::interface::Interfaces;

/// How long the network card may take to appear.
const PATIENCE: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_millis(5);

/// Brings `lo` up always, and the network as asked for. What fails is reported: a guest without
/// network can still be reached over vsock.
pub(crate) fn bring_up(wanted: Option<&Address>) {
    if let Err(error) = Interfaces::new().and_then(|interfaces| interfaces.up("lo")) {
        log::error(&format!("bringing lo up: {error}"));
    }
    let Some(wanted) = wanted else {
        return;
    };
    if let Err(error) = configure(wanted) {
        log::error(&format!(
            "setting up the address {}: {error}",
            wanted.client
        ));
    }
}

/// Names the guest: as `ip=` says, else as the root does. A root's own init does the latter by
/// itself.
pub(crate) fn name_host(wanted: Option<&str>, alone: bool) {
    let own = || {
        let name = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
        Some(name.trim().to_owned()).filter(|name| !name.is_empty())
    };
    let name = match wanted {
        Some(name) => name.to_owned(),
        None if alone => own().unwrap_or_else(|| "localhost".to_owned()),
        None => return,
    };
    if let Err(error) = rustix::system::sethostname(name.as_bytes()) {
        log::error(&format!("setting the host name {name:?}: {error}"));
    }
}

fn configure(wanted: &Address) -> io::Result<()> {
    let device = wait_for_device(wanted.device.as_deref())?;
    Interfaces::new()?.configure(&device, wanted.client, wanted.netmask, wanted.gateway)
}

fn wait_for_device(name: Option<&str>) -> io::Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(device) = find_device(Path::new("/sys/class/net"), name) {
            return Ok(device);
        }
        if Instant::now() >= deadline {
            let what = name.unwrap_or("network interface");
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no {what} appeared"),
            ));
        }
        thread::sleep(NAP);
    }
}

/// The named interface, or the first by name that has a device behind it.
fn find_device(class: &Path, name: Option<&str>) -> Option<String> {
    if let Some(name) = name {
        let plain = !name.contains('/') && name != ".." && name != ".";
        return (plain && class.join(name).exists()).then(|| name.to_owned());
    }
    let mut names: Vec<String> = std::fs::read_dir(class)
        .ok()?
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("device").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_real_interface_is_taken_unless_one_is_named() {
        let class = tempfile::tempdir().expect("a directory");
        for name in ["lo", "sit0", "eth1/device", "eth0/device"] {
            std::fs::create_dir_all(class.path().join(name)).expect("an interface");
        }
        let find = |name| find_device(class.path(), name);
        assert_eq!(find(None).as_deref(), Some("eth0"));
        assert_eq!(find(Some("eth1")).as_deref(), Some("eth1"));
        assert_eq!(find(Some("eth2")), None);
        assert_eq!(find(Some("..")), None);
    }
}
