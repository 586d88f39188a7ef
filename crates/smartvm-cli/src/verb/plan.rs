use std::path::{Path, PathBuf};

use clap::Args;
use smartvm::firecracker::{Binary, Version, jailer};
use smartvm::network::Network;
use smartvm::validate::{ValidateContext, read_file, validate};
use smartvm::{Error, ErrorKind, Result, plan};

use crate::cli::{Global, JailArgs};
use crate::{output, settings};

/// What is planned for where no Firecracker is found: the API of the newest release known.
const ASSUMED: Version = Version::new(1, 16, 0);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm plan -f vm.json
  smartvm --json plan -f vm.json | jq .requests")]
pub(crate) struct PlanArgs {
    /// The spec: JSON, TOML or YAML
    #[arg(short, long, value_name = "SPEC")]
    file: PathBuf,
    #[command(flatten)]
    jail: JailArgs,
}

pub(crate) fn run(global: &Global, args: &PlanArgs) -> Result<u8> {
    let options = settings::options(global)?;
    let asked = read_file(&args.file, &ValidateContext::from(&options))?;
    let found = Binary::find(&options).ok();
    let no_jailer = || match &found {
        _ if !rustix::process::geteuid().is_root() => {
            Some(Error::new(ErrorKind::Host, "the jailer needs root rights"))
        }
        Some(binary) => jailer::beside(binary).err(),
        None => None,
    };
    let mut spec = asked.into_inner();
    args.jail.apply(&mut spec, no_jailer);
    let valid = validate(&spec, &ValidateContext::from(&options))?;
    let id = match valid.id() {
        Some(id) => id.clone(),
        None => "generated-id".parse()?,
    };
    if found.is_none() {
        output::warning(format_args!(
            "no Firecracker was found: planning for {ASSUMED}"
        ));
    }
    let (firecracker, version) = match &found {
        Some(binary) => (binary.path(), binary.version()),
        None => (Path::new("firecracker"), ASSUMED),
    };
    let base = std::env::current_dir()
        .map_err(|e| Error::new(ErrorKind::Host, "finding the current directory").because(e))?;
    let runtime_dir = options.runtime_dir(Path::new("/dev/shm").is_dir());
    let interfaces = valid.network_interfaces.iter();
    let without_tap: Vec<String> = interfaces
        .filter(|one| one.host_dev_name.is_none())
        .map(|one| one.iface_id.clone())
        .collect();
    let wiring = match without_tap.is_empty() {
        true => None,
        false => Some(Network::new(&runtime_dir, &options)?.preview(&id, &without_tap)?),
    };
    let chroot_base = plan::chroot_base(options.data_dir());
    let root_rights = rustix::process::geteuid().is_root();
    let jailer = match &found {
        Some(binary) if root_rights && plan::jailed(&valid, false) => Some(jailer::beside(binary)?),
        Some(binary) if root_rights && plan::jailed(&valid, true) => jailer::beside(binary).ok(),
        Some(_) => None,
        None => Some("jailer".into()),
    };
    let context = plan::Context {
        id,
        runtime_dir: &runtime_dir,
        firecracker,
        version,
        options: &options.runtime_options(),
        base: &base,
        network: wiring.as_ref(),
        jail: jailer.as_deref().map(|jailer| plan::JailContext {
            jailer,
            chroot_base: &chroot_base,
        }),
    };
    let plan = plan::plan(&valid, &context)?;
    if output::json() {
        output::value(&plan)?
    } else {
        output::line(&plan)?
    }
    Ok(0)
}
