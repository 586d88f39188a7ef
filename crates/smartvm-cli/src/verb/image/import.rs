use std::fs;
use std::path::PathBuf;

use clap::Args;
use smartvm::spec::Arch;
use smartvm::storage::oci::{self, Wanted};
use smartvm::storage::store::{Origin, Record};
use smartvm::storage::{Bundle, Watch};
use smartvm::{Error, Result, SmartVm};

use super::make::{MakeArgs, make};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm image import ./layout --kernel-from base       an OCI layout
  smartvm image import tool.tar --name tool              what `docker save` or an OCI archive holds
  smartvm run --image tool                               runs what the image says")]
pub(crate) struct ImportArgs {
    /// An OCI layout, or what `docker save` writes: a directory or an archive
    #[arg(value_name = "DIR|ARCHIVE")]
    source: PathBuf,
    /// Which image, where there are several
    #[arg(long = "ref", value_name = "NAME")]
    reference: Option<String>,
    #[command(flatten)]
    make: MakeArgs,
}

/// Makes a bundle of an image on this machine.
pub(crate) fn import(vms: &SmartVm, args: ImportArgs, watch: &mut Watch<'_>) -> Result<Bundle> {
    let options = vms.options();
    let arch = options.arch.or(Arch::host()).unwrap_or(Arch::X86_64);
    let mut wanted = Wanted::for_arch(arch);
    wanted.name = args.reference;
    let work = options.data_dir();
    fs::create_dir_all(work).map_err(|e| Error::io("making the data directory", work, e))?;
    let image = oci::open(&args.source, &wanted, work, watch)?;
    if args.make.output.is_some() {
        return make(vms, &image, None, args.make, watch);
    }
    let fallback = args.source.file_stem().unwrap_or_default();
    let name = match &args.make.name {
        Some(name) => name.clone(),
        None => short_name(image.name().unwrap_or(&fallback.to_string_lossy())),
    };
    let claim = super::store::store(vms)?.claim(&name, watch.cancelled())?;
    let record = Record::new(Origin::Imported);
    make(vms, &image, Some((&claim, record)), args.make, watch)
}

/// The last part of an image's name, without what a directory can't be named: `tool` for
/// `registry.example/team/tool:1.2`.
fn short_name(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    let last = last.split(['@', ':']).next().unwrap_or(last);
    last.chars()
        .map(|c| match c {
            'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' | '-' => c,
            _ => '-',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_by_the_last_part_of_their_name() {
        for (name, short) in [
            ("alpine", "alpine"),
            ("registry.example:5000/team/tool:1.2", "tool"),
            ("tool@sha256:00ff", "tool"),
            ("odd name", "odd-name"),
        ] {
            assert_eq!(short_name(name), short);
        }
    }
}
