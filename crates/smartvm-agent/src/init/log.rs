//! The agent's diagnostics: to the kernel's log, and so to the console.

use std::fs::OpenOptions;
use std::io::Write;

/// The longest line in bytes; the kernel takes a little less than 1 KiB.
const LIMIT: usize = 900;

/// Something worth knowing.
pub(crate) fn info(message: &str) {
    write(6, message);
}

/// Something that went wrong. Shown on the console also with `quiet`.
pub(crate) fn error(message: &str) {
    write(3, message);
}

fn write(level: u8, message: &str) {
    let message = message.replace('\n', " ");
    let message = &message[..message.floor_char_boundary(LIMIT)];
    let kernel_log = OpenOptions::new().write(true).open("/dev/kmsg");
    let written = kernel_log
        .and_then(|mut log| log.write_all(format!("<{level}>smartvm-agent: {message}").as_bytes()));
    if written.is_err() {
        // The last resort: whatever the kernel opened for process 1.
        let _ = writeln!(std::io::stderr(), "smartvm-agent: {message}");
    }
}
