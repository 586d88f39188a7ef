use proptest::prelude::*;

use super::*;

#[track_caller]
fn refused(tar: &[u8], says: &str) {
    let bench = Bench::new();
    let error = bench.image_of(bench.tar(tar), "image").expect_err(says);
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains(says), "{error}, not {says}");
    // Neither an image nor the private directory stays.
    let left: Vec<_> = std::fs::read_dir(bench.dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn names_that_lead_out_are_refused() {
    for (path, says) in [
        ("../out", "its path contains `..`"),
        ("a/../../out", "its path contains `..`"),
        ("/etc/passwd", "its path is absolute"),
        ("a\nb", "a line break"),
    ] {
        refused(&Tar::default().file(path, 0o644, b"").end(), says);
        let mut tar = Tar::default();
        tar.pax(&[("path", path.as_bytes())]).file("x", 0o644, b"");
        refused(&tar.end(), says);
    }
}

#[test]
fn nothing_goes_through_a_symbolic_link() {
    let mut tar = Tar::default();
    tar.link(EntryType::Symlink, "out", "/tmp")
        .file("out/file", 0o644, b"");
    refused(&tar.end(), "out/file in ");
    refused(&tar.end(), "its path goes through a symbolic link");
    let mut tar = Tar::default();
    tar.file("file", 0o644, b"").file("file/below", 0o644, b"");
    refused(&tar.end(), "goes through something that isn't a directory");
}

#[test]
fn hard_links_stay_within_the_archive() {
    for (target, says) in [
        (
            "../../etc/shadow",
            "the target of the hard link: its path contains `..`",
        ),
        (
            "/etc/shadow",
            "the target of the hard link: its path is absolute",
        ),
        ("not/there", "to a file that isn't there before it"),
        ("dir", "to a directory"),
    ] {
        let mut tar = Tar::default();
        tar.directory("dir", 0o755)
            .link(EntryType::Link, "link", target);
        refused(&tar.end(), says);
    }
}

#[test]
fn sizes_that_lie_are_refused() {
    let mut huge = header(EntryType::Regular, 0o644, 0, 0);
    huge.set_size(u64::MAX / 2);
    refused(
        &Tar::default().add(huge, b"huge", b"little").end(),
        "more data than is taken",
    );
    let mut longer = header(EntryType::Regular, 0o644, 0, 0);
    longer.set_size(5000);
    let mut tar = Tar::default();
    let tar = tar.add(longer, b"longer", b"little").0.clone();
    let bench = Bench::new();
    let error = bench.image_of(bench.tar(&tar), "image").unwrap_err();
    assert!(
        error.to_string().contains("it ends within a file"),
        "{error}"
    );
    let mut extension = header(EntryType::XHeader, 0, 0, 0);
    extension.set_size(1 << 40);
    refused(
        &Tar::default().add(extension, b"pax", b"").end(),
        "larger than 1 MiB",
    );
}

#[test]
fn more_files_or_bytes_than_the_limits_are_refused() {
    let bench = Bench::new();
    let mut tar = Tar::default();
    tar.file("a", 0o644, &[1; 3000])
        .file("b", 0o644, &[2; 3000]);
    let tar = bench.tar(&tar.end());
    let within = |entries, bytes| {
        let _ = std::fs::remove_file(bench.path("image"));
        bench.image_with(
            &(&tar).into(),
            "image",
            &RootfsOptions::default(),
            Limits { entries, bytes },
        )
    };
    assert!(within(2, 7000).is_ok());
    assert!(
        within(1, 7000)
            .err()
            .unwrap()
            .to_string()
            .contains("more files")
    );
    assert!(
        within(2, 5999)
            .err()
            .unwrap()
            .to_string()
            .contains("more data")
    );
}

#[test]
fn a_truncated_or_changed_archive_is_told() {
    let mut tar = Tar::default();
    tar.file("a", 0o644, &[1; 3000]);
    let whole = tar.end();
    refused(&whole[..512 + 3072], "truncated");
    refused(&whole[..600], "ends within a file");
    refused(b"", "isn't a tar archive");
    refused(&[b'x'; 2000], "isn't a tar archive");
    let mut changed = Tar::default()
        .file("z", 0o644, b"")
        .file("b", 0o644, b"")
        .end();
    changed[512] ^= 1;
    refused(&changed, "checksum is wrong");
    let packed = crate::storage::decompress::tests::compress(
        crate::storage::decompress::Compression::Gzip,
        &whole,
    );
    refused(&packed[..packed.len() - 20], "damaged or truncated");
}

#[test]
fn what_an_image_can_not_hold_is_refused() {
    refused(
        &Tar::default().file("lost+found", 0o644, b"").end(),
        "has to be a directory",
    );
    refused(
        &Tar::default().file(".", 0o644, b"").end(),
        "the root can only be a directory",
    );
    let mut sparse = Tar::default();
    sparse
        .pax(&[("GNU.sparse.major", b"1")])
        .file("s", 0o644, b"");
    refused(&sparse.end(), "make the archive without --sparse");
    let mut owner = Tar::default();
    owner.pax(&[("uid", b"4294967296")]).file("s", 0o644, b"");
    refused(&owner.end(), "its uid is 4294967296");
    let mut device = Tar::default();
    refused(
        &device.device(EntryType::Char, "dev/x", 4096, 1).end(),
        "/dev/x in ",
    );
    let unknown = header(EntryType::new(b'Z'), 0o644, 0, 0);
    refused(
        &Tar::default().add(unknown, b"x", b"").end(),
        "unknown type 'Z'",
    );
    let mut full = Tar::default();
    full.directory("d", 0o755)
        .file("d/f", 0o644, b"")
        .file("d", 0o644, b"");
    refused(&full.end(), "a directory that isn't empty is there already");
}

#[test]
fn an_attribute_that_does_not_fit_fails_instead_of_being_lost() {
    let mut tar = Tar::default();
    tar.pax(&[("SCHILY.xattr.user.large", &[b'v'; 30_000])])
        .file("f", 0o644, b"");
    let bench = Bench::new();
    let error = bench.image_of_tar(&tar).err().unwrap();
    assert!(error.to_string().contains("ea_set"), "{error}");
    assert!(!bench.path("image").exists());
}

#[test]
fn an_existing_target_is_left_alone() {
    let bench = Bench::new();
    std::fs::write(bench.path("image"), "mine").unwrap();
    let error = bench.image_of_tar(&Tar::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::WrongState);
    assert_eq!(std::fs::read(bench.path("image")).unwrap(), b"mine");
}

#[test]
fn a_cancelled_image_leaves_nothing() {
    let bench = Bench::new();
    let tar = bench.tar(Tar::default().file("f", 0o644, b"x").end().as_slice());
    for after in 0..4 {
        let asked = std::cell::Cell::new(0);
        let cancelled = || {
            asked.set(asked.get() + 1);
            asked.get() > after
        };
        let mut progress = |_| {};
        let mut watch = Watch::new(&mut progress, &cancelled);
        let options = RootfsOptions::default();
        let error =
            build_rootfs(&(&tar).into(), &bench.path("image"), &options, &mut watch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert_eq!(std::fs::read_dir(bench.dir.path()).unwrap().count(), 1);
    }
}

/// An archive of all sorts of headers, changed here and there.
pub(super) fn changed(changes: Vec<(usize, u8)>, fix: bool) -> Vec<u8> {
    let mut tar = Tar::default();
    tar.pax(&[("path", b"p"), ("mtime", b"1.5")])
        .file("x", 0o644, b"data")
        .link(EntryType::Link, "h", "p");
    let mut bytes = tar.end();
    for (at, value) in changes {
        bytes[at] = value;
    }
    if fix {
        // A right checksum, so that what is behind it is reached.
        for at in [0, 1024, 2048] {
            let mut header = Header::new_old();
            header.as_mut_bytes().copy_from_slice(&bytes[at..at + 512]);
            header.set_cksum();
            bytes[at..at + 512].copy_from_slice(header.as_bytes());
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn changed_archives_never_panic(
        changes in proptest::collection::vec((0usize..3072, any::<u8>()), 1..8),
        fix in any::<bool>(),
    ) {
        let bench = Bench::new();
        let spool = spool::Spool::new(bench.path("data")).unwrap();
        let path = bench.tar(&changed(changes, fix));
        let (mut progress, never) = (|_| {}, || false);
        let mut watch = Watch::new(&mut progress, &never);
        let _ = archive::read(
            &path,
            std::fs::File::open(&path).unwrap(),
            &mut tree::Tree::new(),
            &spool,
            &mut Limits { entries: 100, bytes: 1 << 20 },
            &mut Notes::default(),
            &mut watch,
        );
    }
}
