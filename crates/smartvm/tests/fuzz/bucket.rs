//! The listing of a bucket of images, down to what comes of it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use smartvm::spec::{BaseImageManagerOptions, EnsureBaseImageOptions};
use smartvm::storage::download::{Downloader, Settings};
use smartvm::storage::image::{BaseImages, Tell};

use super::fuzz;

/// A bucket whose every listing is what is tried, over a real connection.
#[test]
fn listings_of_buckets() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let dir = "firecracker-ci/v1.12";
    let keys: String = ["vmlinux-6.1.141", "ubuntu-24.04.ext4"]
        .map(|name| format!("<Contents><Key>{dir}/x86_64/{name}</Key></Contents>"))
        .concat();
    let seed = format!(
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>{keys}\
         <CommonPrefixes><Prefix>{dir}/</Prefix></CommonPrefixes></ListBucketResult>"
    );
    let mut kernel = vec![0; 120];
    kernel[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    for (at, value) in [
        (16, 2),
        (18, 62),
        (20, 1),
        (32, 64),
        (52, 64),
        (54, 56),
        (56, 1),
        (64, 1),
    ] {
        kernel[at] = value;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bucket = format!("http://{}/bucket", listener.local_addr().unwrap());
    let listing = Arc::new(Mutex::new(Vec::new()));
    let shown = Arc::clone(&listing);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            let is_listing = head.first().is_some_and(|line| line.contains("?list-type"));
            let body = match is_listing {
                true => shown.lock().unwrap().clone(),
                false => kernel.clone(),
            };
            let length = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
            // The other end may have left.
            let _gone = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        }
    });
    let latest = EnsureBaseImageOptions::default();
    let tell: Tell = Arc::new(|_| {});
    let work = tempfile::tempdir().unwrap();
    let downloader = Downloader::new(&Settings::default()).unwrap();
    fuzz("listings", &[seed.into_bytes()], |bytes| {
        *listing.lock().unwrap() = bytes.to_vec();
        let store = tempfile::tempdir_in(work.path()).unwrap();
        let options = BaseImageManagerOptions::builder()
            .cache_dir(store.path().join("base-images"))
            .build();
        let verified = store.path().join("verified");
        let images =
            BaseImages::open(options, verified, downloader.clone(), Some(&bucket)).unwrap();
        let held = runtime.block_on(images.ensure(&latest, &tell));
        let stored = images.store().list().unwrap();
        assert_eq!(
            stored.len(),
            usize::from(held.is_ok()),
            "whole or not at all"
        );
        // Whatever the listing names, it lies in the store.
        let names = std::fs::read_dir(store.path()).unwrap().flatten();
        assert!(
            names
                .map(|it| it.file_name())
                .all(|name| name == "base-images" || name == "verified")
        );
        held.is_ok()
    });
}
