//! Versions of Firecracker.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// A version of Firecracker: decides which fields its API has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Version {
    /// The first number.
    pub major: u16,
    /// The second: the API grows with it.
    pub minor: u16,
    /// The third.
    pub patch: u16,
}

impl Version {
    /// The oldest version whose API this library speaks.
    pub const OLDEST: Self = Self::new(1, 7, 0);

    /// `major.minor.patch`.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = Error;

    /// `1.12.1` or `v1.12.1`; what follows a `-` (as in `1.17.0-dev`) is left out.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = || {
            Error::new(
                ErrorKind::Invalid,
                format!("{text:?} is not a version of Firecracker"),
            )
            .hint("write it as three numbers: 1.12.1")
        };
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let numbers = numbers
            .split_once('-')
            .map_or(numbers, |(numbers, _)| numbers);
        let mut parts = numbers.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self {
                major,
                minor,
                patch,
            }),
            _ => Err(refuse()),
        }
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_parse_with_and_without_v_and_suffix_and_order_by_number() {
        let parse = |text: &str| text.parse::<Version>();
        assert_eq!(parse("v1.12.1").unwrap(), Version::new(1, 12, 1));
        assert_eq!(parse("1.17.0-dev").unwrap(), Version::new(1, 17, 0));
        assert!(parse("1.9.0").unwrap() < parse("1.10.0").unwrap());
        for wrong in [
            "",
            "v",
            "1.12",
            "1.12.1.1",
            "1.x.0",
            "latest",
            "1.-2.3",
            "99999.1.1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong} was accepted");
        }
    }
}
