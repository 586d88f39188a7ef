//! What was fetched and made, kept from one run to the next.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};
use crate::progress::say;

/// The directory of what is kept, held by this process alone.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
    /// Gives it up to the next process when it is closed.
    _lock: File,
}

impl Cache {
    /// Opens `$SMARTVM_DEV_CACHE`, else `smartvm-dev` among the user's caches, and waits until
    /// no other process holds it.
    ///
    /// # Errors
    /// If there is no such place, or it can't be written.
    pub(crate) fn open() -> Result<Self> {
        let root = place(|name| std::env::var_os(name).map(PathBuf::from)).ok_or_else(|| {
            Failure::new("neither SMARTVM_DEV_CACHE nor XDG_CACHE_HOME nor HOME is set")
        })?;
        let root = std::path::absolute(&root).map_err(Failure::io("finding", &root))?;
        fs::create_dir_all(&root).map_err(Failure::io("making", &root))?;
        let path = root.join("lock");
        let lock = File::create(&path).map_err(Failure::io("opening", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                say(format_args!(
                    "waiting for another run that uses {}",
                    root.display()
                ));
                lock.lock().map_err(Failure::io("locking", &path))?;
            }
            Err(TryLockError::Error(cause)) => return Err(Failure::io("locking", &path)(cause)),
        }
        Ok(Self { root, _lock: lock })
    }

    /// Where something is kept.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// The directory `name`, made by `make` where it isn't there yet or was made by another
    /// recipe. `make` gets an empty directory, which takes its place only when all is done.
    ///
    /// # Errors
    /// Those of `make`, and if the cache can't be written.
    pub(crate) fn directory(
        &self,
        name: &str,
        recipe: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.path(name);
        let marker = self.marker(name);
        if path.is_dir() && fs::read_to_string(&marker).is_ok_and(|made| made == recipe) {
            return Ok(path);
        }
        let part = self.path(format!("{name}.part"));
        for old in [&marker, &path, &part] {
            remove(old)?;
        }
        fs::create_dir_all(&part).map_err(Failure::io("making", &part))?;
        make(&part)?;
        fs::rename(&part, &path).map_err(Failure::io("renaming", &part))?;
        fs::write(&marker, recipe).map_err(Failure::io("writing", &marker))?;
        Ok(path)
    }

    /// Notes that the directory `name` is in use.
    ///
    /// # Errors
    /// If the cache can't be written.
    pub(crate) fn touch(&self, name: &str) -> Result<()> {
        let marker = self.marker(name);
        let now = std::time::SystemTime::now();
        File::options()
            .append(true)
            .open(&marker)
            .and_then(|file| file.set_modified(now))
            .map_err(Failure::io("writing", &marker))
    }

    /// Removes the directories whose names begin so, but for the `keep` used last.
    ///
    /// # Errors
    /// If the cache can't be read or written.
    pub(crate) fn prune(&self, prefix: &str, keep: usize) -> Result<()> {
        let fault = || Failure::io("reading", &self.root);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(fault())? {
            let entry = entry.map_err(fault())?;
            let file = entry.file_name();
            let Some(name) = file.to_str().and_then(|name| name.strip_suffix(".done")) else {
                continue;
            };
            if name.starts_with(prefix) {
                let used = entry
                    .metadata()
                    .and_then(|data| data.modified())
                    .map_err(fault())?;
                found.push((used, name.to_owned()));
            }
        }
        found.sort();
        let many = found.len().saturating_sub(keep);
        for (_, name) in &found[..many] {
            remove(&self.marker(name))?;
            remove(&self.path(name))?;
        }
        Ok(())
    }

    fn marker(&self, name: &str) -> PathBuf {
        self.path(format!("{name}.done"))
    }
}

fn place(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|path| !path.as_os_str().is_empty());
    set("SMARTVM_DEV_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("smartvm-dev")))
        .or_else(|| Some(set("HOME")?.join(".cache/smartvm-dev")))
}

/// Removes a file, or a directory with all that is in it, if it is there.
fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(cause),
    };
    removed.map_err(Failure::io("removing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache in a directory of its own, removed at the end.
    struct Fresh(Cache);

    impl Fresh {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            fs::create_dir_all(&root).unwrap();
            let lock = File::create(root.join("lock")).unwrap();
            Self(Cache { root, _lock: lock })
        }
    }

    impl Drop for Fresh {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.root);
        }
    }

    #[test]
    fn a_directory_is_made_once_per_recipe_and_never_half() {
        let Fresh(cache) = &Fresh::new("once");
        let made = |recipe: &str, content: &str| {
            cache.directory("dir", recipe, |part| {
                fs::write(part.join("file"), content).map_err(Failure::io("writing", part))
            })
        };
        let path = made("1", "first").unwrap();
        made("1", "unused").unwrap();
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "first");
        made("2", "second").unwrap();
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "second");
        let failed = cache.directory("dir", "3", |_| Err(Failure::new("no")));
        assert!(failed.is_err() && !path.exists());
        made("3", "third").unwrap();
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "third");
    }

    #[test]
    fn pruning_keeps_what_was_used_last() {
        let Fresh(cache) = &Fresh::new("prune");
        for name in ["image-a", "image-b", "image-c", "other"] {
            cache.directory(name, "1", |_| Ok(())).unwrap();
        }
        let old = std::time::UNIX_EPOCH;
        for name in ["image-a", "image-b", "image-c", "other"] {
            let marker = File::options()
                .append(true)
                .open(cache.marker(name))
                .unwrap();
            marker.set_modified(old).unwrap();
        }
        cache.touch("image-a").unwrap();
        cache.prune("image-", 1).unwrap();
        let left = ["image-a", "image-b", "image-c", "other"].map(|name| cache.path(name).is_dir());
        assert_eq!(left, [true, false, false, true]);
    }

    #[test]
    fn the_cache_is_where_the_environment_says() {
        let place_of = |set: &[(&str, &str)]| {
            place(|name| {
                set.iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, value)| value.into())
            })
        };
        let all = [
            ("SMARTVM_DEV_CACHE", "/a"),
            ("XDG_CACHE_HOME", "/b"),
            ("HOME", "/c"),
        ];
        assert_eq!(place_of(&all), Some("/a".into()));
        assert_eq!(place_of(&all[1..]), Some("/b/smartvm-dev".into()));
        assert_eq!(place_of(&all[2..]), Some("/c/.cache/smartvm-dev".into()));
        assert_eq!(
            place_of(&[("SMARTVM_DEV_CACHE", ""), all[2]]),
            place_of(&all[2..])
        );
        assert_eq!(place_of(&[]), None);
    }
}
