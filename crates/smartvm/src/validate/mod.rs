//! Cross-field checks of a spec, pure: all problems at once, each with its field path.
//!
//! [`validate`] turns a [`MicroVmSpec`] into a [`ValidSpec`], the proof that later stages ask
//! for. It covers what Firecracker would accept in silence or punish by ending. What needs the
//! host (files, TAP devices, space) is [`host`](crate::host)'s to check.

mod boot_source;
mod devices;
mod drives;
mod firewall;
mod jail;
mod labels;
mod machine;
mod network;
mod options;
mod rate_limiter;
mod report;
mod snapshot;
mod wireguard;

use std::path::Path;

#[cfg(feature = "network")]
pub(crate) use firewall::destination;
pub use firewall::validate_firewall;
pub use options::{
    validate_base_image_manager_options, validate_ensure_base_image_options,
    validate_network_options, validate_options,
};
pub use snapshot::{validate_snapshot_create, validate_snapshot_load};

use crate::Result;
use crate::name::VmId;
use crate::spec::{
    Arch, Format, MicroVmSpec, Problem, Problems, RuntimeOptions, SmartVmOptions, load,
};
use report::Report;

/// What a spec means depends on, without touching the host.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ValidateContext {
    /// Architecture of the microVM; any, not only the host's.
    pub arch: Arch,
    /// Whether drives are copied, which decides whether two may share an image.
    pub runtime: RuntimeOptions,
}

impl ValidateContext {
    /// For a microVM of this architecture.
    pub fn new(arch: Arch, runtime: RuntimeOptions) -> Self {
        Self { arch, runtime }
    }
}

impl From<&SmartVmOptions> for ValidateContext {
    fn from(options: &SmartVmOptions) -> Self {
        Self::new(options.arch(), options.runtime_options())
    }
}

/// A spec that passed [`validate`].
#[derive(Debug, Clone, PartialEq)]
pub struct ValidSpec {
    spec: MicroVmSpec,
    id: Option<VmId>,
    arch: Arch,
}

impl ValidSpec {
    /// The microVM's name, if the spec gives one.
    pub fn id(&self) -> Option<&VmId> {
        self.id.as_ref()
    }

    /// The architecture it was validated for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The spec itself.
    pub fn into_inner(self) -> MicroVmSpec {
        self.spec
    }
}

impl std::ops::Deref for ValidSpec {
    type Target = MicroVmSpec;

    fn deref(&self) -> &MicroVmSpec {
        &self.spec
    }
}

impl AsRef<MicroVmSpec> for ValidSpec {
    fn as_ref(&self) -> &MicroVmSpec {
        &self.spec
    }
}

/// Checks a spec in itself.
///
/// ```
/// use smartvm::spec::{BootSource, MachineConfig, MicroVmSpec, Vsock};
/// use smartvm::validate::{ValidateContext, validate};
///
/// let spec = MicroVmSpec::builder()
///     .id("web_1")
///     .boot_source(BootSource::builder().kernel_image_path("vmlinux").build())
///     .machine_config(MachineConfig::builder().vcpu_count(33).mem_size_mib(128).build())
///     .vsock(Vsock::builder().guest_cid(2).uds_path("v.sock").build())
///     .build();
/// let problems = validate(&spec, &ValidateContext::default()).unwrap_err();
/// let places: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
/// assert_eq!(places, ["id", "machineConfig.vcpuCount", "vsock.guestCid"]);
/// ```
pub fn validate(spec: &MicroVmSpec, context: &ValidateContext) -> Result<ValidSpec, Problems> {
    let mut report = Report::default();
    let id = spec.id.as_deref().and_then(|id| report.name("id", id));
    boot_source::check(&spec.boot_source, &mut report);
    machine::check(&spec.machine_config, context.arch, &mut report);
    drives::check(&spec.drives, &context.runtime, &mut report);
    network::check(spec, &mut report);
    devices::check(spec, &mut report);
    labels::check(&spec.labels, &mut report);
    if let Some(firewall) = &spec.firewall {
        firewall::check(firewall, "firewall", &mut report);
    }
    if let Some(jail) = &spec.jail {
        jail::check(jail, &spec.network_interfaces, &mut report);
    }
    report.file_if_given("stagingDir", spec.staging_dir.as_deref());
    report.demand(
        spec.max_runtime_s != Some(0),
        "maxRuntimeS",
        || "is 0, which would end the microVM at once".into(),
        "1 or more seconds; leave it out for no limit",
    );
    report.into_problems().into_result()?;
    Ok(ValidSpec {
        spec: spec.clone(),
        id,
        arch: context.arch,
    })
}

/// Reads and validates a document: problems of its shape and of its content are reported
/// together.
pub fn read(text: &str, format: Format, context: &ValidateContext) -> Result<ValidSpec, Problems> {
    read_with(text, format, |spec| validate(spec, context))
}

/// Reads and validates a file as [`read`] does; the extension of its name tells the format,
/// else its text.
pub fn read_file(path: impl AsRef<Path>, context: &ValidateContext) -> Result<ValidSpec> {
    let path = path.as_ref();
    let (text, format) = load::read(path)?;
    read(&text, format, context).map_err(|problems| load::about(problems, path))
}

/// Reads and validates a file of orchestrator options.
pub fn read_options_file(path: impl AsRef<Path>) -> Result<SmartVmOptions> {
    let path = path.as_ref();
    let (text, format) = load::read(path)?;
    read_with(&text, format, |options: &SmartVmOptions| {
        validate_options(options).map(|()| options.clone())
    })
    .map_err(|problems| load::about(problems, path))
}

fn read_with<T, V>(
    text: &str,
    format: Format,
    validate: impl FnOnce(&T) -> Result<V, Problems>,
) -> Result<V, Problems>
where
    T: serde::de::DeserializeOwned + schemars::JsonSchema,
{
    let (value, mut problems) = load::load_mended::<T>(text, format)?;
    match validate(&value) {
        Ok(valid) => problems.into_result().map(|()| valid),
        Err(more) => {
            // Values that stand in for misshapen ones aren't the writer's.
            let made_up: Vec<String> = problems.iter().map(|one| one.path.clone()).collect();
            problems.extend(
                more.into_iter()
                    .filter(|problem| !within(problem, &made_up)),
            );
            Err(problems)
        }
    }
}

fn within(problem: &Problem, paths: &[String]) -> bool {
    paths.iter().any(|path| {
        problem
            .path
            .strip_prefix(path.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}
