use comfy_table::Table;
use comfy_table::presets;
use smartvm::Result;
use smartvm::firecracker::Binary;
use smartvm::host::{HostFacts, Status, doctor, doctor_jail};
use smartvm::network::Network;
use smartvm::plan::chroot_base;

use crate::cli::Global;
use crate::{output, settings};

/// The exit status of a host that can't run VMs.
const UNFIT: u8 = 5;

pub(crate) fn run(global: &Global) -> Result<u8> {
    let options = settings::options(global)?;
    let runtime_dir = options.runtime_dir(true);
    let mut facts = HostFacts::gather(&[options.data_dir(), &runtime_dir]).with_programs();
    let binary = Binary::find(&options);
    if let Ok(binary) = &binary {
        facts = facts.with_firecracker(binary.path());
    }
    let mut findings = doctor(&facts);
    findings.push(doctor_jail(&chroot_base(options.data_dir())));
    findings.extend(Network::new(&runtime_dir, &options)?.findings());
    let unfit = findings
        .iter()
        .any(|finding| finding.status == Status::Fail);
    let status = if unfit { UNFIT } else { 0 };
    if output::json() {
        output::value(&findings)?;
        return Ok(status);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for finding in findings {
        let mark = match finding.status {
            Status::Ok => "ok",
            Status::Warn => "WARN",
            Status::Fail => "FAIL",
        };
        table.add_row([mark, &finding.name, &finding.found]);
        if !finding.advice.is_empty() {
            table.add_row(["", "", &format!("→ {}", finding.advice)]);
        }
    }
    output::line(table)?;
    if let Err(missing) = binary {
        output::line(format_args!("  WARN  firecracker: {missing}"))?;
        if let Some(hint) = missing.way_out() {
            output::line(format_args!("        → {hint}"))?;
        }
    }
    Ok(status)
}
