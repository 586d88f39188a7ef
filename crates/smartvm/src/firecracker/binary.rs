//! Which Firecracker runs: an explicit path, else the cache under the data directory.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Version;
use crate::error::{Error, ErrorKind, Result};
use crate::process::ProcessId;
use crate::spec::{Arch, SmartVmOptions};

/// A Firecracker executable and the version that it says it is.
///
/// ```no_run
/// use smartvm::firecracker::Binary;
/// use smartvm::spec::SmartVmOptions;
///
/// let options = SmartVmOptions::builder().firecracker_version("1.12.1").build();
/// let binary = Binary::find(&options)?;
/// println!("{} is Firecracker {}", binary.path().display(), binary.version());
/// # Ok::<(), smartvm::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    path: PathBuf,
    version: Version,
}

impl Binary {
    /// The executable that the options name: `firecrackerBinaryPath`, else
    /// `<dataDir>/bin/<version>/<arch>/firecracker` or `<dataDir>/bin/<version>/firecracker`,
    /// where no or the version `latest` means the newest
    /// there.
    pub fn find(options: &SmartVmOptions) -> Result<Self> {
        if let Some(path) = &options.firecracker_binary_path {
            return Self::open(path);
        }
        let cache = options.data_dir().join("bin");
        let wanted = options
            .firecracker_version
            .as_deref()
            .filter(|&v| v != "latest");
        let version = match wanted {
            Some(text) => Some(text.parse::<Version>()?),
            None => newest(&cache, options.arch())?,
        };
        let path = version.and_then(|v| in_version(&cache.join(v.to_string()), options.arch()));
        match path {
            Some(path) => Self::open(&path),
            None => Err(Error::new(
                ErrorKind::Host,
                match wanted {
                    Some(version) => format!("Firecracker {version} is not in {}", cache.display()),
                    None => format!("no Firecracker is in {}", cache.display()),
                },
            )
            .at(&cache)
            .hint(
                "install one (smartvm firecracker install), name one (--firecracker PATH, \
                 SMARTVM_FIRECRACKER, or firecrackerBinaryPath in the configuration), or put one \
                 at <data dir>/bin/<version>/firecracker",
            )),
        }
    }

    /// The executable at `path`, asked for its version.
    pub fn open(path: &Path) -> Result<Self> {
        let path = path
            .canonicalize()
            .map_err(|e| Error::io("finding the Firecracker binary", path, e))?;
        let found = path
            .metadata()
            .map_err(|e| Error::io("looking at the Firecracker binary", &path, e))?;
        if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
            return Err(Error::new(
                ErrorKind::Host,
                format!("{} is not an executable file", path.display()),
            )
            .at(&path)
            .hint("name the firecracker executable itself, and make it executable"));
        }
        let version = ask_version(&path, "Firecracker v")?;
        if version < Version::OLDEST {
            return Err(Error::new(
                ErrorKind::Host,
                format!("{} is Firecracker {version}", path.display()),
            )
            .at(&path)
            .hint(format!("use Firecracker {} or newer", Version::OLDEST)));
        }
        Ok(Self { path, version })
    }

    /// The executable, absolute and without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it said of itself.
    pub fn version(&self) -> Version {
        self.version
    }
}

/// The executable in a version's directory: installed for this architecture, or put there.
fn in_version(dir: &Path, arch: Arch) -> Option<PathBuf> {
    let installed = dir.join(arch.to_string()).join("firecracker");
    [installed, dir.join("firecracker")]
        .into_iter()
        .find(|path| path.exists())
}

fn newest(cache: &Path, arch: Arch) -> Result<Option<Version>> {
    let entries = match std::fs::read_dir(cache) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("reading", cache, e)),
    };
    Ok(entries
        .flatten()
        .filter(|entry| in_version(&entry.path(), arch).is_some())
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .max())
}

/// `--version` prints a line `Firecracker v1.12.1` (the jailer: `Jailer v1.12.1`), and a log
/// line after it.
pub(super) fn ask_version(path: &Path, before: &str) -> Result<Version> {
    const MOST_BYTES: u64 = 4096;
    let failed = |what: String| {
        Error::new(
            ErrorKind::Host,
            format!("asking {} for its version: {what}", path.display()),
        )
        .at(path)
        .hint("is this a Firecracker binary for this architecture?")
    };
    let mut child = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    // A program that hangs must not hang us: it gets a deadline before its output is read,
    // and what is asked for fits in a pipe's buffer.
    let ended = match ProcessId::of(child.id())? {
        Some(id) => match id.open()? {
            Some(pidfd) => pidfd.wait(Duration::from_secs(10))?,
            None => true,
        },
        None => true,
    };
    if !ended {
        let killed = child.kill().and_then(|()| child.wait());
        let also = killed
            .err()
            .map(|e| format!("; killing it: {e}"))
            .unwrap_or_default();
        return Err(failed(format!("no answer within 10 s{also}")));
    }
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(MOST_BYTES)
            .read_to_end(&mut text)
            .map_err(|e| failed(e.to_string()))?;
    }
    child.wait().map_err(|e| failed(e.to_string()))?;
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .next()
        .and_then(|line| line.strip_prefix(before))
        .and_then(|version| version.trim().parse().ok())
        .ok_or_else(|| {
            failed(format!(
                "it printed {:?}",
                text.lines().next().unwrap_or("")
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("firecracker");
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn the_newest_version_in_the_cache_is_found_by_number() {
        let data = tempfile::tempdir().unwrap();
        for version in ["1.9.0", "1.12.1", "not-a-version"] {
            script(
                &data.path().join("bin").join(version),
                &format!("#!/bin/sh\necho Firecracker v{version}\necho log line\n"),
            );
        }
        let options = SmartVmOptions::builder().data_dir(data.path()).build();
        assert_eq!(
            Binary::find(&options).unwrap().version(),
            Version::new(1, 12, 1)
        );
        let options = SmartVmOptions::builder()
            .data_dir(data.path())
            .firecracker_version("v1.9.0")
            .build();
        assert_eq!(
            Binary::find(&options).unwrap().version(),
            Version::new(1, 9, 0)
        );
        let options = SmartVmOptions::builder()
            .data_dir(data.path())
            .firecracker_version("1.8.0")
            .build();
        assert_eq!(Binary::find(&options).unwrap_err().kind(), ErrorKind::Host);
    }

    #[test]
    fn what_is_not_firecracker_is_refused_with_what_it_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = script(dir.path(), "#!/bin/sh\necho hello\n");
        let error = Binary::open(&path).unwrap_err();
        assert!(error.to_string().contains("hello"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            Binary::open(&path)
                .unwrap_err()
                .to_string()
                .contains("not an executable")
        );
        script(dir.path(), "#!/bin/sh\necho Firecracker v1.6.0\n");
        assert!(
            Binary::open(&path)
                .unwrap_err()
                .way_out()
                .unwrap()
                .contains("1.7.0")
        );
    }
}
