//! The keys that leave a console and let its VM run on.

use std::fmt;
use std::str::FromStr;

/// A sequence of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl DetachKeys {
    /// Ctrl-], as in telnet.
    pub(crate) const DEFAULT: &str = "ctrl-]";
    /// More would not be typed by anybody.
    const MOST: usize = 16;
}

impl FromStr for DetachKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let keys: Vec<u8> = text.split(',').map(key).collect::<Result<_, _>>()?;
        match keys.len() {
            1..=Self::MOST => Ok(Self(keys)),
            _ => Err(format!("at most {} keys are allowed", Self::MOST)),
        }
    }
}

fn key(name: &str) -> Result<u8, String> {
    let refused = || {
        format!(
            "{name:?} is no key: write a letter or digit, or ctrl- with a letter or one of @[\\]^_"
        )
    };
    match name.as_bytes() {
        &[key] if key.is_ascii_graphic() => Ok(key),
        [prefix @ .., key] if prefix.eq_ignore_ascii_case(b"ctrl-") => {
            match key.to_ascii_uppercase() {
                // As terminals do: the letter without its upper bits.
                key @ b'@'..=b'_' => Ok(key & 0x1f),
                _ => Err(refused()),
            }
        }
        _ => Err(refused()),
    }
}

impl fmt::Display for DetachKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, key) in self.0.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            match key {
                0..0x20 => {
                    let letter = char::from(key | 0x40).to_ascii_lowercase();
                    write!(out, "{comma}ctrl-{letter}")?;
                }
                _ => write!(out, "{comma}{}", char::from(*key))?,
            }
        }
        Ok(())
    }
}

/// What is typed, on its way to the console.
#[derive(Debug)]
pub(crate) struct Typed<'a> {
    keys: &'a DetachKeys,
    /// So many of the keys came last; they are held back, as they may be the user's leave.
    matched: usize,
}

impl<'a> Typed<'a> {
    pub(crate) fn new(keys: &'a DetachKeys) -> Self {
        Self { keys, matched: 0 }
    }

    /// What of these bytes goes to the console, and whether the user detaches after them.
    pub(crate) fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let keys = &self.keys.0;
        let mut passed = Vec::with_capacity(typed.len());
        for &byte in typed {
            while self.matched > 0 && byte != keys[self.matched] {
                // Not the sequence: its first key was meant for the guest. What came after it
                // may still be the beginning of the sequence.
                let held = &keys[..self.matched];
                let left = (1..self.matched)
                    .find(|from| keys.starts_with(&held[*from..]))
                    .unwrap_or(self.matched);
                passed.extend_from_slice(&held[..left]);
                self.matched -= left;
            }
            if byte != keys[self.matched] {
                passed.push(byte);
                continue;
            }
            self.matched += 1;
            if self.matched == keys.len() {
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> DetachKeys {
        text.parse().unwrap()
    }

    #[test]
    fn keys_are_read_and_written_as_they_are_named() {
        assert_eq!(keys("ctrl-]").0, [0x1d]);
        assert_eq!(keys("Ctrl-P,ctrl-q").0, [0x10, 0x11]);
        assert_eq!(keys("~,.").0, *b"~.");
        for text in ["ctrl-]", "ctrl-p,ctrl-q", "ctrl-@", "~,."] {
            assert_eq!(keys(text).to_string(), text);
        }
        for wrong in ["", "ctrl-", "ctrl-1", "ab", "ctrl-p,", "é", " "] {
            assert!(wrong.parse::<DetachKeys>().is_err(), "{wrong:?}");
        }
        assert!(["a"; 17].join(",").parse::<DetachKeys>().is_err());
    }

    #[test]
    fn a_key_in_the_midst_of_a_chunk_detaches_and_what_was_before_is_passed_on() {
        let keys = keys("ctrl-]");
        let mut typed = Typed::new(&keys);
        assert_eq!(typed.pass(b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(typed.pass(b"ab\x1dc"), (b"ab".to_vec(), true));
    }

    #[test]
    fn a_sequence_may_come_in_parts_and_its_beginning_alone_is_only_late() {
        let keys = keys("ctrl-p,ctrl-p,ctrl-q");
        let mut typed = Typed::new(&keys);
        assert_eq!(typed.pass(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(typed.pass(b"b"), (b"\x10b".to_vec(), false));
        // The first of three is the guest's; the others begin the sequence.
        assert_eq!(typed.pass(b"\x10\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(typed.pass(b"\x11"), (Vec::new(), true));
    }
}
