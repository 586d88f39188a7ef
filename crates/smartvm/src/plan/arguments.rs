//! What Firecracker is told on its command line.

use std::path::Path;

use super::Root;
use super::planner::Streams;
use crate::error::{Error, ErrorKind, Result};
use crate::name::VmId;
use crate::rundir::file;
use crate::spec::{LogLevel, MicroVmSpec};

/// Firecracker's arguments. The log is set up by them, not by a request, so that it holds
/// what comes before the first request too. The jailer adds the id by itself.
pub(super) fn arguments(
    id: &VmId,
    spec: &MicroVmSpec,
    root: &Root,
    streams: &Streams,
) -> Result<Vec<String>> {
    let mut args: Vec<String> = Vec::new();
    let mut option = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
    if !root.is_jail() {
        option("--id", id.as_str());
    }
    option("--api-sock", file::API_SOCKET);
    match (&spec.logger, &streams.log) {
        (Some(logger), Some(path)) => {
            utf8(&logger.log_path, "logger.logPath")?;
            option("--log-path", path);
            option("--level", level_name(logger.level.unwrap_or_default()));
            if logger.show_level.unwrap_or(false) {
                args.push("--show-level".into());
            }
            if logger.show_log_origin.unwrap_or(false) {
                args.push("--show-log-origin".into());
            }
        }
        _ => {
            option("--log-path", file::VMM_LOG_IN);
            option("--level", "Warning");
        }
    }
    if let (Some(metrics), Some(path)) = (&spec.metrics, &streams.metrics) {
        utf8(&metrics.metrics_path, "metrics.metricsPath")?;
        args.extend(["--metrics-path".to_owned(), path.clone()]);
    }
    Ok(args)
}

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Off => "Off",
        LogLevel::Trace => "Trace",
        LogLevel::Debug => "Debug",
        LogLevel::Info => "Info",
        LogLevel::Warning => "Warning",
        LogLevel::Error => "Error",
    }
}

pub(super) fn utf8<'a>(path: &'a Path, field: &str) -> Result<&'a str> {
    path.to_str()
        .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("{field} is not UTF-8")).at(path))
}
