//! What a microVM boots.

use super::report::Report;
use crate::spec::BootSource;

/// Largest kernel command line, in bytes, that Firecracker passes on.
const MAX_BOOT_ARGS_BYTES: usize = 2048;

pub(super) fn check(boot: &BootSource, report: &mut Report) {
    report.file("bootSource.kernelImagePath", &boot.kernel_image_path);
    report.file_if_given("bootSource.initrdPath", boot.initrd_path.as_deref());
    let Some(args) = &boot.boot_args else { return };
    let allowed = "at most 2048 bytes of printable ASCII";
    report.demand(
        args.len() <= MAX_BOOT_ARGS_BYTES,
        "bootSource.bootArgs",
        || format!("is {} bytes long", args.len()),
        allowed,
    );
    if let Some(letter) = args.chars().find(|it| !matches!(it, ' '..='~')) {
        report.wrong(
            "bootSource.bootArgs",
            format!("contains {letter:?}"),
            allowed,
        );
    }
}
