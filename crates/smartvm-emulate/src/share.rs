//! Directories of this machine that the emulated host sees, over 9p.

use std::path::{Path, PathBuf};

use smartvm::{Error, ErrorKind, Result};

/// Separates the words of the kernel's command line and the parts of ours.
const UNSPEAKABLE: [char; 3] = [',', '"', '\n'];

/// A directory at its own path in the emulated host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) path: PathBuf,
}

impl Share {
    /// The directories to be writable, those above before those below.
    pub(crate) fn writable(directories: &[PathBuf]) -> Result<Vec<Self>> {
        let mut shares = directories
            .iter()
            .map(|directory| Self::new(directory))
            .collect::<Result<Vec<_>>>()?;
        shares.sort_by(|one, other| one.path.cmp(&other.path));
        shares.dedup();
        Ok(shares)
    }

    fn new(directory: &Path) -> Result<Self> {
        let path = directory
            .canonicalize()
            .map_err(|cause| Error::io("sharing the directory", directory, cause))?;
        let refused = |why: &str| {
            Error::new(
                ErrorKind::Invalid,
                format!("{} can't be made writable: {why}", path.display()),
            )
            .at(&path)
        };
        if !path.is_dir() {
            return Err(refused("it isn't a directory"));
        }
        if path == Path::new("/") {
            return Err(refused("the whole of this machine is to stay as it is"));
        }
        match path.to_str() {
            Some(text) if !text.contains(UNSPEAKABLE) => Ok(Self { path }),
            _ => Err(refused(
                "its path isn't UTF-8, or holds a comma, a quote or a line break",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_each_once() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        let below = root.join("below");
        std::fs::create_dir(&below).unwrap();
        let asked = [below.clone(), root.clone(), root.join("below/../below")];
        let shares = Share::writable(&asked).unwrap();
        let paths: Vec<_> = shares.into_iter().map(|share| share.path).collect();
        assert_eq!(paths, [root, below]);
    }

    #[test]
    fn what_cannot_be_shared_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        std::fs::write(&file, "").unwrap();
        let comma = temp.path().join("a,b");
        std::fs::create_dir(&comma).unwrap();
        for wrong in [PathBuf::from("/"), file, comma] {
            let error = Share::writable(std::slice::from_ref(&wrong)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{}", wrong.display());
        }
        let missing = Share::writable(&[temp.path().join("missing")]).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
