//! Sockets that listen for what a jailed guest connects to.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::{Bind, Ids, bring};
use crate::error::{Error, Result};

/// Makes the sockets `<prefix>_<port>` usable at `<target>_<port>`.
pub(super) fn bring(prefix: &Path, target: &Path, ids: Ids) -> Result<Vec<Bind>> {
    let mut binds = Vec::new();
    for (port, socket) in find(prefix)? {
        let what = format!("what listens for the guest at port {port}");
        let target = with_port(target, port);
        binds.extend(bring::bring(&what, &socket, &target, false, ids, &|| {
            false
        })?);
    }
    Ok(binds)
}

/// Those that are there, by their ports.
fn find(prefix: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let (Some(dir), Some(name)) = (prefix.parent(), prefix.file_name()) else {
        return Ok(Vec::new());
    };
    let failed = |e| Error::io("looking for sockets in", dir, e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let port = port(name, &entry.file_name());
        // A link would lead to whatever its maker likes.
        if let Some(port) = port.filter(|_| entry.file_type().is_ok_and(|it| it.is_socket())) {
            found.push((port, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The port in `<name>_<port>`, written as Firecracker writes it.
fn port(name: &OsStr, file: &OsStr) -> Option<u32> {
    let digits = file.as_bytes().strip_prefix(name.as_bytes())?;
    let digits = std::str::from_utf8(digits.strip_prefix(b"_")?).ok()?;
    let port: u32 = digits.parse().ok()?;
    (port.to_string() == digits).then_some(port)
}

fn with_port(path: &Path, port: u32) -> PathBuf {
    let mut path = path.as_os_str().to_owned().into_vec();
    path.extend_from_slice(format!("_{port}").as_bytes());
    std::ffi::OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_sockets_with_a_port_after_the_name_are_brought() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("v.sock");
        for name in [
            "v.sock",
            "v.sock_70",
            "v.sock_5",
            "v.sock_05",
            "v.sock_+5",
            "v.sock_4294967296",
            "v.sock_",
            "v.sock_5_5",
            "w.sock_5",
        ] {
            UnixListener::bind(dir.path().join(name)).unwrap();
        }
        symlink("w.sock_5", dir.path().join("v.sock_6")).unwrap();
        std::fs::write(dir.path().join("v.sock_7"), "").unwrap();
        let wanted = [5, 70].map(|port| (port, with_port(&prefix, port)));
        assert_eq!(find(&prefix).unwrap(), wanted);
    }

    #[test]
    fn one_that_the_jailed_user_may_not_connect_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (prefix, target) = (dir.path().join("v.sock"), dir.path().join("there"));
        let socket = with_port(&prefix, 5);
        let _listener = UnixListener::bind(&socket).unwrap();
        let ids = Ids {
            uid: 1_900_000_000,
            gid: 1_900_000_000,
        };
        let allow = |mode| std::fs::set_permissions(&socket, PermissionsExt::from_mode(mode));
        allow(0o755).unwrap();
        let refused = bring(&prefix, &target, ids).unwrap_err().to_string();
        assert!(
            refused.contains("port 5") && refused.contains("v.sock_5"),
            "{refused}"
        );
        allow(0o666).unwrap();
        let brought = bring(&prefix, &target, ids).unwrap();
        let bind = Bind {
            source: socket,
            target: with_port(&target, 5),
            writable: true,
        };
        assert_eq!(brought, [bind]);
    }
}
