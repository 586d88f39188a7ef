//! Names that are more than text: parsed at the edge, so that what is inside is sound.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text isn't a name of the wanted sort: what is wrong, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} (allowed: {allowed})")]
#[non_exhaustive]
pub struct NameError {
    /// What is wrong.
    pub problem: String,
    /// What is allowed.
    pub allowed: &'static str,
}

/// A type made of text that [`FromStr`] checks, and that is text again wherever it is shown.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

name! {
    /// Name of a microVM: letters, digits and `-`, 1 to 64, not starting with `-`.
    ///
    /// This is what Firecracker takes as `--id`, but for the first character: on a command
    /// line, a name that starts with `-` reads as an option.
    VmId
}

name! {
    /// Name of a drive or network interface inside a microVM: letters, digits and `_`, 1 to 64.
    DeviceId
}

name! {
    /// Name of a network interface of the host: 1 to 15 bytes of printable ASCII, without space
    /// and `/ : % * " \`, and neither `.` nor `..`.
    ///
    /// The kernel takes more than that, but patterns (`%d`, `*`) mean something else to those
    /// who get the name.
    IfName
}

impl VmId {
    const ALLOWED: &str = "1 to 64 ASCII letters, digits and `-`, the first not `-`";
}

impl FromStr for VmId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        alphabet(text, 64, '-', Self::ALLOWED)?;
        if text.starts_with('-') {
            return Err(error("starts with `-`", Self::ALLOWED));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for DeviceId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        alphabet(text, 64, '_', "1 to 64 ASCII letters, digits and `_`")?;
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for IfName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        const ALLOWED: &str = "1 to 15 printable ASCII characters without space and / : % * \" \\";
        length(text, 15, ALLOWED)?;
        let wrong = |letter: &char| !letter.is_ascii_graphic() || "/:%*\"\\".contains(*letter);
        if let Some(letter) = text.chars().find(wrong) {
            return Err(error(format!("contains {letter:?}"), ALLOWED));
        }
        if matches!(text, "." | "..") {
            return Err(error(format!("is `{text}`"), ALLOWED));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A MAC address, written as six pairs of hexadecimal digits with colons: `06:00:ac:1e:00:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// The address with these bytes.
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The six bytes.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// Whether it can be the address of one interface: neither that of a group nor all zero.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl FromStr for MacAddress {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        const ALLOWED: &str = "six pairs of hexadecimal digits with colons: 06:00:ac:1e:00:02";
        let wrong = || error(format!("{} isn't a MAC address", shown(text)), ALLOWED);
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs
                .next()
                .filter(|pair| pair.len() == 2 && pair.bytes().all(|it| it.is_ascii_hexdigit()))
                .ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        if pairs.next().is_some() {
            return Err(wrong());
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl TryFrom<String> for MacAddress {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

fn alphabet(
    text: &str,
    longest: usize,
    extra: char,
    allowed: &'static str,
) -> Result<(), NameError> {
    length(text, longest, allowed)?;
    match text
        .chars()
        .find(|letter| !letter.is_ascii_alphanumeric() && *letter != extra)
    {
        Some(letter) => Err(error(format!("contains {letter:?}"), allowed)),
        None => Ok(()),
    }
}

fn length(text: &str, longest: usize, allowed: &'static str) -> Result<(), NameError> {
    match text.len() {
        0 => Err(error("is empty", allowed)),
        bytes if bytes > longest => Err(error(format!("is {bytes} bytes long"), allowed)),
        _ => Ok(()),
    }
}

fn error(problem: impl Into<String>, allowed: &'static str) -> NameError {
    NameError {
        problem: problem.into(),
        allowed,
    }
}

/// A text as an error may show it: quoted, and cut off if it is long.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(64).collect();
    format!("{start:?}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_vm_id_is_letters_digits_and_hyphens() {
        for good in ["a", "web-1", "A9", &"x".repeat(64)] {
            assert_eq!(good.parse::<VmId>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a_b", "a/b", "a b", "é", "a\0", &"x".repeat(65)] {
            assert!(bad.parse::<VmId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_device_id_is_letters_digits_and_underscores() {
        for good in ["a", "root_fs", "eth0", &"x".repeat(64)] {
            assert!(good.parse::<DeviceId>().is_ok(), "{good:?}");
        }
        for bad in ["", "a-b", "a/b", "..", "ü", &"x".repeat(65)] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_interface_name_fits_the_kernel_and_is_no_pattern() {
        for good in ["tap0", "eth0.1", "a-b_c", "123456789012345"] {
            assert!(good.parse::<IfName>().is_ok(), "{good:?}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a\n",
            "tap%d",
            "tap*",
            "a:1",
            "1234567890123456",
            "tàp",
        ] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mac_address_is_six_pairs() {
        let mac: MacAddress = "06:00:AC:1e:00:02".parse().unwrap();
        assert_eq!(mac.to_string(), "06:00:ac:1e:00:02");
        assert!(mac.is_unicast());
        for bad in [
            "",
            "06:00:ac:1e:00",
            "06:00:ac:1e:00:02:03",
            "6:0:ac:1e:0:2",
            "06-00-ac-1e-00-02",
            "06:00:ac:1e:00:+2",
            "06:00:ac:1e:00:0g",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad:?}");
        }
        for not_one in [
            "00:00:00:00:00:00",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
        ] {
            assert!(!not_one.parse::<MacAddress>().unwrap().is_unicast());
        }
    }

    #[test]
    fn an_error_says_what_is_allowed() {
        let error = "a_b".parse::<VmId>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "contains '_' (allowed: 1 to 64 ASCII letters, digits and `-`, the first not `-`)"
        );
    }

    #[test]
    fn a_name_is_text_in_files() {
        let id: VmId = serde_json::from_str("\"web-1\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"web-1\"");
        assert!(serde_json::from_str::<VmId>("\"a b\"").is_err());
    }

    proptest! {
        #[test]
        fn accepted_ids_are_in_the_alphabet(text in any::<String>()) {
            if text.parse::<VmId>().is_ok() {
                prop_assert!((1..=64).contains(&text.len()));
                prop_assert!(text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-'));
            }
            if text.parse::<DeviceId>().is_ok() {
                prop_assert!((1..=64).contains(&text.len()));
                prop_assert!(text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_'));
            }
        }

        #[test]
        fn ids_in_the_alphabet_are_accepted(id in "[A-Za-z0-9][A-Za-z0-9-]{0,63}") {
            prop_assert!(id.parse::<VmId>().is_ok());
        }

        #[test]
        fn a_mac_address_is_read_as_it_is_shown(bytes in any::<[u8; 6]>()) {
            let mac = MacAddress::new(bytes);
            prop_assert_eq!(mac.to_string().parse::<MacAddress>(), Ok(mac));
        }
    }
}
