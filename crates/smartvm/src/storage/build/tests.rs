use super::*;
use crate::storage::decompress::Compression;
use crate::storage::kernel::tests::{bzimage, elf, packed};

const RELEASE: &str = "6.1.0-test";

/// What a bundle is made of, in a directory of its own.
struct Inputs(tempfile::TempDir);

impl Inputs {
    fn new() -> Self {
        let inputs = Self(tempfile::tempdir().unwrap());
        let mut kernel = elf(62);
        kernel.extend(b"%s Linux version %s (x)\0Linux version 6.1.0-test (gcc)");
        let image = bzimage(&packed(Compression::Zstd, &kernel), 5);
        std::fs::write(inputs.path("vmlinuz"), image).unwrap();
        std::fs::write(inputs.path("agent"), elf(62)).unwrap();
        let modules = inputs.path(RELEASE);
        std::fs::create_dir_all(modules.join("kernel")).unwrap();
        let mut index = String::new();
        for name in GUEST_MODULES.iter().filter(|name| **name != "overlay") {
            let needs = if *name == "virtio_blk" {
                "kernel/ring.ko"
            } else {
                ""
            };
            index += &format!("kernel/{name}.ko: {needs}\n");
            std::fs::write(modules.join(format!("kernel/{name}.ko")), elf(62)).unwrap();
        }
        index += "kernel/ring.ko:\n";
        std::fs::write(modules.join("kernel/ring.ko"), elf(62)).unwrap();
        std::fs::write(modules.join("modules.dep"), index).unwrap();
        let root = inputs.path("root/etc");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("hostname"), "guest\n").unwrap();
        inputs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn options(&self, output: &str) -> BuildOptions {
        BuildOptions::builder()
            .kernel(self.path("vmlinuz"))
            .modules(self.path(RELEASE))
            .rootfs(self.path("root"))
            .agent(self.path("agent"))
            .output(self.path(output))
            .bundle_id("test")
            .size(RootfsOptions::builder().free_bytes(1 << 20).build())
            .build()
    }

    /// Names in the directory of all inputs, where the output goes too.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn made(options: &BuildOptions) -> Result<(Bundle, Vec<Progress>)> {
    let mut told = Vec::new();
    let mut progress = |progress| told.push(progress);
    let bundle = build(options, &mut Watch::new(&mut progress, &|| false))?;
    Ok((bundle, told))
}

fn verify(bundle: &Bundle) -> Result<Vec<&'static str>> {
    bundle.verify(&mut Watch::new(&mut |_| {}, &|| false))
}

#[test]
fn a_bundle_is_built_whole_and_verifies() {
    let inputs = Inputs::new();
    let (bundle, told) = made(&inputs.options("out")).unwrap();
    assert_eq!(verify(&bundle).unwrap(), [""; 0]);
    let mut names: Vec<_> = std::fs::read_dir(inputs.path("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["initramfs.cpio", "manifest.json", "rootfs.ext4", "vmlinux"]
    );
    assert!(
        std::fs::read(&bundle.kernel().path)
            .unwrap()
            .starts_with(&elf(62))
    );
    let initramfs = std::fs::read(&bundle.initrd().unwrap().path).unwrap();
    let holds = |text: &[u8]| initramfs.windows(text.len()).any(|window| window == text);
    assert!(
        holds(b"/modules/ring.ko\n/modules/virtio_blk.ko\n"),
        "dependencies first"
    );
    // Only what this kernel lacks and a guest may miss is told.
    let notes: Vec<_> = told
        .iter()
        .filter(|progress| matches!(progress, Progress::Note(_)))
        .collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(matches!(notes[0], Progress::Note(note) if note.contains("has no overlay")));
    assert!(!bundle.boot_args().contains("nomodule"));
}

#[test]
fn nobody_else_may_look_into_what_is_in_the_making_or_made() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let inputs = Inputs::new();
    let mut seen = 0;
    let mut progress = |_| {
        for entry in std::fs::read_dir(inputs.0.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains("/.smartvm-bundle-") {
                assert_eq!(mode(&path), 0o700);
                seen += 1;
            }
        }
    };
    build(
        &inputs.options("out"),
        &mut Watch::new(&mut progress, &|| false),
    )
    .unwrap();
    assert!(seen > 0);
    assert_eq!(mode(&inputs.path("out")), 0o700);
}

#[test]
fn the_same_input_makes_the_same_bytes() {
    let inputs = Inputs::new();
    let (one, _) = made(&inputs.options("one")).unwrap();
    let (two, _) = made(&inputs.options("two")).unwrap();
    assert_eq!(one.manifest(), two.manifest(), "the checksums too");
    let bytes = |name: &str| std::fs::read(inputs.path(name)).unwrap();
    assert_eq!(bytes("one/manifest.json"), bytes("two/manifest.json"));
}

