//! Whatever bytes come from outside, the parsers end with an answer: mutated seeds, for a
//! bounded time.
//!
//! A second for each parser by default; longer by hand, and from another seed:
//! `SMARTVM_FUZZ_SECONDS=600 SMARTVM_FUZZ_SEED=7 cargo test -p smartvm --release --test fuzz`.
//! A failure prints the input as hexadecimal digits.

// A helper of a test may fail as loudly as the test itself, and says what it did.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bucket;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Component;
use std::time::{Duration, Instant};

use smartvm::firecracker::Client;
use smartvm::firecracker::client::Request;
use smartvm::ledger::Ledger;
use smartvm::snapshot::Manifest;
use smartvm::spec::{Format, MicroVmSpec, SmartVmOptions};
use smartvm_agent::protocol::{Decoder, Greeting, Kind, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Mutations of seeds, the same ones for the same seed (xorshift64*).
struct Mutator(u64);

impl Mutator {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % most.max(1)
    }

    fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.below(256) as u8),
                2 if at < bytes.len() => {
                    bytes.remove(at);
                }
                3 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                4 => {
                    // A part of another seed.
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len() + 1);
                    let to = from + self.below(other.len() - from + 1);
                    bytes.splice(at..at, other[from..to].iter().copied());
                }
                5 => {
                    const TELLING: [&[u8]; 8] = [
                        b"18446744073709551616",
                        b"-1",
                        b"1e999",
                        b"\xff\xff\xff\xff",
                        b"\"\\ud800\"",
                        b"[[[[[[[[[[[[[[[[",
                        b"\0",
                        b"Content-Length: 99999999999999999999\r\n",
                    ];
                    let word = TELLING[self.below(TELLING.len())];
                    bytes.splice(at..at, word.iter().copied());
                }
                _ => {
                    let to = at + self.below(bytes.len() - at + 1).min(64);
                    let again = bytes[at..to].to_vec();
                    bytes.splice(at..at, again);
                }
            }
        }
        bytes
    }
}

/// Feeds mutations to a parser until the time is over; none may make it panic, and some must
/// be refused, or nothing was tried.
fn fuzz(name: &str, seeds: &[Vec<u8>], mut accepts: impl FnMut(&[u8]) -> bool) {
    let until = Instant::now() + Duration::from_secs(number("SMARTVM_FUZZ_SECONDS", 1));
    let mut mutator = Mutator(number("SMARTVM_FUZZ_SEED", 1).max(1));
    for seed in seeds {
        assert!(accepts(seed), "{name}: a seed is refused");
    }
    let (mut tried, mut refused) = (0_u64, 0_u64);
    while Instant::now() < until {
        let input = mutator.mutated(seeds);
        let begun = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| accepts(&input)));
        let slow = begun.elapsed() > Duration::from_secs(20);
        if done.is_err() || slow {
            let mut digits = String::new();
            for byte in &input {
                write!(digits, "{byte:02x}").unwrap();
            }
            panic!("{name}: panicked or took too long on {digits}");
        }
        tried += 1;
        refused += u64::from(!done.unwrap_or(true));
    }
    println!("{name}: {tried} inputs, {refused} refused");
    assert!(
        tried > 10 && refused > 0,
        "{name}: {tried} tried, {refused} refused"
    );
}

#[test]
fn specs() {
    let seeds = [
        (Format::Json, include_str!("../fixtures/full.json")),
        (Format::Toml, include_str!("../fixtures/full.toml")),
        (Format::Yaml, include_str!("../fixtures/full.yaml")),
    ];
    for (format, seed) in seeds {
        fuzz(&format!("{format:?} spec"), &[seed.into()], |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let Ok(spec) = smartvm::spec::load::<MicroVmSpec>(&text, format) else {
                return false;
            };
            let written = serde_json::to_string(&spec).unwrap();
            let again: MicroVmSpec = smartvm::spec::load(&written, Format::Json).unwrap();
            assert_eq!(again, spec, "what is written is read back");
            true
        });
    }
    let options = include_str!("../fixtures/options.json");
    fuzz("options", &[options.into()], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        smartvm::spec::load::<SmartVmOptions>(&text, Format::Json).is_ok()
    });
}

