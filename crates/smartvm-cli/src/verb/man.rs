use std::path::PathBuf;

use clap::{Args, CommandFactory};
use smartvm::{Error, Result};

use crate::{cli, output};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm man | man -l -                          read the command's page
  smartvm man --output /usr/local/share/man/man1  install a page for each verb")]
pub(crate) struct ManArgs {
    /// Write a page for the command and one for each verb into this directory
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &ManArgs) -> Result<u8> {
    let command = cli::Cli::command();
    let Some(dir) = &args.output else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .render(&mut page)
            .map_err(|e| Error::io("making", "the man page", e))?;
        output::bytes(&page)?;
        return Ok(0);
    };
    std::fs::create_dir_all(dir).map_err(|e| Error::io("making", dir, e))?;
    clap_mangen::generate_to(command, dir).map_err(|e| Error::io("writing to", dir, e))?;
    Ok(0)
}
