//! Images are read back with debugfs and looked over with e2fsck: other people's programs.

mod hostile;
mod kept;
#[cfg(feature = "oci")]
mod layers;
mod same_bytes;
mod squash;

use std::path::{Path, PathBuf};
use std::process::Command;

use tar::{EntryType, Header};

use super::*;
use crate::storage::program;

const T: u64 = 1_600_000_000;

/// A header of a file; checksum and path come when it is added.
fn header(kind: EntryType, mode: u32, uid: u64, gid: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mtime(T);
    header.set_size(0);
    header
}

/// An archive in the making, written by hand where the library would refuse.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(&mut self, mut header: Header, path: &[u8], data: &[u8]) -> &mut Self {
        let name = &mut header.as_old_mut().name;
        if path.len() > name.len() {
            let mut long = self::header(EntryType::GNULongName, 0, 0, 0);
            long.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
            long.set_size(path.len() as u64);
            long.set_cksum();
            self.put(&long, path);
        } else {
            name[..path.len()].copy_from_slice(path);
        }
        if header.entry_size().unwrap() == 0 {
            header.set_size(data.len() as u64);
        }
        header.set_cksum();
        self.put(&header, data)
    }

    fn put(&mut self, header: &Header, data: &[u8]) -> &mut Self {
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> &mut Self {
        self.add(
            header(EntryType::Regular, mode, 0, 0),
            path.as_bytes(),
            data,
        )
    }

    fn directory(&mut self, path: &str, mode: u32) -> &mut Self {
        self.add(
            header(EntryType::Directory, mode, 0, 0),
            path.as_bytes(),
            b"",
        )
    }

    fn link(&mut self, kind: EntryType, path: &str, target: &str) -> &mut Self {
        let mut header = header(kind, 0o777, 0, 0);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.add(header, path.as_bytes(), b"")
    }

    fn device(&mut self, kind: EntryType, path: &str, major: u32, minor: u32) -> &mut Self {
        let mut header = header(kind, 0o660, 0, 6);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.add(header, path.as_bytes(), b"")
    }

    fn pax(&mut self, records: &[(&str, &[u8])]) -> &mut Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            data.extend(format!("{length} {key}=").into_bytes());
            data.extend(*value);
            data.push(b'\n');
        }
        self.add(header(EntryType::XHeader, 0, 0, 0), b"pax", &data)
    }

    fn end(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

/// A directory for one test, and what is made in it.
#[derive(Debug)]
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn image_of(&self, source: impl Into<RootSource>, name: &str) -> Result<Image> {
        self.image_with(
            &source.into(),
            name,
            &RootfsOptions::default(),
            Limits::default(),
        )
    }

    fn image_with(
        &self,
        source: &RootSource,
        name: &str,
        options: &RootfsOptions,
        limits: Limits,
    ) -> Result<Image> {
        let target = self.path(name);
        let (mut progress, never) = (|_| {}, || false);
        let mut watch = Watch::new(&mut progress, &never);
        build_within(source, &target, options, limits, &mut watch)?;
        Ok(Image(target))
    }

    fn tar(&self, bytes: &[u8]) -> PathBuf {
        let path = self.path("root.tar");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn image_of_tar(&self, tar: &Tar) -> Result<Image> {
        self.image_of(self.tar(&tar.end()), "image")
    }
}

/// An image, as debugfs sees it.
#[derive(Debug)]
struct Image(PathBuf);

impl Image {
    fn debugfs(&self, request: &str) -> Vec<u8> {
        let program = program::find("debugfs", "e2fsprogs").unwrap();
        let output = Command::new(program)
            .env("TZ", "UTC")
            .arg("-R")
            .arg(request)
            .arg(&self.0)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.lines().count(), 1, "{request}: {said}");
        output.stdout
    }

    fn text(&self, request: &str) -> String {
        String::from_utf8(self.debugfs(request)).unwrap()
    }

    fn stat(&self, path: &str) -> String {
        self.text(&format!("stat \"{}\"", path.replace('"', "\"\"")))
    }

    fn cat(&self, path: &str) -> Vec<u8> {
        self.debugfs(&format!("cat \"{path}\""))
    }

    /// Names in a directory, sorted, without `.` and `..`.
    fn names(&self, path: &str) -> Vec<Vec<u8>> {
        let listing = self.debugfs(&format!("ls -p \"{path}\""));
        let mut names: Vec<Vec<u8>> = listing
            .split(|&byte| byte == b'\n')
            .filter_map(|line| line.split(|&byte| byte == b'/').nth(5))
            .filter(|name| !matches!(*name, b"." | b".." | b"lost+found" | b""))
            .map(<[u8]>::to_vec)
            .collect();
        names.sort();
        names
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.0).unwrap()
    }

    fn is_sound(&self) -> bool {
        let program = program::find("e2fsck", "e2fsprogs").unwrap();
        Command::new(program)
            .arg("-fn")
            .arg(&self.0)
            .output()
            .unwrap()
            .status
            .success()
    }
}
