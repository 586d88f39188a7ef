use std::fs;
use std::path::PathBuf;

use super::*;

/// What the archive says about one of its files.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    name: String,
    inode: u32,
    mode: u32,
    owner: (u32, u32),
    time: u32,
    device: (u32, u32),
    content: Vec<u8>,
}

/// Reads an archive by the format's own rules, and fails where it breaks them.
fn read_back(archive: &[u8]) -> Vec<Found> {
    let mut at = 0;
    let mut found = Vec::new();
    loop {
        assert_eq!(&archive[at..at + 6], b"070701");
        let field = |index: usize| {
            let start = at + 6 + index * 8;
            let digits = std::str::from_utf8(&archive[start..start + 8]).unwrap();
            u32::from_str_radix(digits, 16).unwrap()
        };
        let (size, name_size) = (field(6) as usize, field(11) as usize);
        let name_start = at + 110;
        let name = &archive[name_start..name_start + name_size - 1];
        assert_eq!(archive[name_start + name_size - 1], 0);
        let name = String::from_utf8(name.to_vec()).unwrap();
        let start = (name_start + name_size).next_multiple_of(4);
        let entry = Found {
            inode: field(0),
            mode: field(1),
            owner: (field(2), field(3)),
            time: field(5),
            device: (field(9), field(10)),
            content: archive[start..start + size].to_vec(),
            name,
        };
        at = (start + size).next_multiple_of(4);
        if entry.name == "TRAILER!!!" {
            assert!(archive[at..].iter().all(|byte| *byte == 0));
            return found;
        }
        found.push(entry);
    }
}

fn agent(dir: &Path) -> PathBuf {
    let path = dir.join("agent");
    fs::write(&path, "a static program").unwrap();
    path
}

fn module(dir: &Path, name: &str, content: &[u8]) -> ModuleFile {
    let path = dir.join(format!("{name}.ko"));
    fs::write(&path, content).unwrap();
    ModuleFile {
        name: name.into(),
        path,
    }
}

#[test]
fn the_archive_holds_what_the_agent_expects_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let agent = agent(temp.path());
    let modules = [
        module(temp.path(), "virtio", b"first"),
        module(temp.path(), "ext4", b"second!"),
    ];
    let found = read_back(&build(&agent, &modules).unwrap());
    let listed: Vec<_> = found
        .iter()
        .map(|entry| (entry.name.as_str(), entry.mode, entry.device))
        .collect();
    assert_eq!(
        listed,
        [
            ("dev", 0o040_755, (0, 0)),
            ("dev/console", 0o020_600, (5, 1)),
            ("init", 0o100_755, (0, 0)),
            ("modules", 0o040_755, (0, 0)),
            ("modules/ext4.ko", 0o100_644, (0, 0)),
            ("modules/load", 0o100_644, (0, 0)),
            ("modules/virtio.ko", 0o100_644, (0, 0)),
            ("newroot", 0o040_755, (0, 0)),
            ("proc", 0o040_755, (0, 0)),
            ("run", 0o040_755, (0, 0)),
            ("sys", 0o040_755, (0, 0)),
            ("tmp", 0o040_755, (0, 0)),
        ]
    );
    for (inode, entry) in (1..).zip(&found) {
        assert_eq!(
            (entry.inode, entry.owner, entry.time),
            (inode, (0, 0), 0),
            "{}",
            entry.name
        );
    }
    let content = |name: &str| {
        &found
            .iter()
            .find(|entry| entry.name == name)
            .unwrap()
            .content
    };
    assert_eq!(
        content("modules/load"),
        b"/modules/virtio.ko\n/modules/ext4.ko\n"
    );
    assert_eq!(content("modules/ext4.ko"), b"second!");
    assert_eq!(content("init"), &fs::read(&agent).unwrap());
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let build_in_a_new_place = || {
        let temp = tempfile::tempdir().unwrap();
        let modules = [module(temp.path(), "m", b"content")];
        build(&agent(temp.path()), &modules).unwrap()
    };
    assert!(build_in_a_new_place() == build_in_a_new_place());
}

#[test]
fn a_module_that_comes_twice_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let twice = module(temp.path(), "m", b"");
    let error = build(&agent(temp.path()), &[twice.clone(), twice]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