#[test]
fn agent_frames() {
    let frame = |kind, payload: &[u8]| {
        let mut bytes = Vec::new();
        encode(kind, payload, &mut bytes).unwrap();
        bytes
    };
    let seeds = [
        frame(Kind::Stdout, b"hello"),
        [frame(Kind::Credit, &[0, 1, 0, 0]), frame(Kind::Done, b"")].concat(),
        frame(Kind::Resize, &[24, 0, 80, 0]),
    ];
    let mut pieces = Mutator(99);
    fuzz("agent frames", &seeds, |bytes| {
        let mut decoder = Decoder::new();
        let mut left = bytes;
        while !left.is_empty() {
            let (now, later) = left.split_at(1 + pieces.below(left.len()));
            left = later;
            decoder.feed(now);
            loop {
                match decoder.next_frame() {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        let _any = (frame.credit(), frame.signal(), frame.size());
                        let _greeting = Greeting::decode(&frame);
                    }
                    Err(_) => return false,
                }
            }
        }
        decoder.finish().is_ok()
    });
}

#[test]
fn firecrackers_answers() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = {
        let _entered = runtime.enter();
        tokio::net::UnixListener::bind(&path).unwrap()
    };
    let body = r#"{"firecracker_version":"1.12.1"}"#;
    let length = body.len();
    let seeds = [format!(
        "HTTP/1.1 200 OK\r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()];
    fuzz("Firecracker's answers", &seeds, |bytes| {
        let answer = bytes.to_vec();
        runtime.block_on(async {
            let firecracker = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 1024];
                let _read = stream.read(&mut asked).await;
                let _written = stream.write_all(&answer).await;
            };
            let mut client = Client::new(&path);
            let request = Request::get("/version");
            let asked = client.send_within(&request, Duration::from_secs(5));
            let (answered, ()) = tokio::join!(asked, firecracker);
            answered.is_ok()
        })
    });
}

#[test]
fn ledgers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.jsonl");
    let seed = b"{\"format\":1}\n{\"begin\":{\"step\":{\"do\":\"makeDir\",\"path\":\"/x\"}}}\n\
                 {\"done\":{\"number\":0,\"outcome\":{}}}\n{\"undone\":{\"number\":0}}\n";
    fuzz("ledgers", &[seed.to_vec()], |bytes| {
        std::fs::write(&path, bytes).unwrap();
        Ledger::open(&path).is_ok()
    });
}

#[test]
fn manifests_of_bundles() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["k", "r"] {
        std::fs::write(dir.path().join(name), "content").unwrap();
    }
    let sum = "ab".repeat(32);
    let seed = format!(
        r#"{{"schemaVersion":1,"bundleId":"web","arch":"x86_64","firecrackerVersion":"1.12.1",
        "rootfsType":"squashfs","kernel":{{"path":"k","sha256":"{sum}"}},
        "rootfs":{{"path":"r","sizeBytes":7}},
        "process":{{"command":["sh"],"env":["A=1"],"workingDir":"/","user":"0:0"}}}}"#
    );
    fuzz("manifests", &[seed.into_bytes()], |bytes| {
        std::fs::write(dir.path().join("manifest.json"), bytes).unwrap();
        smartvm::storage::Bundle::load(dir.path()).is_ok()
    });
}

