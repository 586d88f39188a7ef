use clap::Args;
use smartvm::{Error, ErrorKind, Result};

use crate::cli::Global;

#[derive(Debug, Args)]
pub(crate) struct ImageArgs {}

pub(crate) fn run(_global: &Global, _args: ImageArgs) -> Result<u8> {
    Err(Error::new(ErrorKind::Invalid, "not yet"))
}
