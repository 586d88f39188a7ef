//! What a machine said before it ended.

use std::fmt;

/// What tells most, if it is there: a panic's first line stands far above its last.
const TELLING: [&str; 2] = ["Kernel panic", "smartvm-agent:"];

/// The end of what the console and QEMU said. Shows as the line of it that tells most, to be
/// put behind a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastWords(String);

impl LastWords {
    pub(crate) fn of((start, end): (&[u8], &[u8])) -> Self {
        let bytes = [start, end].concat();
        let plain = |letter: &char| *letter == '\n' || !letter.is_control();
        Self(
            String::from_utf8_lossy(&bytes)
                .chars()
                .filter(plain)
                .collect(),
        )
    }

    /// All of it, for the log.
    pub(crate) fn all(&self) -> &str {
        self.0.trim()
    }
}

impl fmt::Display for LastWords {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = TELLING
            .iter()
            .find_map(|telling| self.0.lines().rfind(|line| line.contains(telling)))
            .or_else(|| self.all().lines().next_back());
        match line {
            Some(line) => write!(out, " (it said: {})", line.trim()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(said: &str) -> String {
        LastWords::of((said.as_bytes(), b"")).to_string()
    }

    #[test]
    fn the_line_that_tells_most_is_shown() {
        let panic = "[1.0] Kernel panic - not syncing: why\n[1.1] Call Trace:\n[1.2] </TASK>\n";
        assert_eq!(
            shown(panic),
            " (it said: [1.0] Kernel panic - not syncing: why)"
        );
        let agent = "smartvm-agent: one\r\nsmartvm-agent: two\r\nnoise\r\n";
        assert_eq!(shown(agent), " (it said: smartvm-agent: two)");
        assert_eq!(
            shown("qemu: no such option\n\n"),
            " (it said: qemu: no such option)"
        );
        assert_eq!(shown("\n"), "");
    }
}
