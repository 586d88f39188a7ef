//! TAP devices that a spec names.

use std::path::Path;

use crate::ErrorKind;

/// The flag of a TUN/TAP device that carries Ethernet frames (`IFF_TAP`).
const TAP: u32 = 0x2;

/// What keeps a microVM from using the TAP device `name`: kind, what is wrong, what to do.
/// `sys_class_net` is /sys/class/net. Firecracker itself would make a missing one, in silence
/// and connected to nothing.
pub(super) fn check(
    sys_class_net: &Path,
    name: &str,
    euid: u32,
) -> Result<(), (ErrorKind, String, String)> {
    let device = sys_class_net.join(name);
    let read = |file: &str| {
        std::fs::read_to_string(device.join(file))
            .ok()
            .map(|text| text.trim().to_owned())
    };
    if !device.exists() {
        let problem = format!("there is no network interface {name:?}");
        let advice = "a TAP device that exists, or leave it out and one is made";
        return Err((ErrorKind::NotFound, problem, advice.into()));
    }
    let flags = read("tun_flags")
        .and_then(|flags| u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok());
    if flags.is_none_or(|flags| flags & TAP == 0) {
        let problem = format!("the network interface {name:?} isn't a TAP device");
        return Err((ErrorKind::Invalid, problem, "a TAP device".into()));
    }
    // A TAP device has a carrier while a process has it open. The file can't be read while the
    // interface is down; then it can't be told.
    if read("carrier").as_deref() == Some("1") {
        let problem = format!("the TAP device {name:?} is in use by another process");
        return Err((
            ErrorKind::WrongState,
            problem,
            "a TAP device of its own for each microVM".into(),
        ));
    }
    let owner = read("owner").and_then(|owner| owner.parse::<u32>().ok());
    if let Some(owner) = owner
        && euid != 0
        && owner != euid
    {
        let problem = format!("the TAP device {name:?} belongs to the user {owner}");
        let advice = format!("one that belongs to the user {euid}");
        return Err((ErrorKind::Host, problem, advice));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_exists_is_a_tap_is_free_and_is_ours() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("tap0");
        let judge = |euid| check(sys.path(), "tap0", euid).map_err(|(kind, ..)| kind);
        let write = |file: &str, text: &str| std::fs::write(device.join(file), text).unwrap();

        assert_eq!(judge(0), Err(ErrorKind::NotFound));
        std::fs::create_dir(&device).unwrap();
        assert_eq!(judge(0), Err(ErrorKind::Invalid), "eth0 and its like");
        write("tun_flags", "0x1001\n");
        assert_eq!(judge(0), Err(ErrorKind::Invalid), "a TUN device");
        write("tun_flags", "0x1802\n");
        write("owner", "-1\n");
        write("carrier", "0\n");
        assert_eq!(
            judge(1000),
            Ok(()),
            "a TAP device of nobody's is everybody's"
        );
        write("owner", "1000\n");
        assert_eq!(judge(1000), Ok(()));
        assert_eq!(judge(0), Ok(()));
        assert_eq!(judge(1001), Err(ErrorKind::Host));
        write("carrier", "1\n");
        assert_eq!(judge(1000), Err(ErrorKind::WrongState));
    }
}
