//! The emulated host's kernel: where it is, and the modules that it begins with.

use std::path::{Path, PathBuf};

use smartvm::storage::modules::{ModuleFile, ModuleTree};
use smartvm::{Error, ErrorKind, Result};

/// What the emulated host can't do without: its devices, its root file system, and what it
/// is there for.
const NEEDED: [&str; 6] = [
    "virtio_pci",
    "virtio_console",
    "9p",
    "9pnet_virtio",
    "overlay",
    "kvm-amd",
];

/// What is there from the start: `tun` and `loop` because their device nodes come with them,
/// the others because all of them together load in a second, where the kernel's own loading
/// at first use takes half a second for each. That is how all other modules get there.
const USUAL: [&str; 16] = [
    "tun",
    "loop",
    "bridge",
    "veth",
    "dummy",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_inet",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_nat",
    "nft_reject_inet",
    "nft_reject_bridge",
    "nf_conntrack_bridge",
];

const HOW: &str = "run `cargo xtask setup` in the smartvm workspace, which fetches one without \
     installing it, or: apt-get install --no-install-recommends linux-image-amd64";

/// A kernel that can be an emulated host's.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// The image, as the distribution installs it.
    pub(crate) image: PathBuf,
    /// All its modules: `.../lib/modules/RELEASE`.
    pub(crate) tree: PathBuf,
    pub(crate) release: String,
    /// The modules to begin with, in load order.
    pub(crate) modules: Vec<ModuleFile>,
}

impl Kernel {
    /// Takes the newest fitting kernel from the first place that has one; from `explicit`
    /// alone where that is given.
    pub(crate) fn find(explicit: Option<&Path>) -> Result<Self> {
        let places = match explicit {
            Some(place) => vec![place.to_owned()],
            None => places(|name| std::env::var_os(name).map(PathBuf::from)),
        };
        let mut unfit = None;
        for place in &places {
            for release in releases(place) {
                match Self::open(place, &release) {
                    Ok(kernel) => return Ok(kernel),
                    Err(error) => unfit = unfit.or(Some(error)),
                }
            }
        }
        let looked: Vec<String> = places
            .iter()
            .map(|place| place.join("boot").display().to_string())
            .collect();
        let error = Error::new(
            ErrorKind::Host,
            format!(
                "finding a kernel for the emulated host: none that fits in {}",
                looked.join(", ")
            ),
        )
        .hint(HOW);
        Err(match unfit {
            Some(cause) => error.because(cause),
            None => error,
        })
    }

    /// Whether files on 9p with `cache=mmap` may still be in the emulated host's memory when
    /// the program that wrote them has closed them and ended: so from 6.4 on.
    pub(crate) fn holds_writes_back(&self) -> bool {
        let numbers = numbers(&self.release);
        numbers.is_empty() || numbers.as_slice() >= [6, 4].as_slice()
    }

    fn open(place: &Path, release: &str) -> Result<Self> {
        let image = place.join("boot").join(format!("vmlinuz-{release}"));
        // Some distributions let only root read it.
        std::fs::File::open(&image)
            .map_err(|cause| Error::io("opening the kernel", &image, cause))?;
        let tree = place.join("lib/modules").join(release);
        let modules = ModuleTree::open(&tree)?;
        let wanted: Vec<&str> = NEEDED.into_iter().chain(USUAL).collect();
        let mut resolved = modules.resolve(&wanted)?;
        resolved
            .missing
            .retain(|name| NEEDED.contains(&name.as_str()));
        if !resolved.missing.is_empty() {
            return Err(Error::new(
                ErrorKind::Host,
                format!(
                    "kernel {release} has no {}: kernels made for clouds leave them out",
                    resolved.missing.join(", ")
                ),
            )
            .at(image));
        }
        Ok(Self {
            image,
            tree,
            release: release.to_owned(),
            modules: resolved.files,
        })
    }
}

/// Where kernels are looked for, as the environment has it: `cargo xtask setup` puts one where
/// this looks first.
fn places(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let set = |name| variable(name).filter(|path| !path.as_os_str().is_empty());
    let cache = set("SMARTVM_DEV_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("smartvm-dev")))
        .or_else(|| Some(set("HOME")?.join(".cache/smartvm-dev")));
    cache
        .map(|cache| cache.join("kernel/host"))
        .into_iter()
        .chain([PathBuf::from("/")])
        .collect()
}

/// The releases of the kernels in a place, the newest first.
fn releases(place: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(place.join("boot")) else {
        return Vec::new();
    };
    let mut releases: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()))
        .collect();
    releases.sort_by_cached_key(|release| std::cmp::Reverse(numbers(release)));
    releases
}

/// The numbers in a release, to compare 6.10 and 6.9 by.
fn numbers(release: &str) -> Vec<u64> {
    release
        .split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A place with kernels that have the modules given.
    fn place(kernels: &[(&str, &[&str])]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("boot")).unwrap();
        for (release, modules) in kernels {
            fs::write(temp.path().join(format!("boot/vmlinuz-{release}")), "").unwrap();
            let tree = temp.path().join("lib/modules").join(release);
            fs::create_dir_all(&tree).unwrap();
            let list: String = modules.iter().map(|m| format!("k/{m}.ko:\n")).collect();
            fs::write(tree.join("modules.dep"), list).unwrap();
        }
        temp
    }

    #[test]
    fn the_newest_kernel_that_has_what_it_takes_is_used() {
        let place = place(&[
            ("6.9.1-amd64", &NEEDED),
            ("6.10.2-amd64", &NEEDED),
            ("6.11.0-cloud-amd64", &NEEDED[..2]),
        ]);
        let kernel = Kernel::find(Some(place.path())).unwrap();
        assert_eq!(kernel.release, "6.10.2-amd64");
        assert_eq!(kernel.modules.len(), NEEDED.len());
        assert!(kernel.image.ends_with("boot/vmlinuz-6.10.2-amd64"));
    }

    #[test]
    fn without_a_fitting_kernel_the_way_out_is_a_command() {
        let cloud = place(&[("6.1.0-cloud-amd64", &NEEDED[..2])]);
        let error = Kernel::find(Some(cloud.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Host);
        assert!(error.to_string().contains("9p"), "{error}");
        let none = Kernel::find(Some(place(&[]).path())).unwrap_err();
        assert!(none.way_out().unwrap().contains("apt-get install"));
    }

    #[test]
    fn the_cache_of_cargo_xtask_comes_before_the_system() {
        let all = |name: &str| Some(PathBuf::from(format!("/{name}")));
        assert_eq!(
            places(all),
            ["/SMARTVM_DEV_CACHE/kernel/host", "/"].map(PathBuf::from)
        );
        let home = |name: &str| Some(PathBuf::from(if name == "HOME" { "/h" } else { "" }));
        assert_eq!(
            places(home),
            ["/h/.cache/smartvm-dev/kernel/host", "/"].map(PathBuf::from)
        );
    }

    #[test]
    fn kernels_that_write_through_are_told_from_those_that_hold_back() {
        for (release, holds_back) in [
            ("6.1.0-56-amd64", false),
            ("6.3.13", false),
            ("6.4.0-1-amd64", true),
            ("6.12.9+deb13-amd64", true),
            ("7.0.1", true),
            ("unknown", true),
        ] {
            let kernel = Kernel {
                image: PathBuf::new(),
                tree: PathBuf::new(),
                release: release.into(),
                modules: Vec::new(),
            };
            assert_eq!(kernel.holds_writes_back(), holds_back, "{release}");
        }
    }
}
