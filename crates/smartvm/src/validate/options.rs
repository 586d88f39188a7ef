//! Options of the orchestrator, of the network, and of the store of base images.

use std::path::Path;

use ipnet::Ipv4Net;

use super::report::{Report, quoted};
use super::{firewall, wireguard};
use crate::name::IfName;
use crate::spec::{
    BaseImageManagerOptions, BaseImagePreset, EnsureBaseImageOptions, HostService,
    NetworkManagerOptions, Problems, SmartVmOptions,
};

/// Checks the orchestrator's options.
pub fn validate_options(options: &SmartVmOptions) -> Result<(), Problems> {
    let mut report = Report::default();
    for (field, path) in [
        ("dataDir", &options.data_dir),
        ("runtimeDir", &options.runtime_dir),
        ("firecrackerBinaryPath", &options.firecracker_binary_path),
        ("baseImageCacheDir", &options.base_image_cache_dir),
    ] {
        report.file_if_given(field, path.as_deref());
    }
    if let Some(version) = &options.firecracker_version {
        firecracker_version(version, &mut report);
    }
    network(&NetworkManagerOptions::from(options), &mut report);
    stored(options.max_stored_base_images, &mut report);
    manifest(
        (
            "baseImageManifestUrl",
            options.base_image_manifest_url.as_deref(),
        ),
        (
            "baseImageManifestPath",
            options.base_image_manifest_path.as_deref(),
        ),
        &mut report,
    );
    report.into_problems().into_result()
}

/// Checks options of the host's network.
pub fn validate_network_options(options: &NetworkManagerOptions) -> Result<(), Problems> {
    let mut report = Report::default();
    network(options, &mut report);
    report.into_problems().into_result()
}

/// Checks options of the store of base images.
pub fn validate_base_image_manager_options(
    options: &BaseImageManagerOptions,
) -> Result<(), Problems> {
    let mut report = Report::default();
    report.file_if_given("cacheDir", options.cache_dir.as_deref());
    stored(options.max_stored_base_images, &mut report);
    manifest(
        ("hostedManifestUrl", options.hosted_manifest_url.as_deref()),
        (
            "hostedManifestPath",
            options.hosted_manifest_path.as_deref(),
        ),
        &mut report,
    );
    report.into_problems().into_result()
}

/// Checks which bundle is asked for. Whether `hosted` has a manifest also depends on the
/// store's options, `hosted_by_store`.
pub fn validate_ensure_base_image_options(
    options: &EnsureBaseImageOptions,
    hosted_by_store: bool,
) -> Result<(), Problems> {
    let mut report = Report::default();
    manifest(
        ("manifestUrl", options.manifest_url.as_deref()),
        ("manifestPath", options.manifest_path.as_deref()),
        &mut report,
    );
    let given = options.manifest_url.is_some() || options.manifest_path.is_some();
    report.demand(
        options.preset != Some(BaseImagePreset::Hosted) || given || hosted_by_store,
        "preset",
        || "is `hosted`, and there is no manifest".into(),
        "`hosted` with `manifestUrl` or `manifestPath`",
    );
    report.into_problems().into_result()
}

fn network(options: &NetworkManagerOptions, report: &mut Report) {
    if let Some(bridge) = &options.bridge_name {
        report.name::<IfName>("bridgeName", bridge);
    }
    if let Some(text) = &options.subnet {
        subnet(text, report);
    }
    if let Some(rules) = &options.firewall {
        firewall::check(rules, "firewall", report);
    }
    for (index, service) in options.host_services.iter().enumerate() {
        report.demand(
            HostService::parse(service).is_some(),
            format!("hostServices[{index}]"),
            || format!("{} is no service", quoted(service)),
            "tcp/PORT, udp/PORT, or one of dns, http, https, ntp, ssh",
        );
    }
    if let Some(tunnel) = &options.wireguard {
        wireguard::check(tunnel, options.bridge_name(), report);
    }
}

fn subnet(text: &str, report: &mut Report) {
    const ALLOWED: &str = "an IPv4 network with a prefix of 1 to 30, such as 172.30.0.0/24";
    if !text.contains('/') {
        return report.wrong("subnet", format!("{} has no prefix", quoted(text)), ALLOWED);
    }
    let network: Ipv4Net = match firewall::destination(text) {
        Ok(network) => network,
        Err((problem, _)) => return report.wrong("subnet", problem, ALLOWED),
    };
    let prefix = network.prefix_len();
    if !(1..=30).contains(&prefix) {
        return report.wrong(
            "subnet",
            format!("{network} has the prefix {prefix}"),
            ALLOWED,
        );
    }
    let address = network.network();
    report.demand(
        !(address.is_loopback()
            || address.is_multicast()
            || address.is_link_local()
            || matches!(address.octets()[0], 0 | 240..)),
        "subnet",
        || format!("{network} isn't made of addresses that guests can have"),
        "a network for hosts, such as one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
    );
}

/// It becomes part of a path and of a URL.
fn firecracker_version(version: &str, report: &mut Report) {
    let plain = version.strip_prefix('v').unwrap_or(version);
    let (numbers, suffix) = plain.split_once('-').unwrap_or((plain, ""));
    let number = |it: &str| (1..=5).contains(&it.len()) && it.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = numbers.split('.').collect();
    let sound = version == "latest"
        || (parts.len() == 3
            && parts.iter().all(|part| number(part))
            && suffix.len() <= 32
            && !plain.ends_with('-')
            && suffix
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || b"-.".contains(&it))
            && !suffix.contains(".."));
    report.demand(
        sound,
        "firecrackerVersion",
        || format!("{} isn't a version", quoted(version)),
        "a release such as 1.12.1 or v1.12.1, or `latest`",
    );
}

fn stored(count: Option<u32>, report: &mut Report) {
    report.demand(
        count != Some(0),
        "maxStoredBaseImages",
        || "is 0, which leaves no place for the one in use".into(),
        "1 or more",
    );
}

fn manifest(url: (&str, Option<&str>), path: (&str, Option<&Path>), report: &mut Report) {
    if let (url_field, Some(text)) = url {
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        let sound = text.len() <= 2048
            && rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
            && text.bytes().all(|it| it.is_ascii_graphic());
        report.demand(
            sound,
            url_field,
            || "isn't a URL".into(),
            "an http or https URL of at most 2048 bytes",
        );
    }
    report.file_if_given(path.0, path.1);
    report.demand(
        url.1.is_none() || path.1.is_none(),
        path.0,
        || format!("is given together with `{}`", url.0),
        "one of the two",
    );
}
