//! What QEMU is told, and what the kernel in it is told: pure.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use smartvm::{Error, ErrorKind, Result};

use crate::kernel::Kernel;
use crate::share::Share;

/// QEMU's program, from Debian's package `qemu-system-x86`.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

/// The virtio port of the agent.
const PORT: &str = "smartvm";

/// What QEMU's machine can have.
const CPUS: RangeInclusive<u32> = 1..=255;

/// With less the kernel doesn't come up.
const LEAST_MEMORY_MIB: u32 = 256;

/// The longest command line that an x86 kernel takes, in bytes.
const COMMAND_LINE_LIMIT: usize = 2047;

/// What 9p mounts have in common; 512000 is the largest message that virtio carries.
const MOUNT: &str = "trans=virtio,version=9p2000.L,msize=512000";

/// An emulated host.
#[derive(Debug)]
pub(crate) struct Qemu<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) shares: &'a [Share],
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
}

/// Descriptors that QEMU inherits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inherited {
    pub(crate) vmlinux: RawFd,
    pub(crate) initramfs: RawFd,
    /// A connected socket to the agent.
    pub(crate) port: RawFd,
}

impl Qemu<'_> {
    /// The argument vector, without the program.
    pub(crate) fn arguments(&self, inherited: Inherited) -> Result<Vec<OsString>> {
        if !CPUS.contains(&self.cpus) || self.memory_mib < LEAST_MEMORY_MIB {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "an emulated host has {} to {} processors and at least {LEAST_MEMORY_MIB} MiB \
                     of memory, not {} and {}",
                    CPUS.start(),
                    CPUS.end(),
                    self.cpus,
                    self.memory_mib
                ),
            ));
        }
        let mut arguments = Arguments::default();
        arguments.words(&["-nodefaults", "-no-user-config", "-no-reboot"]);
        arguments.words(&["-display", "none", "-nic", "none"]);
        arguments.words(&["-machine", "q35"]);
        // A processor that offers SVM; without nested paging, since QEMU's emulation of it (7.2)
        // raises page faults that are none, and a guest that meets one at the wrong moment resets.
        // The model is one that Firecracker has a CPU template for; such a one tells by leaf 0x8000001d
        // which processors share a cache.
        arguments.words(&[
            "-cpu",
            "max,npt=off,family=25,model=1,stepping=1,min-xlevel=0x8000001e",
        ]);
        // "multi" runs each processor on a thread of its own.
        arguments.words(&["-accel", "tcg,thread=multi,tb-size=1024"]);
        arguments.pair("-smp", self.cpus.to_string());
        arguments.pair("-m", format!("{}M", self.memory_mib));
        arguments.words(&["-chardev", "stdio,id=console,signal=off"]);
        arguments.words(&["-serial", "chardev:console"]);
        arguments.pair("-kernel", format!("/proc/self/fd/{}", inherited.vmlinux));
        arguments.pair("-initrd", format!("/proc/self/fd/{}", inherited.initramfs));
        arguments.pair("-append", self.command_line()?);
        arguments.share("root", Path::new("/"), true);
        arguments.share("modules", &self.kernel.tree, true);
        for (index, share) in self.shares.iter().enumerate() {
            arguments.share(&tag(index), &share.path, false);
        }
        arguments.words(&["-device", "virtio-serial-pci"]);
        arguments.pair("-chardev", format!("socket,id=port,fd={}", inherited.port));
        arguments.pair(
            "-device",
            format!("virtserialport,chardev=port,name={PORT}"),
        );
        Ok(arguments.0)
    }

    /// The kernel's command line, as the agent understands it.
    fn command_line(&self) -> Result<String> {
        let mut words: Vec<String> = [
            "console=ttyS0",
            "quiet",
            "loglevel=3",
            // A panic resets the machine, which ends QEMU.
            "panic=-1",
            "reboot=t",
            // Emulated processors are slow and know no side channels.
            "no_timer_check",
            "tsc=reliable",
            "mitigations=off",
            "root=root",
            "rootfstype=9p",
            "smartvm.overlay=tmpfs",
            "smartvm.init=agent",
            // Guests that come and go would have the kernel rewrite itself under TCG.
            "smartvm.kvm=held",
        ]
        .map(str::to_owned)
        .into();
        words.push(format!("smartvm.port={PORT}"));
        // Loose: nobody else changes it while we look.
        words.push(format!("rootflags={MOUNT},cache=loose"));
        let release = &self.kernel.release;
        words.push(format!(
            "smartvm.mount=modules,/lib/modules/{release},9p,ro,cache=loose,{MOUNT}"
        ));
        for (index, share) in self.shares.iter().enumerate() {
            // A share's path has no quotes and no commas.
            words.push(format!(
                "\"smartvm.mount={},{},9p,cache=mmap,{MOUNT}\"",
                tag(index),
                share.path.display()
            ));
        }
        let line = words.join(" ");
        if line.len() > COMMAND_LINE_LIMIT {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "{} writable directories are too many: together their paths are longer than \
                     the emulated host's kernel takes",
                    self.shares.len()
                ),
            ));
        }
        Ok(line)
    }
}

