//! Reading a file that people wrote, in JSON, TOML or YAML.

use std::fmt;
use std::io::Read;
use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::problem::{Problem, Problems};
pub(crate) use super::shape::join;
use super::{document, schema, shape};
use crate::{Error, ErrorKind, Result};

/// Largest document that is read, in bytes: 8 MiB, which holds ten thousand firewall rules.
pub const MAX_DOCUMENT_BYTES: usize = 8 << 20;

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// JSON; a field given twice is refused.
    Json,
    /// TOML.
    Toml,
    /// YAML.
    Yaml,
}

impl Format {
    /// The format that the file name's extension tells, if it does.
    pub fn of_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "json" => Some(Self::Json),
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }

    /// The format that the text looks like: JSON starts with a brace, the first line of TOML
    /// that isn't a comment is a table's head or has an `=` before any `:`, and what remains
    /// is YAML.
    pub fn of_text(text: &str) -> Self {
        let start = text.trim_start_matches('\u{feff}').trim_start();
        if start.starts_with('{') {
            return Self::Json;
        }
        let line = start
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with('#'))
            .unwrap_or("");
        let key = line.split(['=', ':']).next().unwrap_or("");
        if line.starts_with('[') || line[key.len()..].starts_with('=') {
            Self::Toml
        } else {
            Self::Yaml
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Json => "JSON",
            Self::Toml => "TOML",
            Self::Yaml => "YAML",
        })
    }
}

/// Reads a document. All that is wrong with its shape is reported at once: unknown, missing
/// and mistyped fields, and names that no enumeration has.
///
/// ```
/// use smartvm::spec::{self, Format, MachineConfig};
///
/// let machine: MachineConfig = spec::load("vcpuCount = 2\nmemSizeMib = 256", Format::Toml)?;
/// assert_eq!(machine.vcpu_count, 2);
///
/// let text = r#"{"vcpus": 2, "memSizeMib": "much"}"#;
/// let problems = spec::load::<MachineConfig>(text, Format::Json).unwrap_err();
/// assert_eq!(problems.len(), 3);
/// # Ok::<(), spec::Problems>(())
/// ```
pub fn load<T: DeserializeOwned + JsonSchema>(text: &str, format: Format) -> Result<T, Problems> {
    let (value, problems) = load_mended(text, format)?;
    problems.into_result()?;
    Ok(value)
}

/// Reads a document of the file's format, and with it what the shape of the document lacks:
/// where something was wrong, the value is made up.
pub(crate) fn load_mended<T: DeserializeOwned + JsonSchema>(
    text: &str,
    format: Format,
) -> Result<(T, Problems), Problems> {
    if text.len() > MAX_DOCUMENT_BYTES {
        let problem = format!("is {} bytes long", text.len());
        let allowed = format!("at most {MAX_DOCUMENT_BYTES} bytes");
        return Err(Problem::new("", problem, allowed).into());
    }
    let text = text.trim_start_matches('\u{feff}');
    let mut value = document::parse(text, format)?;
    let mut problems = shape::mend(&mut value, &schema::of::<T>());
    match serde_path_to_error::deserialize(value) {
        Ok(value) => Ok((value, problems)),
        Err(error) => {
            // The shape fits its schema, so this is a text of a special form (an address).
            let path = error.path().to_string();
            problems.push(Problem::new(path, error.into_inner().to_string(), ""));
            Err(problems)
        }
    }
}

/// Reads a file as [`load`] does; the extension of its name tells the format, else its text.
/// Failing to read it is an error of its own kind, and a wrong shape one of kind
/// [`ErrorKind::Invalid`] whose source is [`Problems`].
pub fn load_file<T: DeserializeOwned + JsonSchema>(path: impl AsRef<Path>) -> Result<T> {
    let path = path.as_ref();
    let (text, format) = read(path)?;
    load(&text, format).map_err(|problems| about(problems, path))
}

/// The problems as an error about the file.
pub(crate) fn about(problems: Problems, path: &Path) -> Error {
    problems.about(&path.display().to_string()).at(path)
}

/// The text of a file, within bounds, and its format.
pub(crate) fn read(path: &Path) -> Result<(String, Format)> {
    let failed = |cause| Error::io("reading", path, cause);
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let invalid =
        |what: &str| Error::new(ErrorKind::Invalid, format!("{} {what}", path.display())).at(path);
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(invalid("is longer than 8 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| invalid("isn't UTF-8 text"))?;
    let format = Format::of_path(path).unwrap_or_else(|| Format::of_text(&text));
    Ok((text, format))
}
