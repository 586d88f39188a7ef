//! The records of extended headers in tar archives: `LENGTH KEY=VALUE\n`. Values may hold any
//! byte, line breaks too, as the capabilities of a program do.

use std::collections::BTreeMap;

use super::tree::Time;

/// What extended headers say of the next file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Records {
    /// Adds the records of one header; an empty value takes a key back.
    pub(super) fn add(&mut self, mut data: &[u8]) -> Result<(), String> {
        let malformed = || "an extended header is malformed".to_owned();
        // Old programs fill up with zero bytes.
        while data.first().is_some_and(|&byte| byte != 0) {
            let space = data.iter().take(20).position(|&byte| byte == b' ');
            let space = space.ok_or_else(malformed)?;
            let length = number(&data[..space]).ok_or_else(malformed)?;
            let length = usize::try_from(length).map_err(|_| malformed())?;
            let record = data.get(space + 1..length).ok_or_else(malformed)?;
            let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record.iter().position(|&byte| byte == b'=');
            let (key, value) = record.split_at(equals.ok_or_else(malformed)?);
            self.values.insert(key.to_vec(), value[1..].to_vec());
            data = &data[length..];
        }
        Ok(())
    }

    /// The value of a key, if it has one that isn't empty.
    pub(super) fn text(&self, key: &str) -> Option<&[u8]> {
        self.values
            .get(key.as_bytes())
            .map(Vec::as_slice)
            .filter(|value| !value.is_empty())
    }

    /// The value of a key as a number.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, String> {
        self.text(key)
            .map(|value| number(value).ok_or_else(|| format!("its {key} isn't a number")))
            .transpose()
    }

    /// The value of a key as a moment: seconds with a fraction.
    pub(super) fn time(&self, key: &str) -> Result<Option<Time>, String> {
        self.text(key)
            .map(|value| time(value).ok_or_else(|| format!("its {key} isn't a time")))
            .transpose()
    }

    /// The keys that begin with `prefix`, without it, and their values.
    pub(super) fn with_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.values.iter().filter_map(move |(key, value)| {
            let key = key.strip_prefix(prefix.as_bytes())?;
            Some((key, value.as_slice()))
        })
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanos: u32 = digits.parse().ok()?;
    // -1.25 is a quarter of a second before the second before 1970.
    if whole.starts_with('-') && nanos > 0 {
        return Some(Time {
            seconds: seconds.checked_sub(1)?,
            nanos: 1_000_000_000 - nanos,
        });
    }
    Some(Time { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_line_breaks_and_equal_signs() {
        let mut records = Records::default();
        records.add(b"11 a=b\nc=\n\n11 path=xy\n").unwrap();
        assert_eq!(records.text("a"), Some(&b"b\nc=\n"[..]));
        assert_eq!(records.text("path"), Some(&b"xy"[..]));
        records.add(b"8 path=\n").unwrap();
        assert_eq!(records.text("path"), None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for data in [
            "x", "5", "5 a=b", "99 a=b\n", "2 a=b\n", "6 ab\n\n", "0 \n", "1 ",
        ] {
            assert!(Records::default().add(data.as_bytes()).is_err(), "{data:?}");
        }
    }

    #[test]
    fn times_have_fractions() {
        let at = |seconds, nanos| Some(Time { seconds, nanos });
        assert_eq!(time(b"12"), at(12, 0));
        assert_eq!(time(b"12.5"), at(12, 500_000_000));
        assert_eq!(time(b"12.1234567899"), at(12, 123_456_789));
        assert_eq!(time(b"-1.25"), at(-2, 750_000_000));
        assert_eq!(time(b"-0.25"), at(-1, 750_000_000));
        assert_eq!(time(b"1.x"), None);
    }
}