/// What a writable share is called on both sides.
fn tag(index: usize) -> String {
    format!("write{index}")
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn words(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(OsString::from));
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }

    /// A directory, as a 9p device. What QEMU may do to it is what its user may.
    fn share(&mut self, tag: &str, path: &Path, read_only: bool) {
        let mut value = OsString::from(format!("local,id={tag},security_model=none"));
        value.push(",multidevs=remap");
        if read_only {
            value.push(",readonly=on");
        }
        value.push(",path=");
        value.push(escaped(path));
        self.pair("-fsdev", value);
        self.pair(
            "-device",
            format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
        );
    }
}

/// A path as part of an option: a comma is written twice.
fn escaped(path: &Path) -> OsString {
    let mut bytes = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> Kernel {
        Kernel {
            image: "/k/boot/vmlinuz-6.1.0".into(),
            tree: "/k,1/lib/modules/6.1.0".into(),
            release: "6.1.0".into(),
            modules: Vec::new(),
        }
    }

    fn told(shares: &[Share]) -> Result<Vec<String>> {
        let kernel = kernel();
        let qemu = Qemu {
            kernel: &kernel,
            shares,
            cpus: 3,
            memory_mib: 512,
        };
        let inherited = Inherited {
            vmlinux: 6,
            initramfs: 7,
            port: 8,
        };
        let arguments = qemu.arguments(inherited)?;
        Ok(arguments
            .into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect())
    }

    fn share(path: &str) -> Share {
        Share { path: path.into() }
    }

    #[test]
    fn a_machine_that_cannot_be_is_refused() {
        let kernel = kernel();
        for (cpus, memory_mib) in [(0, 512), (256, 512), (1, 255)] {
            let qemu = Qemu {
                kernel: &kernel,
                shares: &[],
                cpus,
                memory_mib,
            };
            let inherited = Inherited {
                vmlinux: 6,
                initramfs: 7,
                port: 8,
            };
            let error = qemu.arguments(inherited).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{cpus} {memory_mib}");
        }
    }

    #[test]
    fn only_what_is_asked_for_is_writable() {
        let arguments = told(&[share("/srv/my work")]).unwrap();
        let devices: Vec<&String> = arguments
            .iter()
            .filter(|argument| argument.starts_with("local,"))
            .collect();
        assert_eq!(devices.len(), 3);
        assert!(devices[0].ends_with("readonly=on,path=/"));
        assert!(devices[1].ends_with("readonly=on,path=/k,,1/lib/modules/6.1.0"));
        assert!(devices[2].ends_with("multidevs=remap,path=/srv/my work"));
        let line = arguments
            .iter()
            .find(|argument| argument.contains("root=root"))
            .unwrap();
        assert!(line.contains("\"smartvm.mount=write0,/srv/my work,9p,"));
    }

    #[test]
    fn there_is_no_network_device_and_nothing_by_default() {
        let arguments = told(&[]).unwrap();
        assert!(arguments.contains(&"-nodefaults".to_owned()));
        assert!(!arguments.iter().any(|argument| argument.contains("net-")));
        let nic = arguments.iter().position(|argument| argument == "-nic");
        assert_eq!(arguments[nic.unwrap() + 1], "none");
    }

    #[test]
    fn a_command_line_that_the_kernel_would_cut_off_is_refused() {
        let long = "/very/long/path".repeat(10);
        let shares: Vec<Share> = (0..10).map(|n| share(&format!("{long}/{n}"))).collect();
        assert_eq!(told(&shares).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
