use clap::{Args, ValueEnum};
use smartvm::Result;
use smartvm::spec::schema;

use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm schema spec > spec.schema.json
  smartvm schema manifest")]
pub(crate) struct SchemaArgs {
    /// Which file's
    of: Kind,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// A VM's spec
    Spec,
    /// The options
    Options,
    /// An image's manifest
    Manifest,
}

pub(crate) fn run(args: &SchemaArgs) -> Result<u8> {
    output::value(&match args.of {
        Kind::Spec => schema::spec(),
        Kind::Options => schema::options(),
        Kind::Manifest => schema::of::<smartvm::storage::BundleManifest>(),
    })?;
    Ok(0)
}
