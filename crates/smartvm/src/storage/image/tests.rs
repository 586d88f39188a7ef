//! Base images from a real server on loopback.

mod hosted;
mod listing;
mod preset;
mod stored;

use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::storage::checksum::sha256_of;
use crate::storage::download::tests::quick;
use crate::storage::download::tests::server::Server;

/// The beginning of a kernel for an architecture, and what makes it another.
fn kernel(machine: u8, what: &str) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (bytes[16], bytes[18], bytes[20]) = (2, machine, 1);
    bytes[32] = 64;
    (bytes[52], bytes[54], bytes[56]) = (64, 56, 1);
    bytes[64] = 1;
    bytes.extend_from_slice(what.as_bytes());
    bytes
}

const X86: u8 = 62;
const ARM: u8 = 183;

fn page(keys: &[&str], prefixes: &[&str]) -> String {
    let keys: String = keys
        .iter()
        .map(|key| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>"))
        .collect();
    let prefixes: String = prefixes
        .iter()
        .map(|prefix| format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"))
        .collect();
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Prefix>firecracker-ci/</Prefix><IsTruncated>false</IsTruncated>{keys}{prefixes}\
         </ListBucketResult>"
    )
}

fn images(server: &Server, dir: &Path) -> BaseImages {
    let options = BaseImageManagerOptions::builder()
        .cache_dir(dir.join("base-images"))
        .build();
    let bucket = server.url("/b");
    BaseImages::open(options, dir.join("verified"), quick(), Some(&bucket)).unwrap()
}

fn silent() -> Tell {
    Arc::new(|_| {})
}

fn by_path(path: &Path) -> EnsureBaseImageOptions {
    EnsureBaseImageOptions::builder()
        .manifest_path(path)
        .build()
}

fn manifest(id: &str, arch: &str, kernel: &str, rootfs: &str) -> String {
    format!(
        "{{\"schemaVersion\":1,\"bundleId\":\"{id}\",\"arch\":\"{arch}\",\
         \"firecrackerVersion\":\"1.12.1\",\"rootfsType\":\"ext4\",\"bootArgs\":\"quiet\",\
         \"kernel\":{kernel},\"rootfs\":{rootfs}}}"
    )
}
