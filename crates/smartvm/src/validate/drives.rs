//! Block devices.

use std::path::Path;

use super::devices::socket_name;
use super::rate_limiter;
use super::report::{Report, quoted};
use crate::name::DeviceId;
use crate::spec::{Drive, RuntimeOptions};

pub(super) fn check(drives: &[Drive], runtime: &RuntimeOptions, report: &mut Report) {
    if !report.few("drives", drives.len()) {
        return;
    }
    for (index, drive) in drives.iter().enumerate() {
        one(drive, &format!("drives[{index}]"), report);
    }
    report.unique(
        drives
            .iter()
            .enumerate()
            .map(|(index, drive)| (format!("drives[{index}].driveId"), drive.drive_id.as_str())),
        |id| quoted(id),
    );
    let roots: Vec<usize> = (0..drives.len())
        .filter(|index| drives[*index].is_root_device)
        .collect();
    for second in roots.iter().skip(1) {
        report.wrong(
            format!("drives[{second}].isRootDevice"),
            format!("is true, and so is drives[{}].isRootDevice", roots[0]),
            "at most one root device",
        );
    }
    shared_images(drives, runtime, report);
}

fn one(drive: &Drive, path: &str, report: &mut Report) {
    report.name::<DeviceId>(format!("{path}.driveId"), &drive.drive_id);
    match (&drive.path_on_host, &drive.socket) {
        (Some(_), Some(_)) => report.wrong(
            format!("{path}.socket"),
            "is given together with `pathOnHost`",
            "either `pathOnHost` or `socket`",
        ),
        (None, None) => report.wrong(
            format!("{path}.pathOnHost"),
            "is missing",
            "the path of a disk image, or `socket` for a vhost-user device",
        ),
        (Some(image), None) => report.file(format!("{path}.pathOnHost"), image),
        (None, Some(socket)) => vhost_user(drive, socket, path, report),
    }
    if let Some(uuid) = &drive.part_uuid {
        part_uuid(drive, uuid, &format!("{path}.partUuid"), report);
    }
    rate_limiter::check(
        drive.rate_limiter.as_ref(),
        &format!("{path}.rateLimiter"),
        report,
    );
}

/// The process behind the socket decides all this; Firecracker refuses to be told.
fn vhost_user(drive: &Drive, socket: &Path, path: &str, report: &mut Report) {
    report.file(format!("{path}.socket"), socket);
    socket_name(&format!("{path}.socket"), socket, report);
    let given = [
        ("isReadOnly", drive.is_read_only.is_some()),
        ("rateLimiter", drive.rate_limiter.is_some()),
        ("ioEngine", drive.io_engine.is_some()),
        ("ephemeral", drive.ephemeral.is_some()),
    ];
    for (field, given) in given {
        report.demand(
            !given,
            format!("{path}.{field}"),
            || "is given for a vhost-user device".into(),
            "nothing: with `socket`, the process behind it decides this",
        );
    }
}

/// It becomes part of the kernel command line.
fn part_uuid(drive: &Drive, uuid: &str, path: &str, report: &mut Report) {
    let sound = (1..=36).contains(&uuid.len())
        && uuid.bytes().all(|it| it.is_ascii_hexdigit() || it == b'-');
    report.demand(
        sound,
        path,
        || format!("{} isn't a partition UUID", quoted(uuid)),
        "1 to 36 hexadecimal digits and `-`, such as 0eaa91a0-01 or a GPT partition's UUID",
    );
    report.demand(
        drive.is_root_device,
        path,
        || "is given for a drive that isn't the root device, where it has no effect".into(),
        "only with `isRootDevice`",
    );
}

/// Two drives on one image destroy it, unless both only read or have copies of their own.
fn shared_images(drives: &[Drive], runtime: &RuntimeOptions, report: &mut Report) {
    let image = |drive: &Drive| {
        let image = drive.path_on_host.as_deref()?;
        // Compared as `a/./b` and `a//b` are: by their components.
        (!drive.staged(runtime)).then(|| image.components().collect::<std::path::PathBuf>())
    };
    for (index, drive) in drives.iter().enumerate() {
        let Some(own) = image(drive) else { continue };
        let other = drives[..index].iter().position(|earlier| {
            image(earlier).is_some_and(|theirs| theirs == own)
                && !(earlier.read_only() && drive.read_only())
        });
        if let Some(other) = other {
            report.wrong(
                format!("drives[{index}].pathOnHost"),
                format!(
                    "is the same image as drives[{other}].pathOnHost, and one of them writes to it"
                ),
                "an image of its own, `isReadOnly` for both, or `ephemeral` for a copy",
            );
        }
    }
}
