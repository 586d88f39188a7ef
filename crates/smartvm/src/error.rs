//! The library's error: what was being done, to which thing, what went wrong, and the way out.

use std::fmt;
use std::path::{Path, PathBuf};

/// The library's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure an [`Error`] is: decides the exit status of the command line and
/// what a program may do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request itself is wrong: an invalid spec, option, name or manifest.
    Invalid,
    /// There is no such VM, image, file or binary.
    NotFound,
    /// The thing exists, but its state or its owner doesn't allow this now (an id in use).
    WrongState,
    /// This host can't do it: no KVM, no space, a missing program, missing rights.
    Host,
    /// A server wants to know who asks, or refuses it to who asks.
    Denied,
    /// A deadline passed.
    Timeout,
    /// The caller cancelled the operation.
    Cancelled,
    /// Firecracker refused a request or ended unexpectedly.
    Vmm,
    /// The guest's agent refused a request, or isn't there.
    Guest,
    /// Data that was stored or received is damaged, or from a newer version.
    Corrupt,
    /// An operating system call failed for another reason.
    Io,
}

/// A failure, told so that the reader knows what to do next.
///
/// `Display` is one line: what was being done, then the cause. The way out is in
/// [`Error::hint`], and failures of the cleanup that followed are in [`Error::cleanup`].
///
/// ```
/// use smartvm::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::NotFound, "there is no VM web")
///     .hint("`smartvm ps` lists them");
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert_eq!(error.to_string(), "there is no VM web");
/// assert_eq!(error.way_out(), Some("`smartvm ps` lists them"));
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    cleanup: Vec<Error>,
}

impl Error {
    /// A failure of `kind`; `message` says what was being done, to which thing, and what
    /// went wrong where [`Error::because`] doesn't.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            path: None,
            hint: None,
            source: None,
            cleanup: Vec::new(),
        }))
    }

    /// An I/O failure while doing `what` to `path`. The kind follows from the cause: no space
    /// and missing rights are the host's, a missing file is [`ErrorKind::NotFound`].
    pub fn io(what: &str, path: impl AsRef<Path>, cause: impl Into<std::io::Error>) -> Self {
        let cause = cause.into();
        let path = path.as_ref();
        let kind = match cause.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied
            | std::io::ErrorKind::StorageFull
            | std::io::ErrorKind::QuotaExceeded
            | std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Host,
            std::io::ErrorKind::TimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Io,
        };
        let full = matches!(
            cause.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        );
        let error = Self::new(kind, format!("{what} {}", path.display()))
            .at(path)
            .because(cause);
        if full {
            return error.hint(
                "free some space there: `smartvm image prune` drops images that nobody uses, \
                 `smartvm gc` what dead VMs left",
            );
        }
        error
    }

    /// Names the file this is about.
    #[must_use]
    pub fn at(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path = Some(path.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(cause.into());
        self
    }

    /// Adds the way out: what the reader can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds what failed while cleaning up after this failure.
    #[must_use]
    pub fn with_cleanup(mut self, failures: impl IntoIterator<Item = Error>) -> Self {
        self.0.cleanup.extend(failures);
        self
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file this is about, where there is one.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// What to do about it, where that is known.
    pub fn way_out(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// What failed while cleaning up after this failure.
    pub fn cleanup(&self) -> &[Error] {
        &self.0.cleanup
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.message)?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(out, ": {error}")?;
            // This type's own Display already tells its causes.
            if error.is::<Self>() {
                break;
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {self}", self.0.kind)?;
        if let Some(hint) = &self.0.hint {
            write!(out, " (hint: {hint})")?;
        }
        for failure in &self.0.cleanup {
            write!(out, " (cleanup: {failure})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|cause| cause as _)
    }
}

impl From<crate::name::NameError> for Error {
    fn from(refusal: crate::name::NameError) -> Self {
        Self::new(ErrorKind::Invalid, refusal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_tells_the_whole_chain_once() {
        let inner = Error::io("opening", "/dev/kvm", std::io::Error::from_raw_os_error(2));
        let outer = Error::new(ErrorKind::Host, "starting VM a").because(inner);
        assert_eq!(
            outer.to_string(),
            "starting VM a: opening /dev/kvm: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn the_kind_of_an_io_error_follows_its_cause() {
        let full = Error::io("writing", "x", std::io::Error::from_raw_os_error(28));
        assert_eq!(full.kind(), ErrorKind::Host);
        assert!(full.way_out().unwrap().contains("free some space"));
        let missing = Error::io("reading", "x", std::io::Error::from_raw_os_error(2));
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
