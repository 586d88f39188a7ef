//! Finding the guest's program on the host.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result};

/// The program's name.
const NAME: &str = "smartvm-agent";

/// The most program headers that are looked at; a linker writes about ten.
const MAX_HEADERS: u16 = 256;

const HOW: &str = "build it with `cargo build --package smartvm-agent` in the smartvm workspace, \
     which links it statically, and put it beside the smartvm binary or on PATH";

/// Finds the static program that goes into a guest's initramfs: `explicit` where given, else
/// beside the current executable, else on PATH.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::Invalid`] if it isn't a static Linux
/// program, as nothing else runs in an initramfs.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = explicit {
        check(path)?;
        return Ok(path.to_owned());
    }
    let executable = std::env::current_exe().unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = candidates(&executable, &path)
        .into_iter()
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "finding the guest's program {NAME}: it is neither beside this one nor on PATH"
                ),
            )
            .hint(HOW)
        })?;
    check(&found)?;
    Ok(found)
}

fn candidates(executable: &Path, path: &OsStr) -> Vec<PathBuf> {
    let beside = executable.parent();
    // Cargo puts test programs one directory deeper.
    let above = beside
        .filter(|directory| directory.file_name() == Some(OsStr::new("deps")))
        .and_then(Path::parent);
    beside
        .into_iter()
        .chain(above)
        .map(Path::to_owned)
        .chain(std::env::split_paths(path).filter(|entry| entry.is_absolute()))
        .map(|directory| directory.join(NAME))
        .collect()
}

/// Checks that this is a Linux program which needs no loader.
fn check(path: &Path) -> Result<()> {
    const DOING: &str = "reading the guest's program";
    let mut file = File::open(path).map_err(|error| Error::io(DOING, path, error).hint(HOW))?;
    let unfit = match fault_of(&mut file) {
        Ok(None) => return Ok(()),
        Ok(Some(unfit)) => unfit,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => "it is truncated",
        Err(error) => return Err(Error::io(DOING, path, error)),
    };
    let message = format!("{} can't run in a guest: {unfit}", path.display());
    Err(Error::new(ErrorKind::Invalid, message).at(path).hint(HOW))
}

/// Why this can't run without a loader and libraries, if it can't.
fn fault_of(file: &mut (impl Read + Seek)) -> std::io::Result<Option<&'static str>> {
    const PT_INTERP: [u8; 4] = [3, 0, 0, 0];
    const PROGRAM_HEADER: usize = 56;
    let mut header = [0; 64];
    file.read_exact(&mut header)?;
    if header[..4] != *b"\x7fELF" {
        return Ok(Some("it is no ELF program"));
    }
    // 64 bits, little endian.
    if header[4..6] != [2, 1] {
        return Ok(Some("it is for another architecture"));
    }
    let half = |place: usize| u16::from_le_bytes([header[place], header[place + 1]]);
    if !matches!(half(16), 2 | 3) {
        return Ok(Some("it is no executable"));
    }
    if half(18) != machine() {
        return Ok(Some("it is for another architecture"));
    }
    let mut table = [0; 8];
    table.copy_from_slice(&header[32..40]);
    let (size, count) = (half(54), half(56));
    if usize::from(size) != PROGRAM_HEADER || count > MAX_HEADERS {
        return Ok(Some("its program headers are damaged"));
    }
    let table = u64::from_le_bytes(table);
    for index in 0..u64::from(count) {
        let place = table.checked_add(index * u64::from(size));
        let Some(place) = place.filter(|place| i64::try_from(*place).is_ok()) else {
            return Ok(Some("its program headers are damaged"));
        };
        file.seek(SeekFrom::Start(place))?;
        let mut program_header = [0; PROGRAM_HEADER];
        file.read_exact(&mut program_header)?;
        if program_header[..4] == PT_INTERP {
            return Ok(Some("it is linked dynamically"));
        }
    }
    Ok(None)
}

/// ELF's number for the architecture that guests of this host have.
fn machine() -> u16 {
    if cfg!(target_arch = "aarch64") {
        183
    } else {
        62
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A program with these kinds of program headers.
    fn program(headers: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56 * headers.len()];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16] = 3;
        bytes[18..20].copy_from_slice(&machine().to_le_bytes());
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = u8::try_from(headers.len()).expect("a few headers");
        for (index, kind) in headers.iter().enumerate() {
            bytes[64 + 56 * index..][..4].copy_from_slice(&kind.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_static_program_is_fit_and_a_dynamic_one_is_not() {
        let fault = |bytes| fault_of(&mut Cursor::new(bytes)).expect("readable");
        assert_eq!(fault(program(&[1, 1, 2])), None);
        assert_eq!(fault(program(&[1, 3, 2])), Some("it is linked dynamically"));
        let mut other = program(&[1]);
        other[18] = 1;
        assert_eq!(fault(other), Some("it is for another architecture"));
        let mut script = program(&[1]);
        script[..2].copy_from_slice(b"#!");
        assert_eq!(fault(script), Some("it is no ELF program"));
        let mut endless = program(&[1]);
        endless[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(fault(endless), Some("its program headers are damaged"));
    }

    #[test]
    fn damaged_programs_are_errors_with_a_way_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(NAME);
        for length in [0, 3, 63, 64, 100] {
            std::fs::write(&path, &program(&[1])[..length]).expect("a file");
            let error = find(Some(&path)).expect_err("truncated");
            assert_eq!(error.kind(), ErrorKind::Invalid, "{length}: {error}");
            assert!(error.way_out().is_some());
        }
        std::fs::write(&path, program(&[1])).expect("a file");
        assert_eq!(find(Some(&path)).expect("fit"), path);
        let missing = find(Some(&directory.path().join("none"))).expect_err("missing");
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn it_is_looked_for_beside_the_program_and_then_on_path() {
        let found = candidates(
            Path::new("/w/target/debug/deps/tests-1"),
            OsStr::new("/usr/bin:relative:/bin"),
        );
        let expected = [
            "/w/target/debug/deps/smartvm-agent",
            "/w/target/debug/smartvm-agent",
            "/usr/bin/smartvm-agent",
            "/bin/smartvm-agent",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
    }
}
