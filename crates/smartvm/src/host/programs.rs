//! Programs that smartvm uses, and which versions there are.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Longest wait for a program to tell its version.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most of a program's output that is looked at.
const MAX_OUTPUT_BYTES: u64 = 4096;

/// A program on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Program {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub purpose: String,
    /// Where it is; `None`: nowhere on PATH.
    pub path: Option<PathBuf>,
    /// The version that it tells, if asked for.
    pub version: Option<String>,
}

/// A Firecracker binary and the jailer beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct FirecrackerFacts {
    /// The binary.
    pub path: PathBuf,
    /// The version that it tells.
    pub version: Option<String>,
    /// The version that the jailer beside it tells; `None`: there is no jailer.
    pub jailer_version: Option<String>,
}

impl FirecrackerFacts {
    /// Asks the binary at `path` and the jailer beside it.
    pub fn gather(path: &Path) -> Self {
        let jailer = path.with_file_name("jailer");
        Self {
            path: path.to_owned(),
            version: version(path, "--version"),
            jailer_version: jailer
                .is_file()
                .then(|| version(&jailer, "--version").unwrap_or_else(|| "unknown".to_owned())),
        }
    }
}

/// What is looked for: name, argument that makes it tell its version, purpose.
const PROGRAMS: [(&str, &str, &str); 6] = [
    ("nft", "--version", "networks with NAT or a firewall"),
    ("mke2fs", "-V", "building images"),
    ("debugfs", "-V", "building images"),
    ("e2fsck", "-V", "checking images"),
    ("mksquashfs", "-version", "building compressed images"),
    (
        QEMU,
        "--version",
        "the emulated host (development and CI only)",
    ),
];

#[cfg(target_arch = "x86_64")]
const QEMU: &str = "qemu-system-x86_64";
#[cfg(not(target_arch = "x86_64"))]
const QEMU: &str = "qemu-system-aarch64";

/// Looks for the programs on `search_path` (the value of PATH), and asks for their versions.
pub(super) fn gather(search_path: &std::ffi::OsStr) -> Vec<Program> {
    PROGRAMS
        .iter()
        .map(|(name, argument, purpose)| {
            let path = find(search_path, name);
            Program {
                name: (*name).to_owned(),
                purpose: (*purpose).to_owned(),
                version: path.as_deref().and_then(|path| version(path, argument)),
                path,
            }
        })
        .collect()
}

/// The first executable of that name. What root uses often lies outside an ordinary PATH.
fn find(search_path: &std::ffi::OsStr, name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    std::env::split_paths(search_path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|path| {
            path.metadata()
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}

/// The first thing in the program's output that looks like a version.
fn version(program: &Path, argument: &str) -> Option<String> {
    version_within(program, argument, PATIENCE)
}

fn version_within(program: &Path, argument: &str, patience: Duration) -> Option<String> {
    let mut child = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("LC_ALL", "C")
        .spawn()
        .ok()?;
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            _ => {
                // It may have ended by itself just now; either way it is waited for.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
    // The program has ended, so what it wrote is in the pipes, whose size bounds it; someone it
    // left behind could hold them open, but then the first kilobytes are there all the same.
    let mut text = Vec::new();
    for stream in [
        child.stdout.take().map(|it| Box::new(it) as Box<dyn Read>),
        child.stderr.take().map(|it| Box::new(it) as Box<dyn Read>),
    ]
    .into_iter()
    .flatten()
    {
        let _ = stream.take(MAX_OUTPUT_BYTES).read_to_end(&mut text);
    }
    parse(&String::from_utf8_lossy(&text))
}

fn parse(text: &str) -> Option<String> {
    let word = text.split_whitespace().find(|word| {
        let plain = word.strip_prefix('v').unwrap_or(word);
        plain.starts_with(|it: char| it.is_ascii_digit()) && plain.contains('.')
    })?;
    let plain = word.strip_prefix('v').unwrap_or(word);
    Some(
        plain
            .trim_end_matches([',', ')'])
            .chars()
            .take(32)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_version_in_what_real_programs_print() {
        let told = [
            "nftables v1.0.6 (Lester Gooch #5)",
            "mke2fs 1.47.0 (5-Feb-2023)",
            "QEMU emulator version 7.2.17 (Debian 1:7.2)",
            "Firecracker v1.12.1\n\n2026-11-24T04:10:05 [anonymous-instance:main] exiting",
            "mksquashfs version 4.5.1 (2022/03/17)",
            "nothing",
        ]
        .map(parse);
        let versions = ["1.0.6", "1.47.0", "7.2.17", "1.12.1", "4.5.1"];
        let expected = versions.map(|it| Some(it.to_owned()));
        assert_eq!(told[..5], expected);
        assert_eq!(told[5], None);
    }

    #[test]
    fn a_program_that_does_not_end_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let started = Instant::now();
        let soon = Duration::from_millis(50);
        assert_eq!(version_within(&dir.path().join("missing"), "x", soon), None);
        assert_eq!(version_within(Path::new("/bin/sleep"), "60", soon), None);
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
