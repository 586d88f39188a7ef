//! Where the rules put what they find.

use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

use crate::name::NameError;
use crate::spec::{Problem, Problems};

/// Longest path that the kernel takes, in bytes, without its final NUL.
const MAX_PATH_BYTES: usize = 4095;

/// Most items of a list of devices. Firecracker has interrupts for fewer.
const MAX_ITEMS: usize = 64;

/// The problems found so far.
#[derive(Default)]
pub(crate) struct Report(Problems);

impl Report {
    pub(crate) fn wrong(
        &mut self,
        path: impl Display,
        problem: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        self.0
            .push(Problem::new(path.to_string(), problem, allowed));
    }

    /// Adds a problem unless `fine`.
    pub(crate) fn demand(
        &mut self,
        fine: bool,
        path: impl Display,
        problem: impl FnOnce() -> String,
        allowed: &str,
    ) {
        if !fine {
            self.wrong(path, problem(), allowed);
        }
    }

    /// The text as a name, if it is one.
    pub(crate) fn name<T: FromStr<Err = NameError>>(
        &mut self,
        path: impl Display,
        text: &str,
    ) -> Option<T> {
        text.parse()
            .map_err(|error: NameError| self.wrong(path, error.problem, error.allowed))
            .ok()
    }

    /// A path that a system call can take.
    pub(crate) fn file(&mut self, path: impl Display, file: &Path) {
        const ALLOWED: &str = "a path of 1 to 4095 bytes of UTF-8 without NUL";
        let bytes = file.as_os_str().as_bytes();
        if bytes.is_empty() {
            self.wrong(path, "is empty", ALLOWED);
        } else if bytes.contains(&0) {
            self.wrong(path, "contains NUL", ALLOWED);
        } else if file.to_str().is_none() {
            // Firecracker takes paths in JSON.
            self.wrong(path, "isn't UTF-8", ALLOWED);
        } else if bytes.len() > MAX_PATH_BYTES {
            self.wrong(path, format!("is {} bytes long", bytes.len()), ALLOWED);
        }
    }

    pub(crate) fn file_if_given(&mut self, path: impl Display, file: Option<&Path>) {
        if let Some(file) = file {
            self.file(path, file);
        }
    }

    /// Whether a list is short enough to be looked at: no microVM has room for as many.
    pub(crate) fn few(&mut self, path: &str, count: usize) -> bool {
        let few = count <= MAX_ITEMS;
        self.demand(
            few,
            path,
            || format!("has {count} items"),
            "at most 64 items",
        );
        few
    }

    /// Each value once: names the first index that has it, for every later one.
    pub(crate) fn unique<'a, T: PartialEq + 'a>(
        &mut self,
        values: impl IntoIterator<Item = (String, T)>,
        shown: impl Fn(&T) -> String,
    ) {
        let mut seen: Vec<(String, T)> = Vec::new();
        for (path, value) in values {
            match seen.iter().find(|(_, other)| *other == value) {
                Some((first, _)) => self.wrong(
                    &path,
                    format!("{} is also {first}", shown(&value)),
                    "each value once",
                ),
                None => seen.push((path, value)),
            }
        }
    }

    pub(crate) fn into_problems(self) -> Problems {
        self.0
    }
}

/// Text as a problem may show it: quoted, and cut off if it is long.
pub(crate) fn quoted(text: &str) -> String {
    let start: String = text.chars().take(64).collect();
    format!("{start:?}")
}