#[test]
fn a_bundle_is_named_after_its_directory_unless_told() {
    let inputs = Inputs::new();
    let mut options = inputs.options("debian-12");
    options.bundle_id = None;
    options.name = Some("Debian".into());
    options.read_only = true;
    let (bundle, _) = made(&options).unwrap();
    assert_eq!(bundle.bundle_id(), "debian-12");
    assert_eq!(bundle.manifest().name.as_deref(), Some("Debian"));
    assert!(bundle.is_read_only());
    options.bundle_id = Some("a b".into());
    options.replace = true;
    assert_eq!(made(&options).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn what_is_in_the_output_is_not_lost() {
    let inputs = Inputs::new();
    let mut options = inputs.options("out");
    std::fs::create_dir(inputs.path("out")).unwrap();
    made(&options).unwrap();
    let refused = |options: &BuildOptions, says: &str| {
        let before = inputs.names();
        let error = made(options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongState);
        assert!(error.to_string().contains(says), "{error}, not {says}");
        assert_eq!(inputs.names(), before);
    };
    refused(&options, "is a bundle already");
    options.replace = true;
    std::fs::write(inputs.path("out/notes.txt"), "mine").unwrap();
    refused(&options, "holds notes.txt besides the bundle");
    std::fs::remove_file(inputs.path("out/notes.txt")).unwrap();
    options.bundle_id = Some("second".into());
    assert_eq!(made(&options).unwrap().0.bundle_id(), "second");

    std::fs::write(inputs.path("out/manifest.json"), "{}").unwrap();
    refused(&options, "isn't a bundle that could be replaced");
    options.output = inputs.path("agent");
    refused(&options, "isn't a directory");
}

#[test]
fn a_failure_leaves_nothing_and_says_what_is_wrong() {
    let inputs = Inputs::new();
    let text = inputs.path("text");
    std::fs::write(&text, "text").unwrap();
    let other = inputs.path("6.1.0-other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("modules.dep"), "").unwrap();
    let arm = inputs.path("arm");
    std::fs::write(&arm, elf(183)).unwrap();
    let before = inputs.names();
    type Spoil<'a> = &'a dyn Fn(&mut BuildOptions);
    let cases: [(Spoil<'_>, ErrorKind, &str); 8] = [
        (
            &|o| o.kernel = PathBuf::from("/no/kernel").into(),
            ErrorKind::NotFound,
            "/no/kernel",
        ),
        (
            &|o| o.kernel = text.clone().into(),
            ErrorKind::Invalid,
            "isn't a kernel image",
        ),
        (
            &|o| o.modules = Some(other.clone()),
            ErrorKind::Invalid,
            "is 6.1.0-test, the modules in",
        ),
        (
            &|o| o.extra_modules = vec!["zfs".into()],
            ErrorKind::NotFound,
            "has no module zfs",
        ),
        (
            &|o| o.agent = arm.clone(),
            ErrorKind::Invalid,
            "is for x86_64, the guest agent",
        ),
        (
            &|o| o.agent = text.clone(),
            ErrorKind::Invalid,
            "guest agent can't be used",
        ),
        (
            &|o| o.rootfs = text.clone().into(),
            ErrorKind::Invalid,
            "isn't a tar archive",
        ),
        (
            &|o| o.boot_args = Some("x".repeat(3000)),
            ErrorKind::Invalid,
            "bootArgs",
        ),
    ];
    for (change, kind, says) in cases {
        let mut options = inputs.options("out");
        change(&mut options);
        let error = made(&options).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}, not {says}");
        assert_eq!(inputs.names(), before);
    }
}

#[test]
fn a_kernel_without_modules_needs_no_directory_of_them() {
    let inputs = Inputs::new();
    let mut options = inputs.options("out");
    options.modules = None;
    made(&options).unwrap();
    options.extra_modules = vec!["dummy".into()];
    options.output = inputs.path("two");
    assert_eq!(made(&options).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_cancelled_build_leaves_nothing() {
    let inputs = Inputs::new();
    let before = inputs.names();
    for after in [0, 1, 3, 5] {
        let asked = std::cell::Cell::new(0);
        let cancelled = || {
            asked.set(asked.get() + 1);
            asked.get() > after
        };
        let error = build(
            &inputs.options("out"),
            &mut Watch::new(&mut |_| {}, &cancelled),
        );
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(inputs.names(), before);
    }
}

#[test]
fn the_release_is_read_from_the_banner_only() {
    assert_eq!(
        modules::release_of(b"Linux version %s x Linux version 6.1.2 ("),
        Some("6.1.2".into())
    );
    assert_eq!(modules::release_of(b"Linux version 6.1.2"), None);
    assert_eq!(modules::release_of(b""), None);
}
