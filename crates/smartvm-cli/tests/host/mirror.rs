//! A mirror on loopback of what Firecracker's project publishes, and first use by it alone.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use crate::support::{Corner, firecracker};

/// A server of files by path and query.
pub(crate) struct Mirror {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Mirror {
    pub(crate) fn start(files: HashMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let first = lines.next().unwrap_or_default();
                let _rest = lines.take_while(|line| !line.is_empty()).count();
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                // As a proxy it is asked for whole URLs.
                let path = path
                    .strip_prefix("http://nowhere.invalid")
                    .map_or(path.clone(), str::to_owned);
                let (status, body) = match files.get(&path) {
                    Some(body) => ("200 OK", body.as_slice()),
                    None => ("404 Not Found", &[][..]),
                };
                seen.lock().unwrap().push(path);
                let head = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                // A client may leave early.
                let _gone = stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(body));
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What was asked for since this was last called.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// The CI's bucket at `/bucket`, which has one kernel and one root.
pub(crate) fn bucket(kernel: &[u8], root: &[u8]) -> HashMap<String, Vec<u8>> {
    let page = |inside: String| {
        format!("<ListBucketResult><IsTruncated>false</IsTruncated>{inside}</ListBucketResult>")
            .into_bytes()
    };
    let dir = "firecracker-ci/v1.12/x86_64";
    let mut files = HashMap::new();
    let mut listed = String::new();
    for (name, content) in [("vmlinux-6.1.141", kernel), ("ubuntu-24.04.ext4", root)] {
        let size = content.len();
        listed += &format!("<Contents><Key>{dir}/{name}</Key><Size>{size}</Size></Contents>");
        files.insert(format!("/bucket/{dir}/{name}"), content.to_vec());
    }
    let versions = "<CommonPrefixes><Prefix>firecracker-ci/v1.12/</Prefix></CommonPrefixes>";
    let ask = "/bucket?list-type=2&prefix=firecracker-ci%2F";
    files.insert(format!("{ask}&delimiter=%2F"), page(versions.to_owned()));
    files.insert(format!("{ask}v1.12%2Fx86_64%2F"), page(listed));
    files
}

/// A release page at `/releases`, whose latest release is the tests' own Firecracker.
fn releases(work: &Path) -> HashMap<String, Vec<u8>> {
    let (dir, name) = ("release-v1.12.1-x86_64", "firecracker-v1.12.1-x86_64");
    std::fs::create_dir(work.join(dir)).unwrap();
    std::fs::copy(firecracker(), work.join(dir).join(name)).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["-czf", "release.tgz", dir]).current_dir(work);
    assert!(tar.status().unwrap().success());
    let archive = std::fs::read(work.join("release.tgz")).unwrap();
    let sum: String = Sha256::digest(&archive)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let url = format!("/releases/download/v1.12.1/{name}.tgz");
    HashMap::from([
        ("/releases/latest".to_owned(), b"v1.12.1\n".to_vec()),
        (format!("{url}.sha256.txt"), sum.into_bytes()),
        (url, archive),
    ])
}

#[test]
fn create_and_start_fetch_firecracker_by_themselves_on_first_use() {
    let corner = Corner::new();
    let mirror = Mirror::start(releases(corner.path()));
    let smartvm = |args: &[&str]| {
        let mut command = corner.command();
        command
            .env_remove("SMARTVM_FIRECRACKER")
            .env("SMARTVM_RELEASES", mirror.url("/releases"))
            .env("PATH", "")
            .args(args);
        command.assert()
    };
    let mut spec = corner.small();
    spec.id = Some("later".to_owned());
    let spec = corner.spec_file(&spec).display().to_string();
    let archive = "/releases/download/v1.12.1/firecracker-v1.12.1-x86_64.tgz";
    let fetched = [
        "/releases/latest".to_owned(),
        format!("{archive}.sha256.txt"),
        archive.to_owned(),
    ];
    smartvm(&["create", "--assume-kvm", "--jail", "off", "-f", &spec])
        .success()
        .stdout("later\n");
    assert_eq!(mirror.asked(), fetched);
    smartvm(&["validate", "-f", &spec]).success();
    assert_eq!(mirror.asked(), [""; 0], "it is there");

    // Gone since: the start of a VM that is made already fetches it too.
    std::fs::remove_dir_all(corner.file("data/bin/1.12.1")).unwrap();
    smartvm(&["start", "--assume-kvm", "later"])
        .success()
        .stdout("later\n");
    assert_eq!(mirror.asked().last().unwrap(), archive);
    smartvm(&["firecracker", "rm", "1.12.1"]).code(4);
    smartvm(&["rm", "--force", "later"]).success();
    smartvm(&["firecracker", "rm", "1.12.1"]).success();
}

#[test]
fn the_proxy_of_the_environment_is_asked_for_what_it_is_there_for() {
    let corner = Corner::new();
    let mirror = Mirror::start(releases(corner.path()));
    let install = |no_proxy: &str| {
        let mut command = corner.command();
        command
            .env_remove("SMARTVM_FIRECRACKER")
            .env("http_proxy", mirror.url("/"))
            .env("no_proxy", no_proxy)
            .args(["--releases", "http://nowhere.invalid/releases"])
            .args(["firecracker", "install", "1.12.1"]);
        command.assert()
    };
    install("invalid").failure();
    assert_eq!(mirror.asked(), [""; 0]);
    install("elsewhere.example").success();
    assert_eq!(mirror.asked().len(), 2, "checksum and archive");
}
