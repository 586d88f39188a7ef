//! Where the options come from: flags, then the environment, then the configuration file,
//! then the platform's defaults.

use std::path::{Path, PathBuf};

use smartvm::spec::{MicroVmSpec, SmartVmOptions};
use smartvm::storage::download::Settings;
use smartvm::storage::oci::registry::Credentials;
use smartvm::validate::{ValidateContext, read_file};
use smartvm::{Parts, Result, SmartVm};

use crate::cli::Global;

const CONFIG: &str = "/etc/smartvm/config.toml";

/// The options of this call.
pub(crate) fn options(global: &Global) -> Result<SmartVmOptions> {
    let config = global.config.clone().or_else(|| {
        let standard = Path::new(CONFIG);
        standard.exists().then(|| standard.to_owned())
    });
    let mut options = match config {
        Some(path) => smartvm::spec::load_file(&path)?,
        None => SmartVmOptions::default(),
    };
    let (data, runtime) = platform_directories();
    let set =
        |field: &mut Option<PathBuf>, flag: &Option<PathBuf>, default: &dyn Fn() -> PathBuf| {
            *field = flag
                .clone()
                .or_else(|| field.take())
                .or_else(|| Some(default()));
        };
    set(&mut options.data_dir, &global.data_dir, &|| data.clone());
    let under_data = global.data_dir.as_ref().map(|dir| dir.join("runtime"));
    set(&mut options.runtime_dir, &global.runtime_dir, &|| {
        under_data.clone().unwrap_or_else(|| runtime.clone())
    });
    if let Some(firecracker) = &global.firecracker {
        options.firecracker_binary_path = Some(firecracker.clone());
    }
    Ok(options)
}

/// The VMs that these options are about.
pub(crate) fn open(global: &Global, assume_kvm: bool) -> Result<SmartVm> {
    let mut parts = Parts::default();
    parts.assume_kvm = assume_kvm;
    // This very executable keeps VMs, also after it was replaced on disk meanwhile.
    parts.keeper = std::env::current_exe().ok();
    parts.sources.releases.clone_from(&global.releases);
    parts.sources.bucket.clone_from(&global.bucket);
    parts.sources.downloads = downloads();
    parts.sources.credentials = Credentials::from_files(credentials());
    SmartVm::open(options(global)?, parts)
}

/// Proxies and certificates as the environment names them, in the usual variables.
fn downloads() -> Settings {
    let variable = |names: &[&str]| {
        let set = names.iter().filter_map(|name| std::env::var(name).ok());
        set.into_iter().find(|value| !value.is_empty())
    };
    let mut settings = Settings::default();
    let proxy = |names: &[&str]| variable(names).map(smartvm::spec::Secret::from);
    settings.proxies.http = proxy(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]);
    settings.proxies.https = proxy(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]);
    settings.proxies.none_for = variable(&["no_proxy", "NO_PROXY"]);
    settings.certificates = variable(&["SSL_CERT_FILE"])
        .map(PathBuf::from)
        .into_iter()
        .collect();
    settings
}

/// The files in which docker, podman and their like keep who asks registries.
fn credentials() -> Vec<PathBuf> {
    let path = |name: &str| {
        std::env::var_os(name)
            .filter(|it| !it.is_empty())
            .map(PathBuf::from)
    };
    if let Some(file) = path("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = path("HOME");
    let config = path("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let docker = path("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    [
        path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        config.map(|dir| dir.join("containers/auth.json")),
        docker.map(|dir| dir.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Data and runtime directory: the system's for root, the user's own otherwise.
fn platform_directories() -> (PathBuf, PathBuf) {
    if rustix::process::geteuid().is_root() {
        return ("/var/lib/smartvm".into(), "/run/smartvm".into());
    }
    let from = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let home = from("HOME").unwrap_or_else(|| "/nonexistent".into());
    let data = from("XDG_DATA_HOME")
        .unwrap_or_else(|| home.join(".local/share"))
        .join("smartvm");
    let runtime = match from("XDG_RUNTIME_DIR") {
        Some(dir) => dir.join("smartvm"),
        None => data.join("runtime"),
    };
    (data, runtime)
}

/// The spec in this file. Where its shape is wrong, what is wrong with its content is told at
/// the same time.
pub(crate) fn spec(options: &SmartVmOptions, file: &Path) -> Result<MicroVmSpec> {
    smartvm::spec::load_file(file).map_err(|misshapen| {
        let context = ValidateContext::from(options);
        read_file(file, &context).err().unwrap_or(misshapen)
    })
}
