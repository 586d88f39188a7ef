//! What people see: a line for each step, with the seconds since the start.

use std::fmt::Display;
use std::io::Write;
use std::sync::OnceLock;
use std::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();

/// Says what is begun, or is the case.
pub(crate) fn say(what: impl Display) {
    let elapsed = START.get_or_init(Instant::now).elapsed().as_secs();
    let (minutes, seconds) = (elapsed / 60, elapsed % 60);
    line(
        &mut std::io::stderr(),
        format_args!("[{minutes:2}:{seconds:02}] {what}"),
    );
}

/// Says what went wrong.
pub(crate) fn failure(what: impl Display) {
    line(&mut std::io::stderr(), format_args!("error: {what}"));
}

/// What the task was run for.
pub(crate) fn result(what: impl Display) {
    line(&mut std::io::stdout(), what);
}

/// A line of a program's output, passed on.
pub(crate) fn passed_on(what: impl Display) {
    line(&mut std::io::stderr(), what);
}

fn line(to: &mut impl Write, what: impl Display) {
    // Where nobody reads what is said there is nobody to be told of that either.
    let _ = writeln!(to, "{what}");
}
