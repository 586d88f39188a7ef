//! Finding the root's block device by the kernel's own names for it.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::gpt;

const NAP: Duration = Duration::from_millis(5);

/// Whether `root=` names a block device, rather than a tag or an address.
pub(crate) fn is_device(source: &str) -> bool {
    source.starts_with("/dev/") || gpt::Wanted::parse(source).is_some() || is_number(source)
}

/// Waits for the device that `source` names.
pub(crate) fn wait(source: &str, deadline: Instant) -> Option<PathBuf> {
    loop {
        if let Some(device) = find(source) {
            return Some(device);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(NAP);
    }
}

/// The block devices that there are, for an error message.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = entries(Path::new("/sys/class/block"))
        .into_iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

/// `MAJOR:MINOR`.
fn is_number(source: &str) -> bool {
    source
        .split_once(':')
        .is_some_and(|(major, minor)| major.parse::<u32>().is_ok() && minor.parse::<u32>().is_ok())
}

fn find(source: &str) -> Option<PathBuf> {
    if source.starts_with("/dev/") {
        return existing(source.into());
    }
    if let Some(wanted) = gpt::Wanted::parse(source) {
        return entries(Path::new("/sys/block"))
            .into_iter()
            .find_map(|disk| find_partition(&disk, &wanted));
    }
    let uevent = std::fs::read_to_string(format!("/sys/dev/block/{source}/uevent")).ok()?;
    let name = uevent
        .lines()
        .find_map(|line| line.strip_prefix("DEVNAME="))?;
    existing(Path::new("/dev").join(name))
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    std::fs::metadata(&path)
        .is_ok_and(|metadata| metadata.file_type().is_block_device())
        .then_some(path)
}

/// The wanted partition's device, if it is on the disk that this directory of sysfs is about.
fn find_partition(disk: &Path, wanted: &gpt::Wanted) -> Option<PathBuf> {
    let number = |path: PathBuf| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u32>()
            .ok()
    };
    let sector = number(disk.join("queue/logical_block_size"))?;
    let mut device = File::open(Path::new("/dev").join(disk.file_name()?)).ok()?;
    let wanted = gpt::find(&mut device, sector, wanted)?;
    let partition = entries(disk)
        .into_iter()
        .find(|entry| number(entry.join("partition")) == Some(wanted))?;
    existing(Path::new("/dev").join(partition.file_name()?))
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory)
        .map(|entries| {
            entries
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .collect()
        })
        .unwrap_or_default()
}
