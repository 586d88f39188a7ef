//! The programs out of a release's archive, and nothing else of it.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use super::Version;
use crate::spec::Arch;
use crate::{Error, ErrorKind, Result, durable};

/// The programs that are wanted; the first one must be there.
const PROGRAMS: [&str; 3] = ["firecracker", "jailer", "snapshot-editor"];
const MOST_ENTRIES: usize = 10_000;
/// What the whole archive may hold: debug files are part of it.
const MOST_BYTES: u64 = 1 << 30;

/// Unpacks into `dir`, which appears whole.
pub(super) fn release(archive: &Path, version: Version, arch: Arch, dir: &Path) -> Result<()> {
    let parent = dir.parent().unwrap_or(dir);
    durable::private_dir(parent)?;
    let work = tempfile::Builder::new()
        .prefix(".new-")
        .tempdir_in(parent)
        .map_err(|e| Error::io("making a directory in", parent, e))?;
    let file = File::open(archive).map_err(|e| Error::io("opening", archive, e))?;
    let bytes = flate2::read::GzDecoder::new(BufReader::with_capacity(1 << 18, file));
    programs(bytes, archive, version, arch, work.path())?;
    durable::sync_dir(work.path())?;
    std::fs::rename(work.path(), dir).map_err(|e| Error::io("naming", dir, e))?;
    let _renamed = work.keep();
    durable::sync_dir(parent)
}

/// Reads the whole archive, so that a damaged end shows.
pub(super) fn programs(
    bytes: impl Read,
    archive: &Path,
    version: Version,
    arch: Arch,
    dir: &Path,
) -> Result<()> {
    let refused = |what: String| {
        Error::new(
            ErrorKind::Corrupt,
            format!("the archive {}: {what}", archive.display()),
        )
        .at(archive)
    };
    let damaged = |e: std::io::Error| refused("it is damaged".into()).because(e);
    let mut limited = bytes.take(MOST_BYTES);
    let mut tar = tar::Archive::new(&mut limited);
    let mut first = false;
    for (count, entry) in tar.entries().map_err(damaged)?.enumerate() {
        if count >= MOST_ENTRIES {
            return Err(refused(format!("it holds more than {MOST_ENTRIES} files")));
        }
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let inside = |path: &Path| {
            path.components()
                .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        };
        let kind = entry.header().entry_type();
        if !inside(&path) || !(kind.is_file() || kind.is_dir()) {
            let what = format!("{} isn't what a release holds", path.display());
            return Err(refused(what).hint("only plain files below its directory are taken"));
        }
        let wanted = PROGRAMS.into_iter().find(|program| {
            let name = format!("release-v{version}-{arch}/{program}-v{version}-{arch}");
            kind.is_file() && path.components().eq(Path::new(&name).components())
        });
        let Some(program) = wanted else { continue };
        let target = dir.join(program);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(&target)
            .map_err(|e| Error::io("unpacking", &target, e))?;
        let size = entry.size();
        let copied =
            std::io::copy(&mut entry, &mut file).map_err(|e| Error::io("unpacking", &target, e))?;
        if copied != size {
            return Err(refused("it ends too early".into()));
        }
        file.sync_all()
            .map_err(|e| Error::io("unpacking", &target, e))?;
        first |= program == PROGRAMS[0];
    }
    // The checksum that gzip has at its end.
    std::io::copy(&mut limited, &mut std::io::sink()).map_err(damaged)?;
    if limited.limit() == 0 {
        return Err(refused("it holds more than 1 GiB".into()));
    }
    if !first {
        return Err(refused(format!(
            "it holds no release-v{version}-{arch}/firecracker-v{version}-{arch}"
        )));
    }
    Ok(())
}
