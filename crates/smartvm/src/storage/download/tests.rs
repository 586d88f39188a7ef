pub(crate) mod server;

use std::sync::Mutex;

use super::*;
use crate::storage::checksum::sha256_of;
use server::{Fault, Server};

pub(crate) fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.patience.first_pause = Duration::from_millis(1);
    settings.patience.longest_pause = Duration::from_millis(1500);
    settings
}

pub(crate) fn quick() -> Downloader {
    Downloader::new(&settings()).unwrap()
}

pub(crate) fn silent() -> Tell {
    Arc::new(|_| {})
}

fn body(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n * 31 + n / 251) as u8).collect()
}

/// A directory, and a download of `/file` into it.
fn prepare(server: &Server, body: &[u8]) -> (tempfile::TempDir, Download) {
    let dir = tempfile::tempdir().unwrap();
    let download = Download::builder()
        .url(server.url("/file"))
        .target(dir.path().join("file"))
        .sha256(sha256_of(body))
        .most_bytes(1 << 20)
        .build();
    (dir, download)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_break_is_resumed_where_it_was_and_nothing_else_is_left() {
    let (server, body) = (Server::start().await, body(100_000));
    server.put("/file", body.clone());
    server.file("/file", |file| file.etag = Some("\"1\""));
    server.fault("/file", Fault::CutAfter(40_000));
    let (dir, mut download) = prepare(&server, &body);
    download.sha256 = None;
    let events = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&events);
    let tell: Tell = Arc::new(move |event| kept.lock().unwrap().push(event));
    let done = quick().file(&download, &tell).await.unwrap();
    assert_eq!(done.sha256, sha256_of(&body));
    assert_eq!(std::fs::read(&download.target).unwrap(), body);
    assert_eq!(names(dir.path()), ["file"]);
    let seen = server.seen("/file");
    assert_eq!(seen[0], None);
    assert_eq!(seen[1].as_deref(), Some("bytes=40000-"));
    let events = events.lock().unwrap();
    let resumed = |event: &Event| {
        matches!(
            event,
            Event::Began {
                resumed_at: 40_000,
                ..
            }
        )
    };
    assert!(events.iter().any(resumed), "{events:?}");
    assert!(matches!(events.last(), Some(Event::Done)));
}

#[tokio::test]
async fn a_server_without_ranges_and_a_file_that_changed_are_fetched_anew() {
    for ignores in [false, true] {
        let (server, old, new) = (Server::start().await, body(50_000), body(60_000));
        server.put("/file", old);
        server.file("/file", |file| file.etag = Some("\"old\""));
        server.fault("/file", Fault::CutAfter(10_000));
        let (_dir, mut download) = prepare(&server, &new);
        let mut settings = settings();
        settings.patience.attempts = 1;
        let impatient = Downloader::new(&settings).unwrap();
        impatient.file(&download, &silent()).await.unwrap_err();
        server.put("/file", new.clone()).file("/file", |file| {
            file.etag = Some("\"new\"");
            file.ignores_if_range = ignores;
        });
        download.sha256 = None;
        let done = quick().file(&download, &silent()).await.unwrap();
        assert_eq!(done.sha256, sha256_of(&new));
    }
    let (server, body) = (Server::start().await, body(50_000));
    server.put("/file", body.clone());
    server.file("/file", |file| file.no_ranges = true);
    server.fault("/file", Fault::CutAfter(10_000));
    let (_dir, download) = prepare(&server, &body);
    let done = quick().file(&download, &silent()).await.unwrap();
    assert_eq!(done.size_bytes, 50_000);
}

#[tokio::test]
async fn what_is_altered_or_of_another_length_never_gets_its_name() {
    let (server, body) = (Server::start().await, body(5_000));
    server.put("/file", b"something else".as_slice());
    let (dir, mut download) = prepare(&server, &body);
    let wrong = quick().file(&download, &silent()).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Corrupt);
    assert!(wrong.to_string().contains(&sha256_of(&body)), "{wrong}");
    download.size_bytes = Some(5_000);
    let short = quick().file(&download, &silent()).await.unwrap_err();
    assert!(short.to_string().contains("14 bytes long"), "{short}");
    assert_eq!(server.requests(), 2, "neither is tried again");
    server.put("/file", vec![0; 2 << 20]);
    (download.size_bytes, download.sha256) = (None, None);
    let large = quick().file(&download, &silent()).await.unwrap_err();
    assert!(large.to_string().contains("at most 1.0 MiB"), "{large}");
    server.fault("/file", Fault::NoLength);
    let unknown = quick().file(&download, &silent()).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Corrupt, "{unknown}");
    download.sha256 = Some(sha256_of(&body));
    server.fault("/file", Fault::NoLength);
    let endless = quick().file(&download, &silent()).await.unwrap_err();
    assert!(endless.to_string().contains("larger than"), "{endless}");
    assert!(!download.target.exists(), "{:?}", names(dir.path()));
}

