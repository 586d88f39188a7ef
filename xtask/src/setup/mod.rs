//! What the demo and the tests need, fetched once.

mod boringtun;
mod debian;
mod firecracker;
mod kernel;
mod registry;
mod rootfs;
mod tools;

use std::path::PathBuf;

use crate::cache::Cache;
use crate::failure::{Failure, Result};
use crate::progress::say;

pub(crate) use firecracker::Firecracker;
pub(crate) use kernel::Kernel;

/// What it is all for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The main job.
    Demo,
    /// The tests and benchmarks, which take more.
    Tests,
}

/// Where everything is, or why it isn't: what runs without a part doesn't mind that.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) cache: Cache,
    pub(crate) tools: Result<()>,
    pub(crate) firecracker: Result<Firecracker>,
    /// A directory with the emulated host's kernel.
    pub(crate) emulated_host: Result<PathBuf>,
    pub(crate) guest_kernel: Result<Kernel>,
    /// A directory with the guests' root file system.
    pub(crate) rootfs: Result<PathBuf>,
}

impl Setup {
    /// Fetches and makes what isn't there yet.
    ///
    /// # Errors
    /// If nothing can be kept anywhere, or this is an architecture for which there is nothing.
    pub(crate) fn prepare(purpose: Purpose) -> Result<Self> {
        if !cfg!(target_arch = "x86_64") {
            return Err(Failure::new(
                "the demo and the tests in guests need an x86_64 machine so far: there is no \
                 Firecracker for others among the packages that they take it from",
            ));
        }
        let cache = Cache::open()?;
        // The first one brings what the others work with.
        let tools = tools::install(purpose);
        Ok(Self {
            firecracker: firecracker::fetch(&cache),
            emulated_host: kernel::emulated_host(&cache),
            guest_kernel: kernel::guest(&cache),
            rootfs: rootfs::make(&cache),
            tools,
            cache,
        })
    }

    /// A directory with boringtun, which tests alone take.
    pub(crate) fn boringtun(&self) -> Result<PathBuf> {
        boringtun::build(&self.cache)
    }

    /// A directory with a registry for images, which tests alone take.
    pub(crate) fn registry(&self) -> Result<PathBuf> {
        registry::unpack(&self.cache)
    }
}

/// `cargo xtask setup`: everything, or all that is missing.
///
/// # Errors
/// Those of [`Setup::prepare`], and every part that is missing.
pub(crate) fn run() -> Result<()> {
    let setup = Setup::prepare(Purpose::Tests)?;
    let (registry, boringtun) = (setup.registry(), setup.boringtun());
    let missing: Vec<String> = [
        setup.tools.err(),
        setup.firecracker.err(),
        setup.emulated_host.err(),
        setup.guest_kernel.err(),
        setup.rootfs.err(),
        registry.err(),
        boringtun.err(),
    ]
    .into_iter()
    .flatten()
    .map(|failure| failure.to_string())
    .collect();
    if missing.is_empty() {
        say(format_args!(
            "everything is there, in {}",
            setup.cache.path("").display()
        ));
        return Ok(());
    }
    Err(Failure::new(missing.join("\nerror: ")))
}
