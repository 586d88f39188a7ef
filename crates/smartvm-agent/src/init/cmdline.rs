//! The kernel's command line: the words that concern the guest's init.

use std::path::PathBuf;

use super::address::{self, Address};

/// What the command line asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cmdline {
    pub(crate) root: Option<Root>,
    /// The root's own init, by path in the new root (`init=`).
    pub(crate) init: Option<PathBuf>,
    /// `smartvm.init=agent`: the root's own init is not started.
    pub(crate) agent_is_init: bool,
    pub(crate) ip: Option<Address>,
    pub(crate) mounts: Vec<Mount>,
    /// `smartvm.port=NAME`: serve this virtio port instead of vsock.
    pub(crate) port: Option<String>,
    /// `smartvm.kvm=held`: a virtual machine is held from the start.
    pub(crate) holds_kvm: bool,
    /// Words that concern us and can't be understood, for the log.
    pub(crate) problems: Vec<String>,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) source: String,
    pub(crate) fstype: Option<String>,
    pub(crate) flags: String,
    pub(crate) writable: bool,
    /// `rootwait`: wait longer for the device.
    pub(crate) wait: bool,
    /// `smartvm.overlay=tmpfs`, or a device that holds what is written.
    pub(crate) overlay: Option<Overlay>,
}

/// Where what is written to the root goes, if not to the root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Overlay {
    Memory,
    /// A file system on a device, by its path.
    Device(String),
}

/// A mount inside the new root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) source: String,
    pub(crate) target: PathBuf,
    pub(crate) fstype: String,
    pub(crate) options: Vec<String>,
}

impl Cmdline {
    /// Reads the words of /proc/cmdline. As for the kernel, a later word wins, and those after
    /// `--` are the init's.
    pub(crate) fn parse(text: &str) -> Self {
        let mut this = Self::default();
        let mut root = Root {
            source: String::new(),
            fstype: None,
            flags: String::new(),
            // The kernel's own default.
            writable: false,
            wait: false,
            overlay: None,
        };
        for word in words(text) {
            if word == "--" {
                break;
            }
            let (name, value) = word.split_once('=').unwrap_or((&word, ""));
            match name {
                "root" => value.clone_into(&mut root.source),
                "rootfstype" => root.fstype = Some(value.to_owned()).filter(|v| !v.is_empty()),
                "rootflags" => value.clone_into(&mut root.flags),
                "ro" => root.writable = false,
                "rw" => root.writable = true,
                "rootwait" => root.wait = true,
                "init" => this.init = Some(value.into()),
                "ip" => match address::parse(value) {
                    Ok(address) => this.ip = address,
                    Err(problem) => this.problems.push(format!("{word:?}: {problem}")),
                },
                "smartvm.init" if value == "agent" => this.agent_is_init = true,
                "smartvm.overlay" if value == "tmpfs" => root.overlay = Some(Overlay::Memory),
                "smartvm.overlay" if value.starts_with("/dev/") => {
                    root.overlay = Some(Overlay::Device(value.to_owned()));
                }
                "smartvm.port" if !value.is_empty() => this.port = Some(value.to_owned()),
                "smartvm.kvm" if value == "held" => this.holds_kvm = true,
                "smartvm.mount" => match Mount::parse(value) {
                    Some(mount) => this.mounts.push(mount),
                    None => this.problems.push(format!(
                        "{word:?}: not SOURCE,TARGET,FSTYPE[,OPTION...] with an absolute target"
                    )),
                },
                _ if name.starts_with("smartvm.") => {
                    this.problems.push(format!("{word:?}: not understood"));
                }
                _ => {}
            }
        }
        if !root.source.is_empty() {
            this.root = Some(root);
        }
        this
    }
}

