//! The host that a snapshot was made on, and whether this one is like it.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Version;
use crate::host::{CpuVendor, HostFacts};
use crate::spec::Arch;

/// What a snapshot depends on besides its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Origin {
    /// Architecture.
    pub arch: Option<Arch>,
    /// Who made the processor.
    pub cpu_vendor: CpuVendor,
    /// The processor's model.
    pub cpu_model: String,
    /// Release of the host's kernel.
    pub kernel: String,
    /// Version of Firecracker.
    pub firecracker: Version,
    /// Version of the format of the state file, where that says so: `6.0.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_format: Option<String>,
}

impl Origin {
    /// This host, running this Firecracker.
    pub fn here(facts: &HostFacts, firecracker: Version) -> Self {
        Self {
            arch: facts.arch,
            cpu_vendor: facts.cpu.vendor,
            cpu_model: facts.cpu.model.clone(),
            kernel: facts.kernel.clone(),
            firecracker,
            state_format: None,
        }
    }

    /// Refuses to load on `here` what was made on this host. Firecracker itself would load some
    /// of it, and the guest would go wrong later.
    ///
    /// # Errors
    /// [`ErrorKind::Host`] with each difference.
    pub fn require_like(&self, here: &Self) -> Result<()> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, same: bool, there: &str, here: &str| {
            if !same {
                differences.push(format!("its {what} is {there}, this host's is {here}"));
            }
        };
        let arch = |origin: &Self| origin.arch.map_or("unknown", Arch::as_str);
        compare(
            "architecture",
            self.arch == here.arch,
            arch(self),
            arch(here),
        );
        let same_cpu = (self.cpu_vendor, &self.cpu_model) == (here.cpu_vendor, &here.cpu_model);
        compare("CPU model", same_cpu, &self.cpu_model, &here.cpu_model);
        let same_kernel = major_minor(&self.kernel) == major_minor(&here.kernel);
        compare("host kernel", same_kernel, &self.kernel, &here.kernel);
        let series = |version: Version| (version.major, version.minor);
        compare(
            "Firecracker",
            series(self.firecracker) == series(here.firecracker),
            &self.firecracker.to_string(),
            &here.firecracker.to_string(),
        );
        if let (Some(there), Some(here)) =
            (&self.state_format, format_of(here.firecracker).as_deref())
        {
            let same = there.split('.').next() == Some(here);
            compare("state format", same, there, here);
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Host,
            format!(
                "the snapshot was made on another host: {}",
                differences.join("; ")
            ),
        )
        .hint(
            "restore it where CPU model, kernel (first two numbers) and Firecracker (first two \
             numbers) are the same; --unchecked tries it all the same",
        ))
    }
}

fn major_minor(release: &str) -> Vec<&str> {
    release
        .split(|it: char| !it.is_ascii_digit())
        .take(2)
        .collect()
}

/// The major version of the state file's format that a Firecracker reads and writes.
fn format_of(firecracker: Version) -> Option<String> {
    let major = match (firecracker.major, firecracker.minor) {
        (1, 9 | 10) => 3,
        (1, 11) => 5,
        (1, 12) => 6,
        (1, 13 | 14) => 8,
        (1, 15) => 9,
        (1, 16) => 10,
        _ => return None,
    };
    Some(major.to_string())
}

/// What a state file's head says: its format's version. `None` where the head is of a kind that
/// isn't known here.
pub(super) fn state_format(path: &Path) -> Result<Option<String>> {
    let mut head = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(64).read_to_end(&mut head))
        .map_err(|e| Error::io("reading", path, e))?;
    Ok(parse_head(&head))
}

/// The head: a magic number that tells the architecture, the length of a text, the text.
fn parse_head(head: &[u8]) -> Option<String> {
    const MAGIC: [u64; 2] = [0x0710_1984_8664_0000, 0x0710_1984_AAAA_0000];
    let number = |at: usize| {
        let bytes = head.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    if !MAGIC.contains(&number(0)?) {
        return None;
    }
    let length = usize::try_from(number(8)?).ok().filter(|it| *it <= 32)?;
    let text = std::str::from_utf8(head.get(16..16 + length)?).ok()?;
    let is_version =
        text.split('.').count() == 3 && text.bytes().all(|it| it.is_ascii_digit() || it == b'.');
    is_version.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin {
            arch: Some(Arch::X86_64),
            cpu_vendor: CpuVendor::Intel,
            cpu_model: "Xeon 1".into(),
            kernel: "6.1.0-56-amd64".into(),
            firecracker: Version::new(1, 12, 1),
            state_format: Some("6.0.0".into()),
        }
    }

    #[test]
    fn a_host_alike_is_taken_and_each_difference_is_named() {
        let here = origin();
        let patched = Origin {
            kernel: "6.1.0-57-amd64".into(),
            firecracker: Version::new(1, 12, 0),
            state_format: None,
            ..origin()
        };
        patched.require_like(&here).unwrap();
        let others: [(Origin, &str); 5] = [
            (
                Origin {
                    arch: Some(Arch::Aarch64),
                    ..origin()
                },
                "architecture",
            ),
            (
                Origin {
                    cpu_model: "Xeon 2".into(),
                    ..origin()
                },
                "CPU model is Xeon 2, this host's is Xeon 1",
            ),
            (
                Origin {
                    kernel: "6.8.0-1-generic".into(),
                    ..origin()
                },
                "host kernel",
            ),
            (
                Origin {
                    firecracker: Version::new(1, 13, 0),
                    ..origin()
                },
                "Firecracker is 1.13.0",
            ),
            (
                Origin {
                    state_format: Some("7.0.0".into()),
                    ..origin()
                },
                "state format is 7.0.0",
            ),
        ];
        for (other, told) in others {
            let refused = other.require_like(&here).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Host);
            assert!(refused.to_string().contains(told), "{refused}");
        }
    }

    #[test]
    fn the_head_of_a_state_file_tells_its_format() {
        let mut head = 0x0710_1984_8664_0000_u64.to_le_bytes().to_vec();
        head.extend(5_u64.to_le_bytes());
        head.extend(b"6.0.0 and more");
        assert_eq!(parse_head(&head).as_deref(), Some("6.0.0"));
        assert_eq!(parse_head(&head[..18]), None);
        head[0] = 1;
        assert_eq!(parse_head(&head), None);
    }
}
