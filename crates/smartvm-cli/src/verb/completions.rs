use clap::{Args, CommandFactory};
use clap_complete::Shell;
use smartvm::Result;

use crate::{cli, output};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm completions bash > /etc/bash_completion.d/smartvm
  smartvm completions zsh > ~/.zfunc/_smartvm")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::Cli::command(), "smartvm", &mut script);
    output::bytes(&script)?;
    Ok(0)
}
