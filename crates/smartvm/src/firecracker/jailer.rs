//! Firecracker's jailer: its arguments, and where it makes its chroots.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Binary;
use crate::error::{Error, ErrorKind, Result};
use crate::jail::Ids;

/// How the jailer is called for one VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Jailer {
    /// The jailer's executable.
    pub executable: PathBuf,
    /// The VM's id.
    pub id: String,
    /// The directory of chroots.
    pub chroot_base: PathBuf,
    /// The network namespace to enter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_ns: Option<PathBuf>,
    /// Whether Firecracker gets a process namespace of its own.
    #[serde(default)]
    pub new_pid_ns: bool,
    /// Limits on the process: `fsize=…` and `no-file=…`.
    #[serde(default)]
    pub resource_limits: Vec<String>,
}

impl Jailer {
    /// The jailer's arguments, with Firecracker's own at the end. It gives `--id` to
    /// Firecracker itself.
    pub fn arguments(&self, firecracker: &Path, ids: Ids, own: &[String]) -> Result<Vec<String>> {
        let (uid, gid) = (ids.uid.to_string(), ids.gid.to_string());
        let mut args: Vec<String> = Vec::new();
        let mut option = |name: &str, value: &str| args.extend([name.into(), value.into()]);
        option("--id", &self.id);
        option("--exec-file", utf8(firecracker)?);
        option("--uid", &uid);
        option("--gid", &gid);
        option("--chroot-base-dir", utf8(&self.chroot_base)?);
        if let Some(net_ns) = &self.net_ns {
            option("--netns", utf8(net_ns)?);
        }
        for limit in &self.resource_limits {
            option("--resource-limit", limit);
        }
        if self.new_pid_ns {
            args.push("--new-pid-ns".into());
        }
        args.push("--".into());
        args.extend_from_slice(own);
        Ok(args)
    }

    /// Where the jailer writes the pid of a Firecracker with a process namespace of its own.
    pub fn pid_file(firecracker: &Path, root: &Path) -> PathBuf {
        let mut name = exec_name(firecracker).to_owned();
        name.push(".pid");
        root.join(name)
    }
}

/// One VM's directory below the base: the jailer puts `root`, the chroot, in it.
pub fn directory(base: &Path, firecracker: &Path, id: &str) -> PathBuf {
    base.join(exec_name(firecracker)).join(id)
}

fn exec_name(firecracker: &Path) -> &std::ffi::OsStr {
    firecracker.file_name().unwrap_or_default()
}

/// The jailer beside this Firecracker.
///
/// # Errors
/// [`ErrorKind::Host`] if there is none, if it is of another version, or if it would refuse
/// the name of Firecracker's executable.
pub fn beside(firecracker: &Binary) -> Result<PathBuf> {
    let path = firecracker.path().with_file_name("jailer");
    let refuse = |message: String, hint: &str| {
        Err(Error::new(ErrorKind::Host, message).at(&path).hint(format!(
            "{hint}, or do without a jail: `mode: off`, --jail off"
        )))
    };
    if !path.is_file() {
        let message = format!("there is no jailer at {}", path.display());
        return refuse(
            message,
            "put the jailer of the same version beside Firecracker",
        );
    }
    let version = super::binary::ask_version(&path, "Jailer v")?;
    if version != firecracker.version() {
        let message = format!(
            "the jailer is {version}, and Firecracker is {}",
            firecracker.version()
        );
        return refuse(
            message,
            "put the jailer of the same version beside Firecracker",
        );
    }
    let name = exec_name(firecracker.path()).to_string_lossy();
    if !name.contains("firecracker") {
        let message = format!("the jailer takes no executable named {name:?}");
        return refuse(
            message,
            "give Firecracker's executable a name with `firecracker` in it",
        );
    }
    Ok(path)
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        let message = format!("{} is not UTF-8, as the jailer needs it", path.display());
        Error::new(ErrorKind::Invalid, message).at(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_an_argument_and_firecrackers_own_come_last() {
        let jailer = Jailer {
            executable: "/opt/jailer".into(),
            id: "web".into(),
            chroot_base: "/srv/jail".into(),
            net_ns: Some("/run/netns/blue".into()),
            new_pid_ns: true,
            resource_limits: vec!["fsize=5".into(), "no-file=64".into()],
        };
        let ids = Ids { uid: 7, gid: 8 };
        let own = ["--level".to_owned(), "Off".to_owned()];
        let args = jailer.arguments(Path::new("/opt/firecracker"), ids, &own);
        assert_eq!(
            args.unwrap().join(" "),
            "--id web --exec-file /opt/firecracker --uid 7 --gid 8 --chroot-base-dir /srv/jail \
             --netns /run/netns/blue --resource-limit fsize=5 --resource-limit no-file=64 \
             --new-pid-ns -- --level Off"
        );
    }
}
