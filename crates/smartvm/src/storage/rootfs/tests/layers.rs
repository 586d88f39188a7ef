//! Layers of OCI images, laid over one another.

use proptest::prelude::*;

use super::hostile::changed;
use super::squash::{made, unsquashfs};
use super::*;
use crate::storage::checksum::sha256_of;
use crate::storage::decompress::Compression;
use crate::storage::decompress::tests::compress;

/// The layers, in files.
fn source(bench: &Bench, tars: &[&Tar]) -> RootSource {
    let layers = tars.iter().enumerate().map(|(number, tar)| {
        let bytes = tar.end();
        let path = bench.path(&format!("layer-{number}"));
        std::fs::write(&path, &bytes).unwrap();
        LayerFile::whole(path, bytes.len() as u64, sha256_of(&bytes))
    });
    RootSource::Layers(layers.collect())
}

/// The image, and the directory that it is in.
fn layers(tars: &[&Tar]) -> Result<(Image, Bench)> {
    let bench = Bench::new();
    let source = source(&bench, tars);
    let image = bench.image_with(
        &source,
        "image",
        &RootfsOptions::default(),
        Limits::default(),
    )?;
    Ok((image, bench))
}

fn names(image: &Image, path: &str) -> Vec<String> {
    let names = image.names(path).into_iter();
    names.map(|name| String::from_utf8(name).unwrap()).collect()
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_of_their_own_layer() {
    let mut below = Tar::default();
    below
        .directory("etc", 0o755)
        .file("etc/gone", 0o644, b"1")
        .file("etc/kept", 0o644, b"2")
        .directory("opt/tree/deep", 0o755)
        .file("opt/tree/deep/file", 0o644, b"3")
        .file("opt/other", 0o644, b"4")
        .file("var/replaced", 0o644, b"old");
    let mut above = Tar::default();
    above
        .file("etc/.wh.gone", 0o644, b"")
        .file("etc/.wh.never-was", 0o644, b"")
        .file("opt/new", 0o644, b"5")
        .file("opt/.wh..wh..opq", 0o644, b"")
        .file("var/replaced", 0o600, b"new")
        .file("var/.wh.replaced", 0o644, b"")
        .file(".wh..wh.plnk", 0o644, b"");
    let (image, _bench) = layers(&[&below, &above]).unwrap();
    assert_eq!(names(&image, "/"), ["etc", "opt", "var"]);
    assert_eq!(names(&image, "/etc"), ["kept"]);
    assert_eq!(names(&image, "/opt"), ["new"]);
    assert_eq!(image.cat("/var/replaced"), b"new");
    assert!(image.is_sound());
}

#[test]
fn a_file_takes_the_place_of_a_tree_and_a_directory_that_of_a_file() {
    let mut below = Tar::default();
    below
        .file("a/b/c", 0o644, b"1")
        .file("plain", 0o644, b"2")
        .directory("same", 0o700)
        .file("same/stays", 0o644, b"3");
    let mut above = Tar::default();
    above
        .file("a", 0o644, b"now a file")
        .file("plain/inside", 0o644, b"4");
    let refused = layers(&[&below, &above]).unwrap_err();
    assert!(refused.to_string().contains("plain/inside"), "{refused}");
    let mut above = Tar::default();
    above
        .file("a", 0o644, b"now a file")
        .directory("plain", 0o755)
        .file("plain/inside", 0o644, b"4")
        .directory("same", 0o711);
    let (image, _bench) = layers(&[&below, &above]).unwrap();
    assert_eq!(image.cat("/a"), b"now a file");
    assert_eq!(names(&image, "/plain"), ["inside"]);
    assert_eq!(names(&image, "/same"), ["stays"]);
    assert!(image.stat("/same").contains("Mode:  0711"));
    assert!(image.is_sound());
}

#[test]
fn paths_through_links_of_lower_layers_stay_within_the_image() {
    let mut below = Tar::default();
    below
        .directory("usr/lib", 0o755)
        .link(EntryType::Symlink, "lib", "usr/lib")
        .link(EntryType::Symlink, "out", "../../../../etc")
        .link(EntryType::Symlink, "loop", "loop/x");
    let mut above = Tar::default();
    above
        .file("lib/new.so", 0o644, b"so")
        .file("out/passwd", 0o644, b"inside")
        .link(EntryType::Link, "lib/twin.so", "lib/new.so");
    let (image, _bench) = layers(&[&below, &above]).unwrap();
    assert_eq!(names(&image, "/usr/lib"), ["new.so", "twin.so"]);
    assert_eq!(names(&image, "/etc"), ["passwd"]);
    assert!(image.stat("/lib").contains("symlink"));
    assert!(image.stat("/usr/lib/new.so").contains("Links: 2"));
    assert!(image.is_sound());

    let mut looping = Tar::default();
    looping.file("loop/x/y", 0o644, b"");
    let refused = layers(&[&below, &looping]).unwrap_err();
    assert!(refused.to_string().contains("loop"), "{refused}");
    let mut climbing = Tar::default();
    climbing.file("a/../../b", 0o644, b"");
    let refused = layers(&[&climbing]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
}

#[test]
fn what_is_small_only_while_it_is_compressed_is_refused_at_the_limit() {
    let bench = Bench::new();
    let (mut in_a_file, mut many) = (Tar::default(), Tar::default());
    in_a_file.file("bomb", 0o644, &vec![0; 8 << 20]);
    many.file("a", 0o644, &[1; 2 << 20])
        .file("b", 0o644, &[2; 2 << 20]);
    let mut behind = Tar::default();
    behind.file("small", 0o644, b"1");
    let mut behind = behind.end();
    behind.resize(8 << 20, 0);
    for (name, bytes) in [
        ("in a file", in_a_file.end()),
        ("in two files", many.end()),
        ("behind the end", behind),
    ] {
        let packed = compress(Compression::Gzip, &bytes);
        assert!(packed.len() < 100_000);
        let path = bench.path("layer");
        std::fs::write(&path, &packed).unwrap();
        let sum = crate::storage::checksum::sha256_of(&bytes);
        let layer = LayerFile::whole(path, packed.len() as u64, sum);
        let limits = Limits {
            entries: 100,
            bytes: 3 << 20,
        };
        let source = RootSource::Layers(vec![layer]);
        let options = RootfsOptions::default();
        let refused = bench
            .image_with(&source, "image", &options, limits)
            .unwrap_err();
        assert!(
            refused.to_string().contains("more data"),
            "{name}: {refused}"
        );
        assert!(!bench.path("image").exists());
    }
}

#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused() {
    let bench = Bench::new();
    let mut tar = Tar::default();
    tar.file("a", 0o644, b"1");
    let path = bench.path("layer");
    let bytes = tar.end();
    std::fs::write(&path, &bytes).unwrap();
    let wrong = LayerFile::whole(&path, bytes.len() as u64, sha256_of(b"another"));
    let source = RootSource::Layers(vec![wrong]);
    let refused = bench
        .image_with(
            &source,
            "image",
            &RootfsOptions::default(),
            Limits::default(),
        )
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert!(!bench.path("image").exists());
}

#[test]
fn layers_make_a_squashfs_too() {
    let bench = Bench::new();
    let (mut lower, mut upper) = (Tar::default(), Tar::default());
    lower.file("gone", 0o644, b"1").file("stays", 0o644, b"2");
    upper.file(".wh.gone", 0o644, b"");
    let image = made(&bench, &source(&bench, &[&lower, &upper]), "layers").unwrap();
    let names = unsquashfs(&["-l"], &image);
    assert!(
        names.contains("/stays") && !names.contains("gone"),
        "{names}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn changed_layers_never_panic(
        changes in proptest::collection::vec((0usize..3072, any::<u8>()), 1..8),
        fix in any::<bool>(),
    ) {
        let bench = Bench::new();
        let spool = spool::Spool::new(bench.path("data")).unwrap();
        let bytes = changed(changes, fix);
        let path = bench.tar(&bytes);
        let (mut progress, never) = (|_| {}, || false);
        let mut watch = Watch::new(&mut progress, &never);
        let _ = layer::read(
            &path,
            bytes.as_slice(),
            &mut tree::Tree::new(),
            &spool,
            &mut Limits { entries: 100, bytes: 1 << 20 },
            &mut Notes::default(),
            &mut watch,
        );
    }
}
