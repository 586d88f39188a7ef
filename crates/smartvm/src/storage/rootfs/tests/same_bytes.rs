use std::fs::File;
use std::os::unix::process::CommandExt;
use std::time::{Duration, SystemTime};

use super::*;

const NAMES: [&str; 7] = ["b", "a/x", "a/y", "c/d/e", "c/f", "zz", "a/a"];

fn set_time(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(T);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// The same directory, made in the given order.
fn directory(root: &Path, names: &[&str]) {
    for name in names {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, name.repeat(3000)).unwrap();
        set_time(&path);
    }
    for dir in ["c/d", "c", "a", ""] {
        set_time(&root.join(dir));
    }
}

#[test]
fn the_same_directory_makes_the_same_bytes_in_whatever_order_it_came_about() {
    let bench = Bench::new();
    let mut reversed = NAMES;
    reversed.reverse();
    directory(&bench.path("one"), &NAMES);
    directory(&bench.path("two"), &reversed);
    let one = bench.image_of(bench.path("one"), "image1").unwrap().bytes();
    assert!(bench.image_of(bench.path("one"), "image2").unwrap().bytes() == one);
    assert!(bench.image_of(bench.path("two"), "image3").unwrap().bytes() == one);

    // Last write, last check and making: as old as the newest file, not as the clock.
    for at in [0x30, 0x40, 0x108] {
        let time = one[1024 + at..1024 + at + 4].try_into().unwrap();
        assert_eq!(
            u64::from(u32::from_le_bytes(time)),
            T,
            "the time at {at:#x}"
        );
    }

    std::fs::write(bench.path("two").join("b"), "changed").unwrap();
    set_time(&bench.path("two").join("b"));
    let changed = bench.image_of(bench.path("two"), "image4").unwrap();
    let uuid = |image: &[u8]| image[1024 + 0x68..1024 + 0x78].to_vec();
    assert_ne!(
        uuid(&changed.bytes()),
        uuid(&one),
        "another content is another file system"
    );
}

#[test]
fn a_tar_and_the_directory_it_is_of_make_the_same_bytes() {
    let bench = Bench::new();
    let root = bench.path("root");
    directory(&root, &NAMES);
    let tar = bench.path("root.tar");
    let status = Command::new("tar")
        .args(["--numeric-owner", "-cf"])
        .arg(&tar)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .status()
        .unwrap();
    assert!(status.success());
    let from_tar = bench.image_of(&tar, "image1").unwrap().bytes();
    assert!(bench.image_of(&root, "image2").unwrap().bytes() == from_tar);
}

const DIR: &str = "SMARTVM_TEST_ROOTFS_DIR";

/// The test below runs this one as another user; alone it has nothing to do.
#[test]
fn an_image_is_made_where_another_test_asks_for_it() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    assert!(!rustix::process::geteuid().is_root());
    let dir = PathBuf::from(dir);
    let (mut progress, never) = (|_| {}, || false);
    let mut watch = Watch::new(&mut progress, &never);
    let options = RootfsOptions::default();
    build_rootfs(
        &dir.join("root.tar").into(),
        &dir.join("image"),
        &options,
        &mut watch,
    )
    .unwrap();
}

#[test]
fn an_ordinary_user_makes_the_same_bytes_as_root() {
    if !rustix::process::geteuid().is_root() {
        // Then every other test here has shown what an ordinary user can do.
        return;
    }
    let mut tar = Tar::default();
    tar.add(header(EntryType::Regular, 0o4755, 0, 0), b"su", b"x")
        .add(
            header(EntryType::Regular, 0o600, 1000, 1000),
            b"home/mine",
            b"y",
        )
        .device(EntryType::Char, "dev/null", 1, 3);
    let bench = Bench::new();
    let expected = bench.image_of_tar(&tar).unwrap().bytes();

    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("root.tar"), tar.end()).unwrap();
    std::os::unix::fs::chown(other.path(), Some(65534), Some(65534)).unwrap();
    // The build's own directory may be closed to other users. Another process copies: what this one
    // has open for writing, another test's child may have open still when the copy is run.
    let program = other.path().join("test");
    let mut copy = Command::new("cp");
    copy.arg(std::env::current_exe().unwrap()).arg(&program);
    assert!(copy.status().unwrap().success());
    let output = Command::new(&program)
        .args(["--exact", "--nocapture"])
        .arg("storage::rootfs::tests::same_bytes::an_image_is_made_where_another_test_asks_for_it")
        .env(DIR, other.path())
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}");
    assert!(std::fs::read(other.path().join("image")).unwrap() == expected);
}
