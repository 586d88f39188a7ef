//! The programs that smartvm, its tests and this set-up run.

use super::{Purpose, debian};
use crate::failure::{Failure, Result};
use crate::program;

/// A program, and the Debian package that it is in.
struct Tool {
    program: &'static str,
    package: &'static str,
}

/// What the main job takes.
const FOR_THE_DEMO: [Tool; 4] = [
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
    },
    Tool {
        program: "busybox",
        package: "busybox-static",
    },
    Tool {
        program: "mke2fs",
        package: "e2fsprogs",
    },
    Tool {
        program: "depmod",
        package: "kmod",
    },
];

/// What the tests take beyond that.
const FOR_TESTS: [Tool; 12] = [
    Tool {
        program: "mksquashfs",
        package: "squashfs-tools",
    },
    Tool {
        program: "nft",
        package: "nftables",
    },
    Tool {
        program: "ip",
        package: "iproute2",
    },
    // What the benchmark compares with.
    Tool {
        program: "iptables",
        package: "iptables",
    },
    Tool {
        program: "sysctl",
        package: "procps",
    },
    Tool {
        program: "iperf3",
        package: "iperf3",
    },
    Tool {
        program: "dnsmasq",
        package: "dnsmasq-base",
    },
    Tool {
        program: "wg",
        package: "wireguard-tools",
    },
    Tool {
        program: "wireguard-go",
        package: "wireguard-go",
    },
    Tool {
        program: "umoci",
        package: "umoci",
    },
    Tool {
        program: "skopeo",
        package: "skopeo",
    },
    // A guest's root is made with it, and the units are checked by it.
    Tool {
        program: "systemd-analyze",
        package: "systemd",
    },
];

/// Where pip isn't there in any way.
const PIP: &str = "python3-pip";

/// Installs what is missing.
///
/// # Errors
/// If something is missing and can't be installed: then it says what, and how to get it.
pub(super) fn install(purpose: Purpose) -> Result<()> {
    let needed = match purpose {
        Purpose::Demo => [].iter(),
        Purpose::Tests => FOR_TESTS.iter(),
    };
    let needed = FOR_THE_DEMO.iter().chain(needed);
    if debian::is_here() {
        let mut missing = Vec::new();
        for tool in needed {
            if !debian::is_installed(tool.package)? {
                missing.push(tool.package);
            }
        }
        if pip().is_none() {
            missing.push(PIP);
        }
        return if missing.is_empty() {
            Ok(())
        } else {
            debian::install(&missing)
        };
    }
    let mut missing: Vec<String> = needed
        .filter(|tool| program::find(tool.program).is_none())
        .map(|tool| format!("{} (in Debian's package {})", tool.program, tool.package))
        .collect();
    if pip().is_none() {
        missing.push(format!("pip (in Debian's package {PIP})"));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "these programs are missing: {}",
        missing.join(", ")
    ))
    .hint("there is no apt-get here to install them with: please do so by other means"))
}

/// How pip is called here, if it is there.
pub(super) fn pip() -> Option<Vec<&'static str>> {
    let ways = [vec!["pip3"], vec!["pip"], vec!["python3", "-m", "pip"]];
    ways.into_iter().find(|way| {
        let Ok(mut command) = program::command(way[0]) else {
            return false;
        };
        program::output(command.args(&way[1..]).arg("--version")).is_ok()
    })
}
