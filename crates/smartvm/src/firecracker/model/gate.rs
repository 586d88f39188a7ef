//! Which version of Firecracker has what.

use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Version;
use crate::spec::{MicroVmSpec, Problem, Problems};

/// The first versions with these fields, by their changelog and their API's description.
const ENTROPY: Version = Version::new(1, 4, 0);
const VHOST_USER: Version = Version::new(1, 6, 0);
const HUGE_PAGES: Version = Version::new(1, 7, 0);
const IMDS_COMPAT: Version = Version::new(1, 13, 0);
const FREE_PAGES: Version = Version::new(1, 14, 0);
const MTU: Version = Version::new(1, 16, 0);
const SERIAL_LIMIT: Version = Version::new(1, 16, 0);

/// Refuses what a spec needs and this version doesn't have.
///
/// # Errors
/// [`ErrorKind::Host`], with every such field and the version that has it.
pub fn refuse_unknown_to(version: Version, spec: &MicroVmSpec) -> Result<()> {
    let lacking: Vec<_> = needs(spec)
        .into_iter()
        .filter(|(_, since)| version < *since)
        .collect();
    let Some(newest) = lacking.iter().map(|(_, since)| *since).max() else {
        return Ok(());
    };
    let told = |(field, since): &(String, Version)| {
        let allowed = format!("Firecracker {since} or newer has it");
        Problem::new(
            field,
            format!("is unknown to Firecracker {version}"),
            allowed,
        )
        .kind(ErrorKind::Host)
    };
    let problems: Problems = lacking.iter().map(told).collect();
    let fields: Vec<_> = lacking.iter().map(|(field, _)| field.as_str()).collect();
    Err(Error::from(problems).hint(format!(
        "use Firecracker {newest} or newer, or leave out {}",
        fields.join(", ")
    )))
}

/// The fields in use that not every version has, with the first that does.
fn needs(spec: &MicroVmSpec) -> Vec<(String, Version)> {
    let mut needs = Vec::new();
    let mut need = |field: &str, given: bool, since| {
        if given {
            needs.push((field.to_owned(), since));
        }
    };
    need(
        "machineConfig.hugePages",
        spec.machine_config.huge_pages.is_some(),
        HUGE_PAGES,
    );
    for (index, drive) in spec.drives.iter().enumerate() {
        need(
            &format!("drives[{index}].socket"),
            drive.socket.is_some(),
            VHOST_USER,
        );
    }
    for (index, interface) in spec.network_interfaces.iter().enumerate() {
        need(
            &format!("networkInterfaces[{index}].mtu"),
            interface.mtu.is_some(),
            MTU,
        );
    }
    if let Some(balloon) = &spec.balloon {
        need(
            "balloon.freePageHinting",
            balloon.free_page_hinting.is_some(),
            FREE_PAGES,
        );
        need(
            "balloon.freePageReporting",
            balloon.free_page_reporting.is_some(),
            FREE_PAGES,
        );
    }
    if let Some(mmds) = &spec.mmds {
        need("mmds.imdsCompat", mmds.imds_compat.is_some(), IMDS_COMPAT);
    }
    need("entropy", spec.entropy.is_some(), ENTROPY);
    if let Some(serial) = &spec.serial {
        need(
            "serial.rateLimiter",
            serial.rate_limiter.is_some(),
            SERIAL_LIMIT,
        );
    }
    needs
}
