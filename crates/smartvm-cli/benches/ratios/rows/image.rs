//! Images: verified and unpacked, made, pulled, run from the store.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use smartvm::firecracker::release::Releases;
use smartvm::spec::Arch;
use smartvm::storage::download::Downloader;
use smartvm::storage::oci::Reference;
use smartvm::storage::oci::registry::{Credentials, Registry};
use smartvm::storage::store::Store;

use crate::corner::{Corner, SMARTVM};
use crate::docker_registry::{self, layout};
use crate::figures::{Figures, timed};
use crate::row::Row;

pub(crate) const UNPACK: Row = Row {
    name: "unpack",
    about: "a release: fetched on loopback, verified, its programs unpacked / \
            sha256sum and tar -x of the file on disk",
    // At least 0.8 of the speed.
    target: Some(1.25),
    measure: unpack,
};

pub(crate) const EXT4: Row = Row {
    name: "oci-ext4",
    about: "an OCI layout to a bundle with an ext4 root / umoci unpack and mke2fs -d",
    target: Some(1.0),
    measure: ext4,
};

pub(crate) const CACHED: Row = Row {
    name: "run-cached",
    about: "`run` of an image in the store / `run` of a spec with the same files",
    target: Some(1.05),
    measure: cached,
};

pub(crate) const LAYERS: Row = Row {
    name: "pull-layers",
    about: "an image of 10 layers pulled from a registry on loopback / the same, one layer after \
            another",
    target: Some(1.0),
    measure: layers,
};

/// Bytes of text, which compress as programs do.
fn text(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut out = Vec::with_capacity(size + 16);
    while out.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        write!(out, "{:x} {} ", state >> 40, state & 0xff).unwrap();
    }
    out.truncate(size);
    out
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn unpack(corner: &Corner, pairs: usize) -> Figures {
    // As a release is: the programs, and debug files that nobody asks for.
    let name = "release-v9.9.9-x86_64";
    let dir = corner.file("release");
    std::fs::create_dir_all(dir.join(name)).unwrap();
    for (file, megabytes) in [("firecracker", 3), ("jailer", 2), ("debug", 60)] {
        let path = dir.join(name).join(format!("{file}-v9.9.9-x86_64"));
        std::fs::write(path, text(megabytes << 20, megabytes as u64)).unwrap();
    }
    let archive = "firecracker-v9.9.9-x86_64.tgz";
    run(Command::new("tar")
        .current_dir(&dir)
        .args(["-czf", archive, name]));
    let sums = Command::new("sha256sum")
        .current_dir(&dir)
        .arg(archive)
        .output()
        .unwrap();
    std::fs::write(dir.join("sums"), &sums.stdout).unwrap();
    let served = [
        (
            archive.to_owned(),
            std::fs::read(dir.join(archive)).unwrap(),
        ),
        (format!("{archive}.sha256.txt"), sums.stdout),
    ];
    let mirror = serve(served.into());
    let data = corner.file("releases");
    let downloader = Downloader::new(&Default::default()).unwrap();
    let out = dir.join("out");
    Figures::pairs(
        pairs,
        || {
            let releases = Releases::new(&data, Some(&mirror));
            let tell: smartvm::storage::download::Tell = Arc::new(|_| {});
            let install = releases.install("9.9.9", Arch::X86_64, &downloader, &tell, &|_| {});
            let (took, installed) = timed(|| corner.wait(install));
            installed.unwrap();
            std::fs::remove_dir_all(&data).unwrap();
            took
        },
        || {
            std::fs::create_dir(&out).unwrap();
            let took = timed(|| {
                run(Command::new("sha256sum")
                    .current_dir(&dir)
                    .args(["-c", "sums"]));
                run(Command::new("tar")
                    .current_dir(&out)
                    .arg("-xzf")
                    .arg(dir.join(archive)));
            });
            std::fs::remove_dir_all(&out).unwrap();
            took.0
        },
    )
}

/// Serves files by the last part of the path; returns the URL.
fn serve(files: Vec<(String, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let found = files
                .iter()
                .find(|(name, _)| path.ends_with(&format!("/{name}")));
            let (status, body) = match found {
                Some((_, body)) => ("200 OK", body.as_slice()),
                None => ("404 Not Found", &b""[..]),
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
            );
            // Who asked may be gone.
            let _gone = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(body));
        }
    });
    url
}

