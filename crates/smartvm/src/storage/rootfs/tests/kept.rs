use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;
use crate::storage::decompress::Compression;
use crate::storage::decompress::tests::compress;

/// The words that `stat` tells of a file must contain each of these.
#[track_caller]
fn told(image: &Image, path: &str, words: &[&str]) {
    let stat = image.stat(path);
    let flat = stat.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(flat.contains(word), "{path}: no {word:?} in\n{stat}");
    }
}

fn sample() -> Tar {
    let mut tar = Tar::default();
    tar.directory("./", 0o751)
        .directory("./bin/", 0o755)
        .add(
            header(EntryType::Regular, 0o4755, 0, 0),
            b"./bin/su",
            b"setuid",
        )
        .add(
            header(EntryType::Regular, 0o2640, 1000, 42),
            b"./bin/mail",
            &[7; 9000],
        )
        .add(header(EntryType::Directory, 0o1777, 3, 4), b"./tmp", b"")
        .link(EntryType::Symlink, "./short", "bin/su")
        .link(EntryType::Symlink, "./long", &"x/".repeat(45))
        .link(EntryType::Link, "./zz/again", "./bin/su")
        .device(EntryType::Char, "./dev/null", 1, 3)
        .device(EntryType::Block, "./dev/vdz", 259, 7000)
        .add(header(EntryType::Fifo, 0o600, 5, 5), b"./pipe", b"")
        .pax(&[
            ("mtime", b"1500000000.123456789"),
            ("uid", b"200000"),
            ("gid", b"300000"),
            ("SCHILY.xattr.user.note", b"with \"quotes\"\nand a\0zero"),
            (
                "SCHILY.xattr.security.capability",
                b"\x01\0\0\x02\0\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ),
            ("path", b"deep/er/f\xc3\xbcnf"),
        ])
        .file("ignored", 0o444, b"five");
    tar
}

#[test]
fn owners_modes_times_links_and_devices_come_out_of_a_tar() {
    let bench = Bench::new();
    let image = bench.image_of_tar(&sample()).unwrap();
    told(&image, "/", &["Type: directory", "Mode: 0751", "User: 0"]);
    told(
        &image,
        "/bin/su",
        &["regular", "Mode: 04755", "Size: 6", "Links: 2"],
    );
    told(
        &image,
        "/bin/mail",
        &["Mode: 02640", "User: 1000 Group: 42", "Size: 9000"],
    );
    told(
        &image,
        "/tmp",
        &["directory", "Mode: 01777", "User: 3 Group: 4"],
    );
    told(&image, "/short", &["symlink", "Fast link dest: \"bin/su\""]);
    told(&image, "/long", &["symlink", "Size: 90"]);
    told(
        &image,
        "/dev/null",
        &["character special", "Mode: 0660", "Group: 6", "01:03"],
    );
    told(
        &image,
        "/dev/vdz",
        &["block special", "Device major/minor number: 259:7000"],
    );
    told(&image, "/pipe", &["FIFO", "Mode: 0600", "User: 5 Group: 5"]);
    told(
        &image,
        "/deep/er/fünf",
        &[
            "Mode: 0444",
            "User: 200000 Group: 300000",
            "mtime: 0x59682f00:1d6f3454 -- Fri Jul 14 02:40:00 2017",
            "ctime: 0x59682f00:1d6f3454",
            "crtime: 0x59682f00:1d6f3454",
        ],
    );
    // Of directories too, which change while they are filled.
    told(&image, "/bin", &["mtime: 0x5f5e1000:00000000"]);
    // Nobody said anything of this one: root's, and as old as the newest file.
    told(
        &image,
        "/deep",
        &["Mode: 0755", "User: 0 Group: 0", "mtime: 0x5f5e1000"],
    );

    assert_eq!(image.cat("/bin/mail"), [7; 9000]);
    assert_eq!(image.cat("/deep/er/fünf"), b"five");
    assert_eq!(image.cat("/zz/again"), b"setuid");
    let inode = |path| {
        image
            .stat(path)
            .split_whitespace()
            .nth(1)
            .unwrap()
            .to_owned()
    };
    assert_eq!(inode("/bin/su"), inode("/zz/again"));

    for (name, value) in [
        ("user.note", &b"with \"quotes\"\nand a\0zero"[..]),
        (
            "security.capability",
            b"\x01\0\0\x02\0\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ),
    ] {
        let file = bench.path("value");
        image.debugfs(&format!(
            "ea_get -f {} /deep/er/fünf {name}",
            file.display()
        ));
        assert_eq!(std::fs::read(file).unwrap(), value, "{name}");
    }
    assert!(image.is_sound());
}

#[test]
fn compressed_archives_are_the_same_archives() {
    let plain = sample().end();
    let bench = Bench::new();
    let expected = bench.image_of(bench.tar(&plain), "plain").unwrap().bytes();
    for compression in [
        Compression::Gzip,
        Compression::Xz,
        Compression::Zstd,
        Compression::Bzip2,
        Compression::Lz4,
    ] {
        let packed = bench.tar(&compress(compression, &plain));
        let image = bench.image_of(&packed, &compression.to_string()).unwrap();
        assert!(image.bytes() == expected, "{compression}");
    }
}

#[test]
fn a_directory_is_kept_as_lstat_sees_it() {
    let bench = Bench::new();
    let root = bench.path("root");
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/secret"), "s").unwrap();
    std::fs::set_permissions(root.join("etc/secret"), PermissionsExt::from_mode(0o4711)).unwrap();
    std::fs::hard_link(root.join("etc/secret"), root.join("twin")).unwrap();
    symlink("/etc/secret", root.join("out")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let image = bench.image_of(&root, "image").unwrap();
    let metadata = std::fs::symlink_metadata(root.join("etc/secret")).unwrap();
    let owner = format!("User: {} Group: {}", metadata.uid(), metadata.gid());
    told(&image, "/twin", &["Mode: 04711", "Links: 2", &owner]);
    told(&image, "/out", &["symlink", "\"/etc/secret\""]);
    assert_eq!(image.names("/"), [&b"etc"[..], b"out", b"twin"]);
    assert!(image.is_sound());
}

#[test]
fn what_is_unpacked_meanwhile_is_private() {
    let bench = Bench::new();
    let tar = bench.tar(&sample().end());
    let mut seen = 0;
    let mut progress = |_| {
        for entry in std::fs::read_dir(bench.dir.path()).unwrap() {
            let entry = entry.unwrap();
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(".smartvm-rootfs-")
            {
                assert_eq!(entry.metadata().unwrap().mode() & 0o7777, 0o700);
                seen += 1;
            }
        }
    };
    let mut watch = Watch::new(&mut progress, &|| false);
    build_rootfs(
        &(&tar).into(),
        &bench.path("image"),
        &RootfsOptions::default(),
        &mut watch,
    )
    .unwrap();
    assert!(seen > 0);
}

#[test]
fn a_file_that_is_mostly_holes_stays_so() {
    let bench = Bench::new();
    let root = bench.path("root");
    std::fs::create_dir(&root).unwrap();
    let file = std::fs::File::create(root.join("holes")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 300 << 20).unwrap();
    let image = bench.image_of(&root, "image").unwrap();
    told(&image, "/holes", &["Size: 314572803"]);
    assert!(crate::storage::allocated_bytes(&image.0).unwrap() < 20 << 20);
}

#[test]
fn the_size_is_what_was_asked_for_or_leaves_the_room_that_was() {
    let bench = Bench::new();
    let tar = bench.tar(&sample().end());
    let options = RootfsOptions::builder().size_bytes(48 << 20).build();
    let image = bench
        .image_with(&(&tar).into(), "sized", &options, Limits::default())
        .unwrap();
    assert_eq!(std::fs::metadata(&image.0).unwrap().len(), 48 << 20);

    for mib in [0, 1, 100, 500, 3000, 30_000] {
        let options = RootfsOptions::builder().free_bytes(mib << 20).build();
        let name = format!("roomy-{mib}");
        let image = bench
            .image_with(&(&tar).into(), &name, &options, Limits::default())
            .unwrap();
        let free = image
            .text("show_super_stats -h")
            .lines()
            .find_map(|line| line.strip_prefix("Free blocks:"))
            .map(|free| free.trim().parse::<u64>().unwrap() * BLOCK)
            .unwrap();
        let most = (mib << 20) + (mib << 20) / 8 + (16 << 20);
        assert!((mib << 20..most).contains(&free), "{free} for {mib} MiB");
    }
}

#[test]
fn a_directory_with_thousands_of_names_and_links_is_sound() {
    let mut tar = Tar::default();
    tar.file("first", 0o644, b"1");
    for nth in 0..1500 {
        tar.link(
            EntryType::Link,
            &format!("many/hard-{nth:04}-{}", "n".repeat(40)),
            "first",
        );
        tar.link(
            EntryType::Symlink,
            &format!("many/soft-{nth:04}"),
            "../first",
        );
    }
    let bench = Bench::new();
    let image = bench.image_of_tar(&tar).unwrap();
    assert_eq!(image.names("/many").len(), 3000);
    told(&image, "/first", &["Links: 1501"]);
    assert!(image.is_sound());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_name_comes_through(
        names in proptest::collection::btree_set(
            proptest::collection::vec(
                prop_oneof![
                    3 => prop::sample::select(&b" \"\"\\\t'<>#-*$!?.12"[..]),
                    1 => any::<u8>(),
                ],
                1..12,
            ),
            1..12,
        ),
    ) {
        let names: Vec<Vec<u8>> = names
            .into_iter()
            .filter(|name| {
                !name.iter().any(|byte| matches!(byte, 0 | b'\n' | b'\r' | b'/'))
                    && !matches!(name.as_slice(), b"." | b"..")
            })
            .collect();
        let mut tar = Tar::default();
        for (nth, name) in names.iter().enumerate() {
            let name = [b"d/".as_slice(), name].concat();
            match nth % 4 {
                0 => tar.add(header(EntryType::Regular, 0o600, 0, 0), &name, b"x"),
                1 => tar.add(header(EntryType::Directory, 0o700, 0, 0), &name, b""),
                2 => tar.add(header(EntryType::Fifo, 0o600, 0, 0), &name, b""),
                _ => {
                    let mut header = header(EntryType::Symlink, 0o777, 0, 0);
                    let target = &name[2..];
                    header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
                    tar.add(header, &name, b"")
                }
            };
        }
        let bench = Bench::new();
        let image = bench.image_of_tar(&tar).unwrap();
        if !names.is_empty() {
            prop_assert_eq!(image.names("/d"), names);
        }
        prop_assert!(image.is_sound());
    }
}
