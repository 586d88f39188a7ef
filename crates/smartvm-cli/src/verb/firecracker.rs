use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use smartvm::firecracker::Version;
use smartvm::{Result, SmartVm};

use crate::{output, progress};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm firecracker install 1.12.1
  smartvm firecracker ls
  smartvm firecracker rm 1.12.1")]
pub(crate) struct FirecrackerArgs {
    #[command(subcommand)]
    verb: FirecrackerVerb,
}

#[derive(Debug, Subcommand)]
enum FirecrackerVerb {
    /// Fetch a release, verify it, and keep it; prints its directory
    #[command(after_help = "Examples:\n  smartvm firecracker install\n  \
                            smartvm firecracker install 1.12.1")]
    Install {
        /// The version, or `latest`
        #[arg(default_value = "latest", value_name = "VERSION")]
        release: String,
    },
    /// List what is installed
    Ls,
    /// Remove versions that no VM uses
    Rm {
        /// The versions
        #[arg(required = true, value_name = "VERSION")]
        versions: Vec<Version>,
    },
}

pub(crate) async fn run(smartvm: &SmartVm, args: FirecrackerArgs) -> Result<u8> {
    match args.verb {
        FirecrackerVerb::Install { release } => {
            let one = smartvm.install(&release, &progress::downloads()).await?;
            if output::json() {
                output::value(&one)?;
            } else {
                output::line(one.dir.display())?;
            }
        }
        FirecrackerVerb::Ls => list(smartvm)?,
        FirecrackerVerb::Rm { versions } => {
            let releases = smartvm.releases()?;
            for version in versions {
                releases.remove(version, smartvm.options().arch())?;
            }
        }
    }
    Ok(0)
}

fn list(smartvm: &SmartVm) -> Result<()> {
    let installed = smartvm.releases()?.installed()?;
    if output::json() {
        return output::value(&installed);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["VERSION", "ARCH", "DIRECTORY"]);
    for one in installed {
        table.add_row([
            one.version.to_string(),
            one.arch,
            one.dir.display().to_string(),
        ]);
    }
    output::line(table)
}
