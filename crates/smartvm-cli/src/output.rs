//! What people and programs read: results on standard output, all else on standard error.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use smartvm::{Error, ErrorKind, Result};

use crate::cli::Global;
use crate::log::JsonLines;

static JSON: AtomicBool = AtomicBool::new(false);
static QUIET: AtomicBool = AtomicBool::new(false);

/// Sets up what is said on standard error, and in which form.
pub(crate) fn start_logging(global: &Global) {
    JSON.store(global.json, Ordering::Relaxed);
    QUIET.store(global.quiet, Ordering::Relaxed);
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "smartvm=info,smartvm_emulate=info,warn",
        (false, 2) => "smartvm=debug,smartvm_emulate=debug,info",
        (false, _) => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("SMARTVM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match global.json {
        true => subscriber.event_format(JsonLines).init(),
        false => subscriber.without_time().with_target(false).init(),
    }
}

/// Whether results are to be JSON.
pub(crate) fn json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Whether nothing but results and errors is to be said.
pub(crate) fn quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// A line of a result.
pub(crate) fn line(text: impl std::fmt::Display) -> Result<()> {
    written(writeln!(std::io::stdout().lock(), "{text}"))
}

/// A result as JSON.
pub(crate) fn value(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::new(ErrorKind::Io, "encoding the result").because(e))?;
    line(text)
}

/// Bytes of a result.
pub(crate) fn bytes(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

fn written(done: std::io::Result<()>) -> Result<()> {
    match done {
        // The reader has seen enough (`smartvm ps | head`).
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        done => done.map_err(|e| Error::io("writing to", "standard output", e)),
    }
}

/// A line for whoever watches; not a result.
pub(crate) fn note(text: impl std::fmt::Display) {
    say("note", text);
}

/// Something that doesn't stop the work and that somebody should know.
pub(crate) fn warning(text: impl std::fmt::Display) {
    say("warning", text);
}

fn say(what: &str, text: impl std::fmt::Display) {
    match (quiet(), json()) {
        (true, _) => {}
        (false, true) => {
            let text = text.to_string();
            event(&serde_json::json!({ what: { "message": text.trim_end() } }));
        }
        (false, false) => complain(format_args!("{text}")),
    }
}

/// Something that happens, as JSON.
pub(crate) fn event(value: &serde_json::Value) {
    if !quiet() {
        complain(format_args!("{value}"));
    }
}

fn complain(text: std::fmt::Arguments<'_>) {
    // Standard error is the last place to complain to.
    let _unheard = writeln!(std::io::stderr().lock(), "{text}");
}

/// Tells what clap refuses (or prints its help) and returns the exit status.
pub(crate) fn usage(refusal: &clap::Error) -> ExitCode {
    if std::env::args().any(|argument| argument == "--json") && refusal.use_stderr() {
        let message = refusal.to_string();
        let error = Error::new(ErrorKind::Invalid, message.trim().replace('\n', " "));
        complain(format_args!("{}", as_json(&error)));
        return ExitCode::from(2);
    }
    let _unheard = refusal.print();
    ExitCode::from(if refusal.use_stderr() { 2 } else { 0 })
}

/// Tells a failure and returns the exit status.
pub(crate) fn failure(error: &Error, with_command: bool) -> u8 {
    tell(error);
    status(error, with_command)
}

/// Tells a failure, of several perhaps.
pub(crate) fn tell(error: &Error) {
    if json() {
        complain(format_args!("{}", as_json(error)));
    } else {
        complain(format_args!("smartvm: {error}"));
        for problem in error.cleanup() {
            complain(format_args!("smartvm: while cleaning up: {problem}"));
        }
        if let Some(hint) = error.way_out() {
            complain(format_args!("hint: {hint}"));
        }
    }
}

fn as_json(error: &Error) -> serde_json::Value {
    let cleanup: Vec<_> = error.cleanup().iter().map(Error::to_string).collect();
    serde_json::json!({ "error": {
        "kind": error.kind(),
        "message": error.to_string(),
        "path": error.path(),
        "hint": error.way_out(),
        "cleanup": cleanup,
    }})
}

/// The exit status of a failure.
fn status(error: &Error, with_command: bool) -> u8 {
    if with_command {
        return match error.kind() {
            ErrorKind::Timeout => 124,
            _ => smartvm::agent::status_for_shell(error).unwrap_or(125),
        };
    }
    match error.kind() {
        ErrorKind::Invalid => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::WrongState => 4,
        ErrorKind::Host => 5,
        _ => 1,
    }
}
