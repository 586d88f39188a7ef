use std::os::unix::fs::MetadataExt;

use super::*;
use crate::spec::{Arch, RootfsType};
use crate::storage::checksum::sha256_of;
use crate::storage::{ArtifactManifest, BundleManifest};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("base-images")).unwrap();
    (dir, store)
}

pub(crate) fn fill(dir: &Path, id: &str, content: &[u8]) {
    let artifact = |name: &str| {
        std::fs::write(dir.join(name), content).unwrap();
        ArtifactManifest::builder()
            .path(name)
            .sha256(sha256_of(content))
            .size_bytes(content.len() as u64)
            .build()
    };
    let manifest = BundleManifest::builder()
        .bundle_id(id)
        .arch(Arch::X86_64)
        .firecracker_version("1.12.1")
        .rootfs_type(RootfsType::Ext4)
        .kernel(artifact("vmlinux"))
        .rootfs(artifact("rootfs.ext4"))
        .build();
    manifest.write(dir).unwrap();
}

fn put(store: &Store, name: &str, origin: Origin, content: &[u8], replace: bool) -> Result<Held> {
    let claim = store.claim(name, &|| false)?;
    let work = store.work()?;
    fill(work.path(), name, content);
    store.put(&claim, work, &Record::new(origin), replace)
}

fn names(store: &Store) -> Vec<String> {
    store
        .list()
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect()
}

/// What lies in the store besides images and its own directories.
fn leftovers(store: &Store) -> usize {
    let entries = std::fs::read_dir(store.dir()).unwrap().flatten();
    let name = |e: std::fs::DirEntry| e.file_name().into_string().unwrap();
    entries.map(name).filter(|n| n.starts_with(".new-")).count()
}

#[test]
fn the_one_used_longest_ago_goes_but_never_what_the_user_brought_or_uses() {
    let (_dir, store) = store();
    for name in ["a", "b", "c"] {
        put(&store, name, Origin::Preset, b"x", false).unwrap();
    }
    put(&store, "mine", Origin::Built, b"x", false).unwrap();
    store.hold("a").unwrap();
    let held = store.hold("b").unwrap();
    // Used longest ago is c, then a; b is in use.
    std::thread::sleep(Duration::from_millis(2));
    store.hold("a").unwrap();
    let gone = |events: &[Event]| -> Vec<String> {
        let name = |event: &Event| match event {
            Event::Evicted(evicted) => evicted.name.clone(),
            other => format!("{other:?}"),
        };
        events.iter().map(name).collect()
    };
    assert_eq!(gone(&store.evict(2, "a").unwrap()), ["c"]);
    let events = store.evict(1, "a").unwrap();
    assert_eq!(events, [Event::AllInUse { stored: 2, most: 1 }]);
    drop(held);
    assert_eq!(gone(&store.evict(1, "a").unwrap()), ["b"]);
    assert_eq!(names(&store), ["a", "mine"]);
    let pruned = store.prune(None).unwrap();
    assert_eq!(pruned.images.len(), 2);
    assert!(pruned.images.iter().all(|one| one.disk_bytes > 0));
    assert_eq!((names(&store).len(), leftovers(&store)), (0, 0));
}

#[test]
fn an_image_is_replaced_whole_and_not_while_it_is_used() {
    let (_dir, store) = store();
    let held = put(&store, "a", Origin::Hosted, b"old", false).unwrap();
    let kernel = held.bundle().kernel().path.clone();
    let refused = put(&store, "a", Origin::Hosted, b"new", true).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WrongState);
    assert_eq!(std::fs::read(&kernel).unwrap(), b"old");
    drop(held);
    let taken = put(&store, "a", Origin::Hosted, b"new", false).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::WrongState);
    put(&store, "a", Origin::Hosted, b"new", true).unwrap();
    assert_eq!(std::fs::read(&kernel).unwrap(), b"new");
    assert_eq!(leftovers(&store), 0);
}

#[test]
fn what_a_killed_maker_left_goes_and_what_is_being_made_stays() {
    let (_dir, store) = store();
    let work = store.work().unwrap();
    std::fs::create_dir(store.dir().join(".new-dead")).unwrap();
    assert_eq!(store.sweep().unwrap(), [store.dir().join(".new-dead")]);
    assert!(work.path().exists());
    drop(work);
    assert_eq!(leftovers(&store), 0);
}

#[test]
fn an_image_that_is_not_whole_gets_no_name_and_a_bad_name_is_refused() {
    let (_dir, store) = store();
    let claim = store.claim("a", &|| false).unwrap();
    let work = store.work().unwrap();
    fill(work.path(), "a", b"x");
    std::fs::write(work.path().join("vmlinux"), b"longer").unwrap();
    let record = Record::new(Origin::Built);
    let altered = store.put(&claim, work, &record, false).unwrap_err();
    assert_eq!(altered.kind(), ErrorKind::Corrupt);
    assert_eq!((names(&store).len(), leftovers(&store)), (0, 0));
    for bad in ["", ".", "..", ".lock", "a/b", "a\0", "../x"] {
        assert_eq!(store.hold(bad).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(store.hold("b").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_clone_is_a_copy_under_its_own_name() {
    let (_dir, store) = store();
    put(&store, "a", Origin::Preset, b"x", false).unwrap();
    let watch = &mut |_| {};
    let copy = store
        .clone_image("a", "b", &mut crate::storage::Watch::new(watch, &|| false))
        .unwrap();
    assert_eq!(copy.bundle().bundle_id(), "b");
    assert!(!copy.record().origin.is_replaceable());
    let inode = |name: &str| {
        let path = store.dir().join(name).join("vmlinux");
        path.metadata().unwrap().ino()
    };
    assert_ne!(inode("a"), inode("b"));
}
