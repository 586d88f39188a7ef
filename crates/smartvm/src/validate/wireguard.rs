//! Tunnels.

use super::report::Report;
use crate::name::IfName;
use crate::spec::WireGuardConfig;
use crate::spec::wg_quick::Config;

/// Routing tables that the kernel and its tools use themselves: unspec, default, main, local.
const RESERVED_TABLES: [u32; 4] = [0, 253, 254, 255];
/// Longest configuration text, in bytes.
const MAX_CONFIG_BYTES: usize = 64 * 1024;

pub(super) fn check(tunnel: &WireGuardConfig, bridge: &str, report: &mut Report) {
    let (field, name) = match tunnel {
        WireGuardConfig::Managed(managed) => {
            let config = managed.config.reveal();
            report.demand(
                !config.trim().is_empty() && config.len() <= MAX_CONFIG_BYTES,
                "wireguard.config",
                || match config.len() {
                    bytes if bytes > MAX_CONFIG_BYTES => format!("is {bytes} bytes long"),
                    _ => "is empty".into(),
                },
                "a wg-quick configuration of at most 65536 bytes",
            );
            if !config.trim().is_empty()
                && config.len() <= MAX_CONFIG_BYTES
                && let Err(error) = Config::parse(config)
            {
                report.wrong("wireguard.config", error.to_string(), error.allowed);
            }
            ("wireguard.interfaceName", managed.interface_name.as_deref())
        }
        WireGuardConfig::Existing(existing) => (
            "wireguard.existingInterface",
            Some(existing.existing_interface.as_str()),
        ),
    };
    if let Some(name) = name {
        report.name::<IfName>(field, name);
    }
    report.demand(
        tunnel.interface() != bridge,
        field,
        || "is the bridge's own name".into(),
        "another name than `bridgeName`",
    );
    let table = tunnel.route_table();
    report.demand(
        !RESERVED_TABLES.contains(&table),
        "wireguard.routeTable",
        || format!("{table} is a table of the kernel's own"),
        "1 to 4294967295, but not 253, 254 or 255",
    );
}
