//! Downloads and the store of images: killed, without room, and as people see them.

mod server;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{Corner, SMARTVM, eventually, firecracker};
use server::Server;

const MIB: usize = 1 << 20;

/// What no compression makes small.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

/// A hosted manifest of an image whose root is at the URL; its kernel is the tiny guest.
fn offer(dir: &Path, id: &str, url: &str, body: &[u8]) -> String {
    let sum: String = Sha256::digest(body)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let manifest = format!(
        r#"{{"schemaVersion":1,"bundleId":"{id}","arch":"x86_64","firecrackerVersion":"1.12.1",
        "rootfsType":"ext4","kernel":{{"path":"tiny"}},
        "rootfs":{{"url":"{url}","fileName":"root.img","sha256":"{sum}"}}}}"#
    );
    let path = dir.join("manifest.json");
    std::fs::write(&path, manifest).unwrap();
    path.display().to_string()
}

fn pull(corner: &Corner, manifest: &str) -> Command {
    smartvm(corner, &["image", "pull", "--manifest-path", manifest])
}

/// A command that can be killed.
fn smartvm(corner: &Corner, words: &[&str]) -> Command {
    let mut command = Command::new(SMARTVM);
    command
        .env("SMARTVM_DATA_DIR", corner.file("data"))
        .env("SMARTVM_RUNTIME_DIR", corner.file("run"))
        .env("SMARTVM_FIRECRACKER", firecracker())
        .env_remove("SMARTVM_CONFIG")
        .args(words)
        .stdin(Stdio::null());
    command
}

/// The images, all of which can be read and are as their manifests say; and nothing is left
/// of others.
fn sound(corner: &Corner) -> Vec<String> {
    let listed = corner.command().args(["--json", "image", "ls"]).assert();
    let listed = listed.success().get_output().stdout.clone();
    let listed: Vec<Value> = serde_json::from_slice(&listed).unwrap();
    let name = |image: &Value| {
        assert_eq!(image["error"], Value::Null, "{image:#}");
        image["name"].as_str().unwrap().to_owned()
    };
    let names: Vec<_> = listed.iter().map(name).collect();
    for name in &names {
        corner
            .command()
            .args(["image", "verify", name])
            .assert()
            .success();
    }
    names
}

fn in_the_making(corner: &Corner) -> usize {
    let entries = std::fs::read_dir(corner.file("data/base-images")).unwrap();
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .filter(|name| name.as_encoded_bytes().starts_with(b".new-"))
        .count()
}

#[test]
fn a_download_that_is_killed_goes_on_where_it_was() {
    let corner = Corner::new();
    let body = noise(4 * MIB);
    let server = Server::start(body.clone(), true);
    let manifest = offer(corner.path(), "web", &server.url, &body);
    let mut child = pull(&corner, &manifest)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let downloads = corner.file("data/base-images/.downloads");
    let part = || {
        let entries = std::fs::read_dir(&downloads)
            .into_iter()
            .flatten()
            .flatten();
        let mut parts =
            entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "part"));
        parts
            .next()
            .map_or(0, |part| part.metadata().unwrap().len())
    };
    eventually("half of it is there", || part() == 2 * MIB as u64);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(sound(&corner).len(), 0, "nothing has its name yet");
    let done = pull(&corner, &manifest).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let rest = Some(format!("bytes={}-", 2 * MIB));
    assert_eq!(server.asked(), [None, rest]);
    assert_eq!(sound(&corner), ["web"]);
    corner.command().args(["image", "prune"]).assert().success();
    assert_eq!((in_the_making(&corner), sound(&corner).len()), (0, 0));
    assert_eq!(std::fs::read_dir(&downloads).unwrap().count(), 0);
}

