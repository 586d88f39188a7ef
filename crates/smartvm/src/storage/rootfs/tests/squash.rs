//! Squashfs images, read back with unsquashfs.

use super::*;

fn squashfs() -> RootfsOptions {
    RootfsOptions::builder()
        .format(RootfsType::Squashfs)
        .build()
}

pub(super) fn made(bench: &Bench, source: &RootSource, name: &str) -> Result<PathBuf> {
    let image = bench.image_with(source, name, &squashfs(), Limits::default())?;
    Ok(image.0)
}

pub(super) fn unsquashfs(words: &[&str], image: &Path) -> String {
    let program = program::find("unsquashfs", "squashfs-tools").unwrap();
    let output = Command::new(program)
        .args(words)
        .arg(image)
        .env("TZ", "UTC")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Each file as `MODE OWNER/GROUP SIZE DATE TIME PATH`, with single blanks.
fn listed(image: &Path) -> Vec<String> {
    let listed = unsquashfs(&["-llnumeric"], image);
    let lines = listed.lines().filter(|line| line.contains("squashfs-root"));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    lines
        .map(|line| words(line).replace("squashfs-root", ""))
        .collect()
}

fn sample() -> Tar {
    let mut tar = Tar::default();
    let long = format!("./deep/{}", "long-name/".repeat(15));
    tar.add(header(EntryType::Directory, 0o751, 9, 8), b"./", b"")
        .add(header(EntryType::Regular, 0o4755, 0, 0), b"./su", b"setuid")
        .link(EntryType::Symlink, "./link", &"x/".repeat(45))
        .link(EntryType::Link, "./zz/again", "./su")
        .device(EntryType::Char, "./dev/null", 1, 3)
        .device(EntryType::Block, "./dev/vdz", 259, 70)
        .add(header(EntryType::Fifo, 0o600, 5, 5), b"./pipe", b"")
        .pax(&[
            ("uid", b"3000000"),
            ("gid", b"4000000"),
            ("SCHILY.xattr.user.note", b"kept"),
        ])
        .file(&format!("{long}file"), 0o444, &[7; 300_000]);
    tar
}

#[test]
fn owners_modes_links_devices_and_attributes_are_in_a_squashfs() {
    let bench = Bench::new();
    let image = made(&bench, &bench.tar(&sample().end()).into(), "image").unwrap();
    let listed = listed(&image);
    let has = |line: &str| {
        let found = listed.iter().any(|found| found == line);
        assert!(found, "no {line:?} in {listed:#?}");
    };
    let time = "2020-09-13 12:26";
    let root = listed
        .iter()
        .find(|line| line.ends_with(&format!("{time} ")));
    assert!(
        root.is_some_and(|root| root.starts_with("drwxr-x--x ")),
        "{listed:#?}"
    );
    has(&format!("-rwsr-xr-x 0/0 6 {time} /su"));
    has(&format!("-rwsr-xr-x 0/0 6 {time} /zz/again"));
    has(&format!("crw-rw---- 0/6 1, 3 {time} /dev/null"));
    has(&format!("brw-rw---- 0/6 259, 70 {time} /dev/vdz"));
    has(&format!("prw------- 5/5 0 {time} /pipe"));
    let target = "x/".repeat(45);
    has(&format!("lrwxrwxrwx 0/0 90 {time} /link -> {target}"));
    let long = format!("/deep/{}file", "long-name/".repeat(15));
    has(&format!("-r--r--r-- 3000000/4000000 300000 {time} {long}"));

    let out = bench.path("out");
    let dest = out.to_str().unwrap();
    let program = program::find("unsquashfs", "squashfs-tools").unwrap();
    // Device nodes and owners take rights that a test needn't have.
    let ran = Command::new(program)
        .args(["-no-progress", "-user-xattrs", "-dest", dest])
        .arg(&image)
        .output()
        .unwrap();
    let file = out.join(&long[1..]);
    assert_eq!(std::fs::read(&file).unwrap(), [7; 300_000], "{ran:?}");
    let mut value = [0; 16];
    let read = rustix::fs::getxattr(&file, "user.note", &mut value).unwrap();
    assert_eq!(&value[..read], b"kept");
    use std::os::unix::fs::MetadataExt;
    let inode = |name: &str| out.join(name).metadata().unwrap().ino();
    assert_eq!(inode("su"), inode("zz/again"), "still one file");
}

#[test]
fn the_same_input_makes_the_same_squashfs() {
    let bench = Bench::new();
    let source: RootSource = bench.tar(&sample().end()).into();
    let one = made(&bench, &source, "one").unwrap();
    let two = made(&bench, &source, "two").unwrap();
    assert!(std::fs::read(one).unwrap() == std::fs::read(two).unwrap());
}

#[test]
fn what_a_squashfs_can_not_be_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    let source: RootSource = bench.tar(&sample().end()).into();
    let mut sized = squashfs();
    sized.size_bytes = Some(1 << 20);
    let limits = Limits::default;
    let refused = bench
        .image_with(&source, "image", &sized, limits())
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    let mut tar = Tar::default();
    tar.device(EntryType::Char, "dev", 5000, 1);
    let foreign: RootSource = bench.tar(&tar.end()).into();
    let refused = made(&bench, &foreign, "image").unwrap_err();
    assert!(refused.to_string().contains("5000:1"), "{refused}");
    let entries = std::fs::read_dir(bench.dir.path()).unwrap();
    assert_eq!(entries.count(), 1, "only the archive");
}