fn ext4(corner: &Corner, pairs: usize) -> Figures {
    let dir = corner.file("oci");
    std::fs::create_dir(&dir).unwrap();
    let umoci = |words: &[&str]| run(Command::new("umoci").args(words).current_dir(&dir));
    umoci(&["init", "--layout", "layout"]);
    umoci(&["new", "--image", "layout:tool"]);
    umoci(&["unpack", "--image", "layout:tool", "made"]);
    // As a small distribution is: many small files, some large ones.
    let root = dir.join("made/rootfs/usr");
    for group in 0..60_u64 {
        let inside = root.join(format!("group-{group}"));
        std::fs::create_dir_all(&inside).unwrap();
        for file in 0..40_u64 {
            let size = 512 + (group * 977 + file * 331) as usize % 24_000;
            let path = inside.join(format!("file-{file}"));
            std::fs::write(path, text(size, group * 41 + file)).unwrap();
        }
    }
    for large in 0..8_u64 {
        std::fs::write(root.join(format!("large-{large}")), text(4 << 20, large)).unwrap();
    }
    umoci(&["repack", "--image", "layout:tool", "made"]);
    std::fs::remove_dir_all(dir.join("made")).unwrap();
    let (ours, theirs) = (dir.join("ours"), dir.join("theirs"));
    let image = dir.join("theirs.img");
    Figures::pairs(
        pairs,
        || {
            let mut command = smartvm(corner);
            command
                .args(["image", "import", "--agent", "/bin/busybox", "--kernel"])
                .arg(corner.file("tiny"))
                .arg(dir.join("layout"))
                .arg("--output")
                .arg(&ours);
            let took = timed(|| run(&mut command)).0;
            std::fs::remove_dir_all(&ours).unwrap();
            took
        },
        || {
            let took = timed(|| {
                let bundle = theirs.to_str().unwrap();
                umoci(&["unpack", "--image", "layout:tool", bundle]);
                let mut mke2fs = Command::new("/sbin/mke2fs");
                mke2fs
                    .args(["-q", "-F", "-t", "ext4", "-d"])
                    .arg(theirs.join("rootfs"))
                    .arg(&image)
                    .arg("256M");
                run(&mut mke2fs);
            });
            std::fs::remove_dir_all(&theirs).unwrap();
            std::fs::remove_file(&image).unwrap();
            took.0
        },
    )
}

fn smartvm(corner: &Corner) -> Command {
    let mut command = Command::new(SMARTVM);
    command
        .env("SMARTVM_DATA_DIR", corner.file("cli-data"))
        .env("SMARTVM_RUNTIME_DIR", corner.file("cli-run"))
        .env("SMARTVM_FIRECRACKER", corner.firecracker())
        .env_remove("SMARTVM_CONFIG")
        .stdin(Stdio::null());
    command
}

fn cached(corner: &Corner, pairs: usize) -> Figures {
    let root = corner.file("cached-root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("file"), text(16 << 20, 5)).unwrap();
    let mut build = smartvm(corner);
    build
        .args([
            "image",
            "build",
            "--read-only",
            "--agent",
            "/bin/busybox",
            "--kernel",
        ])
        .arg(corner.file("tiny"))
        .arg("--rootfs")
        .arg(&root)
        .args(["--output", "cached"]);
    run(&mut build);
    let image = corner.file("cli-data/base-images/cached");
    let manifest = std::fs::read(image.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let at = |name: &str| image.join(manifest[name]["path"].as_str().unwrap());
    let spec = json!({
        "bootSource": {
            "kernelImagePath": at("kernel"), "initrdPath": at("initrd"),
            "bootArgs": manifest["bootArgs"],
        },
        "machineConfig": { "vcpuCount": 1, "memSizeMib": 256 },
        "drives": [{
            "driveId": "root", "pathOnHost": at("rootfs"), "isRootDevice": true,
            "isReadOnly": true,
        }],
    });
    let file = corner.file("cached.json");
    std::fs::write(&file, spec.to_string()).unwrap();
    let detached = |what: &[&std::ffi::OsStr]| {
        let mut command = smartvm(corner);
        command
            .args(["run", "--assume-kvm", "--detach", "--id", "cached"])
            .args(what);
        let took = timed(|| run(&mut command)).0;
        run(smartvm(corner).args(["rm", "--force", "cached"]));
        took
    };
    Figures::pairs(
        pairs,
        || detached(&["--image".as_ref(), "cached".as_ref()]),
        || detached(&["-f".as_ref(), file.as_os_str()]),
    )
}

fn layers(corner: &Corner, pairs: usize) -> Figures {
    let dir = corner.file("pull");
    std::fs::create_dir(&dir).unwrap();
    let server = docker_registry::Registry::start(&dir.join("registry"));
    let contents: Vec<(String, Vec<u8>)> = (0..10)
        .map(|layer| (format!("file-{layer}"), text(8 << 20, layer)))
        .collect();
    let files: Vec<(&str, &[u8])> = contents
        .iter()
        .map(|(name, content)| (name.as_str(), content.as_slice()))
        .collect();
    layout(&dir.join("layout"), "ten", &files);
    server.push(&dir.join("layout"), "ten", "ten:1");
    let reference: Reference = server.name("ten:1").parse().unwrap();
    let store = Store::open(&dir.join("store")).unwrap();
    let pulled = |at_once: usize| -> Duration {
        let downloader = Downloader::new(&Default::default()).unwrap();
        let registry = Registry::new(downloader, Credentials::default()).at_once(at_once);
        let (took, image) = timed(|| {
            corner.wait(async {
                let found = registry.find(&reference, Arch::X86_64).await?;
                let tell: smartvm::storage::oci::registry::Tell = Arc::new(|_| {});
                registry.fetch(&found, store.layers()?, &tell).await
            })
        });
        assert_eq!(image.unwrap().layers().len(), 10);
        store.prune(None).unwrap();
        took
    };
    Figures::pairs(pairs, || pulled(4), || pulled(1))
}