#[test]
fn processes_that_want_the_same_image_fetch_it_once() {
    let corner = Corner::new();
    let body = noise(MIB);
    let mut server = Server::start(body.clone(), true);
    let manifest = offer(corner.path(), "web", &server.url, &body);
    let begin = || {
        let mut pull = pull(&corner, &manifest);
        pull.stdout(Stdio::piped()).stderr(Stdio::null());
        pull.spawn().unwrap()
    };
    let first = begin();
    eventually("it is asked for", || server.asked().len() == 1);
    // All the others find it under way, whenever they come to it.
    let others = [begin(), begin()];
    server.go_on();
    for one in [first].into_iter().chain(others) {
        let done = one.wait_with_output().unwrap();
        assert!(done.status.success(), "{done:?}");
        assert_eq!(done.stdout, b"web\n");
    }
    assert_eq!(server.asked(), [None], "asked for once");
    assert_eq!(sound(&corner), ["web"]);
}

#[test]
fn whoever_is_killed_while_images_come_and_go_leaves_them_whole_or_not_at_all() {
    let corner = Corner::new();
    let body = noise(4 * MIB);
    let mut server = Server::start(body.clone(), true);
    server.go_on();
    let manifest = offer(corner.path(), "web", &server.url, &body);
    assert!(pull(&corner, &manifest).output().unwrap().status.success());
    let works: [&[&str]; 3] = [
        &["image", "clone", "web", "copy"],
        &["image", "pull", "--force", "--manifest-path", &manifest],
        &["image", "rm", "copy"],
    ];
    let begin = |work: &[&str]| {
        let mut work = smartvm(&corner, work);
        work.stdout(Stdio::null()).stderr(Stdio::null());
        work.spawn().unwrap()
    };
    // How long each takes when nobody ends it.
    let whole = works.map(|work| {
        let start = Instant::now();
        assert!(begin(work).wait().unwrap().success(), "{work:?}");
        start.elapsed()
    });
    let mut interrupted = 0;
    for round in 0..24_u32 {
        let which = (round % 3) as usize;
        let mut child = begin(works[which]);
        // Not a wait for anything: another moment in each round.
        std::thread::sleep(whole[which] * (round / 3 + 1) / 9);
        child.kill().unwrap();
        interrupted += usize::from(child.wait().unwrap().code().is_none());
        let names = sound(&corner);
        assert!(
            names.contains(&"web".to_owned()),
            "round {round}: {names:?}"
        );
    }
    assert!(interrupted > 5, "only {interrupted} were");
    corner.command().args(["image", "prune"]).assert().success();
    assert_eq!((in_the_making(&corner), sound(&corner).len()), (0, 0));
}

#[test]
fn a_disk_that_fills_up_half_way_leaves_the_store_as_it_was() {
    let corner = Corner::new();
    let body = noise(8 * MIB);
    // Without a length nobody can refuse it beforehand.
    let mut server = Server::start(body.clone(), false);
    server.go_on();
    let manifest = offer(corner.path(), "web", &server.url, &body);
    let layer = corner.file("layer");
    std::fs::create_dir(&layer).unwrap();
    std::fs::write(layer.join("file"), &body).unwrap();
    std::fs::create_dir(corner.file("data")).unwrap();
    // A small file system where nobody else sees it; what is printed tells how it went.
    let script = r#"
        set -u
        mount -t tmpfs -o size=6m tmpfs "$DATA"
        "$SMARTVM" --json image pull --manifest-path "$MANIFEST" > "$OUT/1" 2>&1; echo "pull $?"
        "$SMARTVM" --json image build --kernel "$TINY" --rootfs "$LAYER" --agent /bin/busybox \
            --output built > "$OUT/2" 2>&1; echo "build $?"
        "$SMARTVM" --json image ls
        echo "left $(find "$DATA/base-images" -name '.new-*' | wc -l)"
        echo "kept $(find "$DATA" -size +256k | wc -l)"
        mount -o remount,size=64m "$DATA"
        "$SMARTVM" image pull --manifest-path "$MANIFEST"
        "$SMARTVM" image verify web
    "#;
    let ran = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .env("DATA", corner.file("data"))
        .env("SMARTVM", SMARTVM)
        .env("MANIFEST", &manifest)
        .env("OUT", corner.path())
        .env("TINY", corner.file("tiny"))
        .env("LAYER", &layer)
        .env("SMARTVM_DATA_DIR", corner.file("data"))
        .env("SMARTVM_RUNTIME_DIR", corner.file("run"))
        .env_remove("SMARTVM_CONFIG")
        .output()
        .unwrap();
    let told = String::from_utf8(ran.stdout).unwrap();
    let expected = "pull 5\nbuild 5\n[]\nleft 0\nkept 0\nweb\nweb: as its manifest says\n";
    let said = |name: &str| std::fs::read_to_string(corner.file(name)).unwrap();
    assert_eq!(told, expected, "{}{}", said("1"), said("2"));
    for name in ["1", "2"] {
        let said = said(name);
        let error: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        let hint = error["error"]["hint"].as_str().unwrap();
        assert!(hint.contains("free some"), "{error:#}");
        assert!(!hint.contains("network"), "{error:#}");
    }
}