#[tokio::test]
async fn only_what_may_pass_is_tried_again_and_retry_after_is_honoured() {
    let (server, body) = (Server::start().await, body(5_000));
    server.put("/file", body.clone());
    server.fault("/file", Fault::Status(500, None));
    server.fault("/file", Fault::Status(429, Some("1")));
    let (_dir, download) = prepare(&server, &body);
    let pauses = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&pauses);
    let tell: Tell = Arc::new(move |event| {
        if let Event::Retry { pause, .. } = event {
            kept.lock().unwrap().push(pause);
        }
    });
    quick().file(&download, &tell).await.unwrap();
    assert_eq!(server.requests(), 3);
    assert_eq!(pauses.lock().unwrap()[1], Duration::from_secs(1));

    for (fault, requests) in [
        (Fault::Status(404, None), 1),
        (Fault::Status(403, None), 1),
        (Fault::Status(503, Some("3600")), 1),
        (Fault::Status(502, None), 5),
    ] {
        let server = Server::start().await;
        server.put("/file", body.clone());
        for _ in 0..requests {
            server.fault("/file", fault.clone());
        }
        let (_dir, download) = prepare(&server, &body);
        let error = quick().file(&download, &silent()).await.unwrap_err();
        assert_eq!(server.requests(), requests, "{fault:?}: {error}");
        let is_missing = matches!(fault, Fault::Status(404, _));
        assert_eq!(error.kind() == ErrorKind::NotFound, is_missing);
    }
}

#[tokio::test]
async fn redirects_are_limited_and_never_lead_from_https_to_http() {
    let (server, body) = (Server::start().await, body(5_000));
    for _ in 0..20 {
        server.fault("/file", Fault::Redirect("/file".into()));
    }
    let (dir, mut download) = prepare(&server, &body);
    let endless = quick().file(&download, &silent()).await.unwrap_err();
    assert!(endless.to_string().contains("10 redirects"), "{endless}");

    let (secure, certificate) = Server::start_tls().await;
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, certificate).unwrap();
    download.url = secure.url("/file");
    let untrusted = quick().file(&download, &silent()).await.unwrap_err();
    assert!(untrusted.to_string().contains("certificate"), "{untrusted}");
    let mut settings = settings();
    settings.certificates.push(path);
    let trusting = Downloader::new(&settings).unwrap();
    secure.put("/file", body.clone());
    let plain = Server::start().await;
    plain.put("/file", body.clone());
    secure.fault("/file", Fault::Redirect(plain.url("/file")));
    let downgrade = trusting.file(&download, &silent()).await.unwrap_err();
    assert!(
        downgrade.to_string().contains("https to http"),
        "{downgrade}"
    );
    assert_eq!(plain.requests(), 0);
    trusting.file(&download, &silent()).await.unwrap();
}

#[tokio::test]
async fn many_who_want_one_file_fetch_it_once() {
    let (server, body) = (Server::start().await, body(200_000));
    server.put("/file", body.clone());
    server.fault("/file", Fault::Slow(Duration::from_millis(100)));
    let (_dir, download) = prepare(&server, &body);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let download = download.clone();
        all.spawn(async move { quick().file(&download, &silent()).await.unwrap() });
    }
    let all = all.join_all().await;
    assert_eq!(all.iter().filter(|done| !done.was_there).count(), 1);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_server_that_says_nothing_more_is_left() {
    let (server, body) = (Server::start().await, body(5_000));
    server.put("/file", body.clone());
    server.fault("/file", Fault::Slow(Duration::from_secs(600)));
    let (_dir, download) = prepare(&server, &body);
    let mut settings = settings();
    settings.patience.idle = Duration::from_millis(100);
    let downloader = Downloader::new(&settings).unwrap();
    downloader.file(&download, &silent()).await.unwrap();
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn the_proxy_is_the_one_that_was_named_and_its_password_is_not_told() {
    let (proxy, body) = (Server::start().await, body(5_000));
    proxy.put("/file", body.clone());
    let (_dir, mut download) = prepare(&proxy, &body);
    download.url = "http://nowhere.invalid/file".into();
    let mut settings = settings();
    let url = proxy.url("/").replace("http://", "http://me:geheim@");
    settings.proxies.http = Some(url.into());
    assert!(!format!("{settings:?}").contains("geheim"));
    let downloader = Downloader::new(&settings).unwrap();
    downloader.file(&download, &silent()).await.unwrap();
    assert_eq!(proxy.requests(), 1);
    let told = client::shown("https://me:geheim@host/a?signature=geheim#x");
    assert_eq!(told, "https://host/a");
}
