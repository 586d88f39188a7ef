use clap::Args;
use smartvm::{Error, ErrorKind, Result};

#[derive(Debug, Args)]
pub(crate) struct EmulateArgs {}

pub(crate) fn run(_args: EmulateArgs) -> Result<u8> {
    Err(Error::new(ErrorKind::Invalid, "not yet"))
}