impl Mount {
    fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(',');
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let (source, target, fstype) = (next()?, next()?, next()?);
        target.starts_with('/').then(|| Self {
            source: source.to_owned(),
            target: target.into(),
            fstype: fstype.to_owned(),
            options: parts
                .filter(|option| !option.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    }
}

/// The parameters for module `name` among the words: `name.parameter=value`. The kernel applies
/// them to what is built in only. As there, `-` and `_` are the same in names.
pub(crate) fn module_parameters(text: &str, name: &str) -> String {
    let same = |letter: char| if letter == '-' { '_' } else { letter };
    let parameters: Vec<String> = words(text)
        .into_iter()
        .take_while(|word| word != "--")
        .filter_map(|word| {
            let (module, parameter) = word.split_once('.')?;
            module
                .chars()
                .map(same)
                .eq(name.chars().map(same))
                .then(|| match parameter.split_once('=') {
                    Some((key, value)) if value.contains(char::is_whitespace) => {
                        format!("{key}=\"{value}\"")
                    }
                    _ => parameter.to_owned(),
                })
        })
        .collect();
    parameters.join(" ")
}

/// Splits as the kernel does: at white space outside of double quotes. The quotes go.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            letter if letter.is_ascii_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            letter => word.push(letter),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_firecracker_and_ours_are_understood() {
        let cmdline = Cmdline::parse(
            "console=ttyS0 reboot=k panic=1 pci=off root=PARTUUID=0a-01 rw rootwait \
             rootfstype=ext4 rootflags=noatime,data=ordered init=/lib/systemd/systemd \
             smartvm.overlay=tmpfs smartvm.init=agent smartvm.port=org.smartvm.agent \
             smartvm.mount=work,/srv/work,9p,trans=virtio,ro smartvm.mount=t,/scratch,tmpfs \
             smartvm.kvm=held\n",
        );
        let root = cmdline.root.expect("a root");
        assert_eq!(root.source, "PARTUUID=0a-01");
        assert_eq!(root.fstype.as_deref(), Some("ext4"));
        assert_eq!(root.flags, "noatime,data=ordered");
        assert!(root.writable && root.wait);
        assert_eq!(root.overlay, Some(Overlay::Memory));
        let on_drive = Cmdline::parse("root=/dev/vda smartvm.overlay=/dev/vdb");
        let overlay = on_drive.root.expect("a root").overlay;
        assert_eq!(overlay, Some(Overlay::Device("/dev/vdb".to_owned())));
        assert_eq!(cmdline.init, Some("/lib/systemd/systemd".into()));
        assert!(cmdline.agent_is_init && cmdline.holds_kvm);
        assert_eq!(cmdline.port.as_deref(), Some("org.smartvm.agent"));
        let work = Mount {
            source: "work".to_owned(),
            target: "/srv/work".into(),
            fstype: "9p".to_owned(),
            options: vec!["trans=virtio".to_owned(), "ro".to_owned()],
        };
        assert_eq!(cmdline.mounts[0], work);
        assert_eq!(cmdline.mounts[1].options, Vec::<String>::new());
        assert_eq!(cmdline.problems, Vec::<String>::new());
    }

    #[test]
    fn a_later_word_wins_and_those_for_init_are_left_alone() {
        let cmdline = Cmdline::parse("rw root=/dev/vda root=/dev/vdb ro -- root=/dev/vdc rw");
        let root = cmdline.root.expect("a root");
        assert_eq!(root.source, "/dev/vdb");
        assert!(!root.writable);
    }

    #[test]
    fn quotes_keep_white_space_together() {
        assert_eq!(
            words(" a  \"b c\" d=\"e f\"\tg\n"),
            ["a", "b c", "d=e f", "g"]
        );
        assert_eq!(words("open=\"to the end"), ["open=to the end"]);
    }

    #[test]
    fn a_module_gets_its_own_parameters_only() {
        let text = "kvm-amd.nested=1 kvm.x=2 kvm_amd.npt=0 a.b=\"c d\" rw -- kvm_amd.late=1";
        assert_eq!(module_parameters(text, "kvm-amd"), "nested=1 npt=0");
        assert_eq!(module_parameters(text, "a"), "b=\"c d\"");
        assert_eq!(module_parameters(text, "rw"), "");
    }

    #[test]
    fn without_root_the_agent_stays_where_it_is() {
        assert_eq!(Cmdline::parse("quiet root="), Cmdline::default());
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for word in [
            "smartvm.mount=a,b,c",
            "smartvm.mount=a,/b",
            "smartvm.mount=",
            "smartvm.init=other",
            "smartvm.overlay=disk",
            "smartvm.port=",
            "smartvm.new=1",
            "ip=300.1.1.1::::",
        ] {
            let cmdline = Cmdline::parse(word);
            assert_eq!(cmdline.problems.len(), 1, "{word}");
            assert!(cmdline.mounts.is_empty(), "{word}");
        }
    }
}
