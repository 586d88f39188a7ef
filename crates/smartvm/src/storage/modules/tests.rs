use std::fs;
use std::io::Write;

use super::*;

/// A module directory with the lists given; every module that `dep` names is a file that
/// holds its own name.
fn tree(lists: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("lib/modules/6.1.0-test");
    fs::create_dir_all(&dir).unwrap();
    for (name, text) in lists {
        fs::write(dir.join(name), text).unwrap();
    }
    (temp, dir)
}

fn names(resolved: &Resolved) -> Vec<&str> {
    resolved
        .files
        .iter()
        .map(|file| file.name.as_str())
        .collect()
}

const DEP: &str = "\
kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko kernel/fs/fscache/fscache.ko
kernel/net/9p/9pnet.ko:
kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko
kernel/fs/netfs/netfs.ko: kernel/fs/fscache/fscache.ko
kernel/fs/fscache/fscache.ko:
kernel/lib/libcrc32c.ko:
kernel/arch/x86/crypto/crc32c-intel.ko:
kernel/crypto/crc32c_generic.ko:
kernel/arch/x86/kvm/kvm-amd.ko: kernel/arch/x86/kvm/kvm.ko
kernel/arch/x86/kvm/kvm.ko:
";

#[test]
fn dependencies_come_before_what_needs_them_and_each_comes_once() {
    let (_temp, dir) = tree(&[("modules.dep", DEP)]);
    let tree = ModuleTree::open(&dir).unwrap();
    assert_eq!(tree.release(), "6.1.0-test");
    let resolved = tree.resolve(&["9p", "9pnet_virtio"]).unwrap();
    assert_eq!(
        names(&resolved),
        ["fscache", "netfs", "9pnet", "9p", "9pnet_virtio"]
    );
    assert_eq!(
        resolved.files[0].path,
        dir.canonicalize()
            .unwrap()
            .join("kernel/fs/fscache/fscache.ko")
    );
}

#[test]
fn hyphens_and_underscores_are_the_same() {
    let (_temp, dir) = tree(&[("modules.dep", DEP)]);
    let tree = ModuleTree::open(&dir).unwrap();
    let with_hyphen = tree.resolve(&["kvm-amd"]).unwrap();
    assert_eq!(names(&with_hyphen), ["kvm", "kvm_amd"]);
    assert_eq!(with_hyphen, tree.resolve(&["kvm_amd"]).unwrap());
}

#[test]
fn what_is_built_in_is_neither_a_file_nor_missing() {
    let (_temp, dir) = tree(&[
        ("modules.dep", DEP),
        ("modules.builtin", "kernel/fs/ext4/ext4.ko\n"),
    ]);
    let resolved = ModuleTree::open(&dir)
        .unwrap()
        .resolve(&["ext4", "no-such-module"])
        .unwrap();
    assert_eq!(resolved.files, []);
    assert_eq!(resolved.missing, ["no-such-module"]);
}

#[test]
fn soft_dependencies_are_found_through_aliases_and_come_first() {
    let (_temp, dir) = tree(&[
        ("modules.dep", DEP),
        (
            "modules.softdep",
            "# comment\nsoftdep libcrc32c pre: crc32c not-there post: kvm\n",
        ),
        (
            "modules.alias",
            "alias crc32c crc32c_intel\nalias crc32c crc32c_generic\nalias virtio:d*v* kvm\n",
        ),
    ]);
    let resolved = ModuleTree::open(&dir)
        .unwrap()
        .resolve(&["libcrc32c"])
        .unwrap();
    assert_eq!(
        names(&resolved),
        ["crc32c_generic", "crc32c_intel", "libcrc32c"]
    );
    assert_eq!(resolved.missing, [] as [&str; 0]);
}

#[test]
fn a_circle_of_dependencies_ends() {
    let (_temp, dir) = tree(&[("modules.dep", "a.ko: b.ko\nb.ko: a.ko\n")]);
    let resolved = ModuleTree::open(&dir).unwrap().resolve(&["a"]).unwrap();
    assert_eq!(names(&resolved), ["b", "a"]);
}

#[test]
fn without_depmods_lists_the_error_names_the_command() {
    let (temp, dir) = tree(&[]);
    let error = ModuleTree::open(&dir).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let root = temp.path().canonicalize().unwrap();
    assert_eq!(
        error.way_out().unwrap(),
        format!("run depmod -b {} 6.1.0-test (package kmod)", root.display())
    );
}

#[test]
fn a_list_that_leaves_the_tree_or_makes_no_sense_is_refused() {
    for line in [
        "../../etc/shadow.ko:",
        "no colon",
        "kernel/readme.txt:",
        "a b.ko:",
    ] {
        let (_temp, dir) = tree(&[("modules.dep", line)]);
        let error = ModuleTree::open(&dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{line}");
    }
}

#[test]
fn modules_are_read_through_every_compression() {
    let temp = tempfile::tempdir().unwrap();
    let content = b"a module".repeat(1000);
    let write = |name: &str, bytes: &[u8]| {
        let path = temp.path().join(name);
        fs::write(&path, bytes).unwrap();
        ModuleFile {
            name: "m".into(),
            path,
        }
    };
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&content).unwrap();
    let zst = ruzstd::encoding::compress_to_vec(
        content.as_slice(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    // The workspace can't write xz: these bytes came from `xz --check=crc32`.
    let xz = include_bytes!("m.ko.xz");
    for file in [
        write("m.ko", &content),
        write("m.ko.gz", &gz.finish().unwrap()),
        write("m.ko.zst", &zst),
        write("m.ko.xz", xz),
    ] {
        assert!(file.read().unwrap() == content, "{}", file.path.display());
    }
}

#[test]
fn a_damaged_or_huge_module_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let xz = include_bytes!("m.ko.xz");
    let broken = [&xz[..60], b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd\x04"];
    for (name, bytes) in ["m.ko.xz", "m.ko.gz", "m.ko.zst"].into_iter().zip(broken) {
        let path = temp.path().join(name);
        fs::write(&path, bytes).unwrap();
        let file = ModuleFile {
            name: "m".into(),
            path,
        };
        assert_eq!(
            file.read().unwrap_err().kind(),
            ErrorKind::Corrupt,
            "{name}"
        );
    }
    let path = temp.path().join("huge.ko");
    let huge = File::create(&path).unwrap();
    huge.set_len(MODULE_LIMIT + 1).unwrap();
    let file = ModuleFile {
        name: "huge".into(),
        path,
    };
    assert!(file.read().unwrap_err().to_string().contains("64 MiB"));
}
