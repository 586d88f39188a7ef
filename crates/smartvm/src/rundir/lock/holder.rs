//! Who holds a lock, and why, for those who wait for it in vain.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};

use serde::{Deserialize, Serialize};

/// What is read at most of what a holder says.
const MOST_BYTES: usize = 512;

/// What a holder writes at least, padded: more than any of them has to say.
const USUAL_BYTES: usize = 128;

/// So many bytes are read of the kernel's list of locks.
const MOST_LOCKS: u64 = 1 << 20;

/// What a holder says of itself, in the file that it locked.
#[derive(Serialize, Deserialize)]
pub(super) struct Holder {
    pid: u32,
    doing: String,
}

impl Holder {
    /// This process, which is doing something.
    pub(super) fn this(doing: &str) -> Self {
        Self {
            pid: std::process::id(),
            doing: doing.to_owned(),
        }
    }

    /// Writes it into the locked file.
    pub(super) fn say(&self, file: &File) {
        // It only helps to understand: a full disk must not keep anybody from cleaning up.
        let _unsaid = serde_json::to_vec(self)
            .map_err(std::io::Error::other)
            .and_then(|mut text| {
                // Over all of what another holder said.
                text.resize(text.len().max(USUAL_BYTES), b' ');
                file.write_all_at(&text, 0)
            });
    }

    /// What the last one who said something said.
    fn last(file: &File) -> Option<Self> {
        let mut text = [0; MOST_BYTES];
        let length = file.read_at(&mut text, 0).ok()?;
        serde_json::from_slice(&text[..length]).ok()
    }
}

/// What its holder does with this locked file. The kernel knows who that is, unless it is in
/// another pid namespace: what was said by another one isn't what is done now.
pub(super) fn told(file: &File) -> String {
    match (Holder::last(file), by_kernel(file)) {
        (Some(Holder { pid, doing }), holder) if holder.is_none_or(|holder| holder == pid) => {
            format!("process {pid} is {doing} it")
        }
        (_, holder) => working(holder),
    }
}

/// The same where a holder says nothing.
#[cfg(feature = "network")]
pub(super) fn told_by_kernel(file: &File) -> String {
    working(by_kernel(file))
}

fn working(holder: Option<u32>) -> String {
    match holder {
        Some(pid) => format!("process {pid} is working on it"),
        None => "another operation holds its lock".to_owned(),
    }
}

/// The process that holds this locked file, by the kernel's list.
fn by_kernel(file: &File) -> Option<u32> {
    let found = file.metadata().ok()?;
    let (major, minor) = (
        rustix::fs::major(found.dev()),
        rustix::fs::minor(found.dev()),
    );
    let place = format!("{major:02x}:{minor:02x}:{}", found.ino());
    let mut locks = String::new();
    let list = File::open("/proc/locks").ok()?;
    list.take(MOST_LOCKS).read_to_string(&mut locks).ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [_, "FLOCK", _, "WRITE", pid, at, ..] if *at == place => pid.parse().ok(),
            _ => None,
        }
    })
}
