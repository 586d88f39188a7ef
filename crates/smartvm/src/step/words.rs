//! Steps in words, for people.

use std::fmt;

use super::Step;

impl Step {
    /// What undoing it does, for people.
    pub fn undo_in_words(&self) -> &'static str {
        match self {
            Self::MakeDir { .. } | Self::ClaimDir { .. } => "remove the directory",
            Self::Link { .. } => "remove the link",
            Self::MakeFifo { .. } => "remove the pipe",
            Self::EnsureFile { .. } => "nothing: the file is yours",
            Self::StageDrive { .. } => "remove the copy",
            Self::ClaimSnapshot { .. } => "remove it, unless it is whole",
            Self::UseSnapshot { .. } => "write down that it needs it no more",
            Self::MergeMemory { .. } => "nothing: the memory stays with its snapshot",
            Self::ReserveSocket { .. } => "remove the socket",
            Self::Network(step) => step.undo_in_words(),
            Self::Jail(step) => step.undo_in_words(),
            Self::SpawnVmm { .. } => "kill it and wait until it is dead",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeDir { path } | Self::ClaimDir { path, .. } => {
                write!(out, "make directory {}", path.display())
            }
            Self::Link { path, target } => {
                write!(out, "link {} to {}", path.display(), target.display())
            }
            Self::MakeFifo { path } => write!(out, "make pipe {}", path.display()),
            Self::EnsureFile { path } => write!(out, "make {} where missing", path.display()),
            Self::StageDrive {
                drive_id,
                source,
                target,
            } => {
                write!(
                    out,
                    "copy drive {drive_id} from {} to {}",
                    source.display(),
                    target.display()
                )
            }
            Self::ClaimSnapshot { state, .. } => {
                write!(out, "claim the place of snapshot {}", state.display())
            }
            Self::UseSnapshot { dir, vm, .. } => {
                write!(out, "write down in {} that VM {vm} needs it", dir.display())
            }
            Self::MergeMemory { layers, target } => {
                write!(
                    out,
                    "merge {} layers of memory to {}",
                    layers.len(),
                    target.display()
                )
            }
            Self::ReserveSocket { path } => write!(out, "reserve socket {}", path.display()),
            Self::Network(step) => step.fmt(out),
            Self::Jail(step) => step.fmt(out),
            Self::SpawnVmm {
                executable,
                args,
                directory,
                jailer,
                cgroup,
                ..
            } => {
                let (program, place) = (executable.display(), directory.display());
                write!(out, "start {program} {} in {place}", args.join(" "))?;
                if let Some(jailer) = jailer {
                    write!(out, ", jailed by {}", jailer.executable.display())?;
                    if let Some(net_ns) = &jailer.net_ns {
                        write!(out, ", in network namespace {}", net_ns.display())?;
                    }
                    if jailer.new_pid_ns {
                        write!(out, ", in its own process namespace")?;
                    }
                    if !jailer.resource_limits.is_empty() {
                        write!(out, ", with {}", jailer.resource_limits.join(" "))?;
                    }
                }
                match cgroup {
                    Some(cgroup) => write!(out, ", in cgroup {}", cgroup.display()),
                    None => Ok(()),
                }
            }
        }
    }
}