#[test]
fn archives_of_images() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    let sum = smartvm::storage::checksum::sha256_of(&[0; 1024]);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["sh"]}},
        "rootfs":{{"type":"layers","diff_ids":["sha256:{sum}"]}}}}"#
    );
    let list = r#"[{"Config":"c.json","RepoTags":["tool:1"],"Layers":["l.tar"]}]"#;
    let mut builder = tar::Builder::new(Vec::new());
    let files = [
        ("manifest.json", list.as_bytes()),
        ("c.json", config.as_bytes()),
        ("l.tar", &[0; 1024]),
    ];
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    }
    let seed = builder.into_inner().unwrap();
    let wanted = smartvm::storage::oci::Wanted::for_arch(smartvm::spec::Arch::X86_64);
    fuzz("archives of images", &[seed], |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let (mut tell, never) = (|_| {}, || false);
        let mut watch = smartvm::storage::Watch::new(&mut tell, &never);
        smartvm::storage::oci::open(&path, &wanted, dir.path(), &mut watch).is_ok()
    });
}

#[test]
fn names_of_images() {
    let seeds = [
        "alpine:3.20",
        "[::1]:5000/team/tool@sha256:DIGEST",
        "docker://a.b:1/c_d/e-f:g",
    ];
    let seeds = seeds.map(|seed| seed.replace("DIGEST", &"0f".repeat(32)).into_bytes());
    fuzz("names of images", &seeds, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Ok(reference) = text.parse::<smartvm::storage::oci::Reference>() else {
            return false;
        };
        let full = reference.to_string();
        assert_eq!(
            full.parse::<smartvm::storage::oci::Reference>().unwrap(),
            reference
        );
        assert!(!full.contains(['\0', '\n', ' ']), "{full:?}");
        assert!(
            full.split('/').all(|part| !part.starts_with('.')),
            "{full:?}"
        );
        true
    });
}

/// A manifest with the right checksum over whatever its body is.
fn summed(body: &serde_json::Value) -> Vec<u8> {
    use sha2::Digest;
    let sum = sha2::Sha256::digest(body.to_string().as_bytes());
    let mut digits = String::new();
    for byte in sum {
        write!(digits, "{byte:02x}").unwrap();
    }
    serde_json::json!({ "format": 1, "sha256": digits, "snapshot": body })
        .to_string()
        .into_bytes()
}

#[test]
fn snapshot_manifests() {
    let sum = serde_json::json!({ "sizeBytes": 4096, "sha256": "00".repeat(32) });
    let body = serde_json::json!({
        "id": "7c1ab1c4-8e0a-4a9e-9a44-6c4c39c55ed2",
        "vm": "web",
        "createdAt": "2026-11-24T05:01:35.476Z",
        "kind": "Diff",
        "origin": {
            "arch": "x86_64", "cpuVendor": "intel", "cpuModel": "Xeon 1",
            "kernel": "6.1.0-56-amd64", "firecracker": "1.12.1", "stateFormat": "6.0.0",
        },
        "agent": 2,
        "state": sum,
        "memory": sum,
        "drives": [{
            "driveId": "root", "path": "drives/root-rootfs.ext4", "readOnly": false, "sum": sum,
        }],
        "vsock": "vsock/v.sock",
        "parent": { "id": "x", "snapshotPath": "/s/state", "memFilePath": "/s/memory" },
        "spec": serde_json::from_str::<serde_json::Value>(include_str!("../fixtures/full.json"))
            .unwrap(),
    });
    let path = std::path::Path::new("manifest.json");
    let sound = |bytes: &[u8]| {
        let Ok(manifest) = Manifest::parse(bytes, path) else {
            return false;
        };
        // What is joined to paths stays below them, whatever the manifest says.
        let below = |path: &str| {
            let path = std::path::Path::new(path);
            path.components()
                .all(|part| matches!(part, Component::Normal(_)))
        };
        assert!(manifest.drives.iter().all(|drive| below(&drive.path)));
        assert!(manifest.vsock.iter().all(|path| below(path)));
        true
    };
    fuzz("snapshot manifests", &[summed(&body)], sound);
    // Past the checksum, which refuses nearly all of these.
    let seed = body.to_string().into_bytes();
    fuzz("snapshot manifests with their checksum", &[seed], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        serde_json::from_str(&text).is_ok_and(|body| sound(&summed(&body)))
    });
}
