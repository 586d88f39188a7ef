use std::cell::Cell;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::storage::allocated_bytes;

fn never() -> bool {
    false
}

/// A file of `size` bytes with one stretch of data at each of `at`.
fn holey(dir: &Path, size: u64, at: &[u64]) -> PathBuf {
    let path = dir.join("source");
    let file = File::create(&path).unwrap();
    file.set_len(size).unwrap();
    for (nth, &at) in at.iter().enumerate() {
        let length = 5000.min(size.saturating_sub(at)) as usize;
        file.write_all_at(&vec![nth as u8 + 1; length], at).unwrap();
    }
    path
}

#[test]
fn a_copy_has_the_same_bytes_and_keeps_the_holes() {
    let dir = tempfile::tempdir().unwrap();
    let source = holey(dir.path(), 96 << 20, &[0, 40 << 20, (96 << 20) - 100]);
    let target = dir.path().join("target");
    let outcome = copy_sparse(&source, &target, &never).unwrap();
    assert_eq!(outcome.size_bytes, 96 << 20);
    assert!(fs::read(&source).unwrap() == fs::read(&target).unwrap());
    assert!(allocated_bytes(&target).unwrap() < 1 << 20);
    assert_eq!(
        fs::metadata(&target).unwrap().permissions().mode() & 0o7777,
        0o600
    );
}

#[test]
fn reading_and_writing_does_the_same_where_the_kernel_does_not_copy() {
    let dir = tempfile::tempdir().unwrap();
    let source = holey(dir.path(), 3 << 20, &[0, 1_500_000]);
    let (input, output) = (
        File::open(source).unwrap(),
        File::create_new(dir.path().join("target")).unwrap(),
    );
    let mut at = 0;
    while at < 3 << 20 {
        at += copy_range(&input, &output, at, (3 << 20) - at, &mut false).unwrap();
    }
    assert!(
        fs::read(dir.path().join("source")).unwrap()
            == fs::read(dir.path().join("target")).unwrap()
    );
}

#[test]
fn an_existing_target_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let source = holey(dir.path(), 100, &[0]);
    let target = dir.path().join("target");
    fs::write(&target, "mine").unwrap();
    let error = copy_sparse(&source, &target, &never).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState);
    assert_eq!(fs::read(&target).unwrap(), b"mine");
}

#[test]
fn a_link_at_the_target_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let source = holey(dir.path(), 100, &[0]);
    let target = dir.path().join("target");
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &target).unwrap();
    copy_sparse(&source, &target, &never).unwrap_err();
    assert!(!dir.path().join("elsewhere").exists());
}

#[test]
fn a_cancelled_copy_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = holey(dir.path(), 100 << 20, &[0, 50 << 20]);
    let target = dir.path().join("target");
    let asked = Cell::new(0);
    let second = || {
        asked.set(asked.get() + 1);
        asked.get() > 1
    };
    // On a file system with reflinks there is nothing to cancel.
    if let Err(error) = copy_sparse(&source, &target, &second) {
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(!target.exists());
    }
}

#[test]
fn only_regular_files_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    for (source, says) in [
        (dir.path(), "is a directory"),
        (fifo.as_path(), "is a FIFO"),
        (Path::new("/dev/zero"), "is a device"),
    ] {
        let error = copy_sparse(source, &dir.path().join("target"), &never).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(says), "{error}");
    }
    let missing = copy_sparse(&dir.path().join("no"), &dir.path().join("t"), &never);
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_pattern_of_holes_comes_through(
        size in 0u64..3_000_000,
        at in proptest::collection::vec(0u64..3_000_000, 0..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let source = holey(dir.path(), size, &at);
        let target = dir.path().join("target");
        let outcome = copy_sparse(&source, &target, &never).unwrap();
        prop_assert_eq!(outcome.size_bytes, size);
        prop_assert!(fs::read(&source).unwrap() == fs::read(&target).unwrap());
    }
}
