use std::io::Read;

use clap::{Args, Subcommand};
use serde_json::Value;
use smartvm::{Error, ErrorKind, MicroVm, Result, SmartVm};

use crate::output;

/// What is read of a file of metadata at most, in bytes: white space may be in it.
const MOST_BYTES: u64 = 1 << 20;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm metadata get web
  smartvm metadata set web '{\"role\": \"db\"}'
  smartvm metadata patch web '{\"role\": null, \"size\": 3}'
  smartvm metadata set web - < metadata.json

The VM's spec must have `mmds`. The data is a JSON object of at most 51,200 bytes.")]
pub(crate) struct MetadataArgs {
    #[command(subcommand)]
    verb: MetadataVerb,
}

#[derive(Debug, Subcommand)]
enum MetadataVerb {
    /// Print it
    Get {
        /// The VM's id, or the beginning of it
        id: String,
    },
    /// Replace all of it
    Set(Given),
    /// Change some of it, by JSON Merge Patch: null removes
    Patch(Given),
}

#[derive(Debug, Args)]
struct Given {
    /// The VM's id, or the beginning of it
    id: String,
    /// A JSON object; `-` reads it from standard input
    #[arg(value_name = "JSON")]
    data: String,
}

impl Given {
    fn value(&self) -> Result<Value> {
        let mut text = self.data.clone();
        if text == "-" {
            text.clear();
            std::io::stdin()
                .take(MOST_BYTES)
                .read_to_string(&mut text)
                .map_err(|e| Error::io("reading", "standard input", e))?;
        }
        serde_json::from_str(&text)
            .map_err(|e| Error::new(ErrorKind::Invalid, "the metadata isn't JSON").because(e))
    }
}

pub(crate) async fn run(smartvm: &SmartVm, args: &MetadataArgs) -> Result<u8> {
    let find = |id: &str| -> Result<MicroVm> { smartvm.get(&smartvm.runtime().resolve(id)?) };
    match &args.verb {
        MetadataVerb::Get { id } => output::value(&find(id)?.metadata().await?)?,
        MetadataVerb::Set(given) => find(&given.id)?.set_metadata(&given.value()?).await?,
        MetadataVerb::Patch(given) => find(&given.id)?.patch_metadata(&given.value()?).await?,
    }
    Ok(0)
}
