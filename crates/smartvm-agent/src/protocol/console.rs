//! What the agent writes to the guest's console for the host to read: how the main command
//! ended. No connection has to live that long for it, and it is there after everybody's restart.

use super::message::Exit;

/// Begins the line.
const SIGN: &str = "smartvm-agent: the main command ended: ";
const CODE: &str = "exit status ";
const SIGNAL: &str = "signal ";

impl Exit {
    /// The line that tells this end of the main command.
    pub fn console_line(self) -> String {
        match self {
            Self::Code(code) => format!("{SIGN}{CODE}{code}\n"),
            Self::Signal(signal) => format!("{SIGN}{SIGNAL}{signal}\n"),
        }
    }

    /// The last such line of a console's output, and where it begins.
    pub fn last_on_console(console: &[u8]) -> Option<(usize, Self)> {
        let sign = SIGN.as_bytes();
        let begins = |at: &usize| *at == 0 || console[at - 1] == b'\n';
        let at = (0..console.len().checked_sub(sign.len())?)
            .rev()
            .filter(begins)
            .find(|at| console[*at..].starts_with(sign))?;
        let rest = &console[at + sign.len()..];
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let words = std::str::from_utf8(&rest[..end]).ok()?.trim_end();
        let number = |words: &str| words.parse::<u8>().ok().map(i32::from);
        let exit = match (words.strip_prefix(CODE), words.strip_prefix(SIGNAL)) {
            (Some(code), _) => Self::Code(number(code)?),
            (None, Some(signal)) => Self::Signal(number(signal)?),
            (None, None) => return None,
        };
        Some((at, exit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_line_tells_the_end() {
        for exit in [Exit::Code(0), Exit::Code(255), Exit::Signal(9)] {
            // As a terminal shows it.
            let line = exit.console_line().replace('\n', "\r\n");
            let console = format!("hello\r\n{line}[ 1.2] reboot: Restarting system\r\n");
            assert_eq!(
                Exit::last_on_console(console.as_bytes()),
                Some((7, exit)),
                "{console}"
            );
            let earlier = format!("{}{line}", Exit::Code(3).console_line());
            let (_, last) = Exit::last_on_console(earlier.as_bytes()).expect("two lines");
            assert_eq!(last, exit);
        }
    }

    #[test]
    fn what_only_looks_like_it_tells_nothing() {
        let line = Exit::Code(3).console_line();
        for console in [
            "",
            "hello\n",
            &format!("echo {line}"),
            line.trim_end(),
            &line.replace('3', "300"),
            &line.replace('3', "-1"),
            &line.replace('3', ""),
            &line.replace("exit status", "a whim"),
        ] {
            assert_eq!(Exit::last_on_console(console.as_bytes()), None, "{console}");
        }
    }
}