#[test]
fn a_download_has_a_bar_on_a_terminal_a_line_elsewhere_and_events_as_json() {
    let corner = Corner::new();
    let body = noise(4 * MIB);
    let offered = |id: &str| {
        let server = Server::start(body.clone(), true);
        let manifest = offer(corner.path(), id, &server.url, &body);
        (server, manifest)
    };
    // A terminal.
    let (mut server, manifest) = offered("bar");
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap();
    let name = name.to_str().unwrap();
    let terminal = std::fs::File::options()
        .read(true)
        .write(true)
        .open(name)
        .unwrap();
    let size = rustix::termios::Winsize {
        ws_row: 24,
        ws_col: 100,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&terminal, size).unwrap();
    let mut command = pull(&corner, &manifest);
    command
        .env("TERM", "xterm")
        .stdout(Stdio::piped())
        .stderr(OwnedFd::from(terminal));
    let mut child = command.spawn().unwrap();
    drop(command);
    let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
    let kept = Arc::clone(&seen);
    let mut screen = std::fs::File::from(screen);
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // A terminal that nobody holds any more is an error to read.
        while let Ok(read @ 1..) = screen.read(&mut buffer) {
            kept.lock().unwrap().extend(&buffer[..read]);
        }
    });
    let shows = |what: &str| String::from_utf8_lossy(&seen.lock().unwrap()).contains(what);
    eventually("a bar shows how much there is of what", || {
        shows("/4.00 MiB") && shows("root.img")
    });
    assert!(!shows("downloading"));
    server.go_on();
    assert!(child.wait().unwrap().success());
    reader.join().unwrap();
    // The bar goes, and the result is on standard output alone.
    assert!(!shows("bar\r"));
    let mut result = String::new();
    child.stdout.unwrap().read_to_string(&mut result).unwrap();
    assert_eq!(result, "bar\n");

    // No terminal.
    let (mut server, manifest) = offered("line");
    server.go_on();
    let done = pull(&corner, &manifest).output().unwrap();
    let line = format!("downloading {}\n", server.url);
    assert_eq!(String::from_utf8(done.stderr).unwrap(), line);

    // JSON. (A third image would drive out the first, with a warning.)
    corner.command().args(["image", "prune"]).assert().success();
    let (mut server, manifest) = offered("json");
    server.go_on();
    let done = pull(&corner, &manifest).arg("--json").output().unwrap();
    let told = String::from_utf8(done.stderr).unwrap();
    let events: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |event: &Value| event["progress"]["event"].as_str().unwrap().to_owned();
    let (first, last) = (events.first().unwrap(), events.last().unwrap());
    assert_eq!(
        (of(first), of(last)),
        ("began".to_owned(), "done".to_owned())
    );
    assert_eq!(first["progress"]["total"], 4 * MIB);
    let result: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(result["bundleId"], "json");
}
