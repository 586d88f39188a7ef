//! Files to and from the guest.

use std::os::unix::fs::PermissionsExt;

use tokio::io::AsyncWriteExt;

use super::*;
use crate::ErrorKind;
use crate::agent::{ErrorCode, refusal};

fn mode(path: &std::path::Path) -> u32 {
    let metadata = std::fs::metadata(path).expect("a file");
    metadata.permissions().mode() & 0o7777
}

/// The names in the directory, but for the socket.
fn names(guest: &FakeGuest) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(guest.directory.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name != "vsock.sock")
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_file_and_its_mode_arrive_and_come_back() {
    let guest = FakeGuest::new();
    let content = noise(3 << 20);
    let path = guest.path("file");
    let agent = guest.agent();
    let written = agent.write_file(&path, Some(0o750), &content[..]).await;
    written.expect("written");
    assert!(std::fs::read(&path).expect("a file") == content);
    assert_eq!(mode(&path), 0o750);

    let mut back = Vec::new();
    let info = agent.read_file(&path, &mut back).await.expect("read");
    assert!(back == content);
    assert_eq!((info.size, info.mode), (3 << 20, 0o750));
}

#[tokio::test]
async fn without_a_mode_the_old_one_stays_and_a_new_file_gets_0644() {
    let guest = FakeGuest::new();
    let agent = guest.agent();
    let path = guest.path("file");
    agent.write_file(&path, None, &b"1"[..]).await.expect("new");
    assert_eq!(mode(&path), 0o644);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("changed");
    agent
        .write_file(&path, None, &b""[..])
        .await
        .expect("replaced");
    assert_eq!(
        (mode(&path), std::fs::read(&path).expect("a file")),
        (0o600, vec![])
    );
}

#[tokio::test]
async fn a_link_stays_and_its_target_is_replaced() {
    let guest = FakeGuest::new();
    std::fs::write(guest.path("target"), "old").expect("a file");
    std::os::unix::fs::symlink("target", guest.path("link")).expect("a link");
    let written = guest
        .agent()
        .write_file(guest.path("link"), None, &b"new"[..])
        .await;
    written.expect("written");
    assert_eq!(std::fs::read(guest.path("target")).expect("a file"), b"new");
    assert!(guest.path("link").is_symlink());
}

#[tokio::test]
async fn a_transfer_cut_off_leaves_the_old_file_and_nothing_else() {
    let guest = FakeGuest::new();
    let path = guest.path("file");
    std::fs::write(&path, "old").expect("a file");
    let (reader, mut writer) = tokio::io::duplex(1024);
    let agent = guest.agent();
    let transfer = agent.write_file(&path, None, reader);
    let fill = async {
        writer.write_all(&[7; 100_000]).await.expect("taken");
        // Until the agent has begun its own, temporary file.
        while names(&guest).len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        result = transfer => panic!("it can't have ended: {result:?}"),
        () = fill => {}
    }
    let end = Instant::now() + Duration::from_secs(60);
    while names(&guest) != ["file"] {
        assert!(Instant::now() < end, "left behind: {:?}", names(&guest));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(std::fs::read(&path).expect("a file"), b"old");
}

#[tokio::test]
async fn what_can_not_be_read_is_told_as_such() {
    let guest = FakeGuest::new();
    let fifo = guest.path("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).expect("a fifo");
    let table = [
        (
            guest.path("missing"),
            ErrorKind::NotFound,
            ErrorCode::FileNotFound,
        ),
        (guest.path(""), ErrorKind::Guest, ErrorCode::NotAFile),
        (
            guest.path("vsock.sock"),
            ErrorKind::Guest,
            ErrorCode::NotAFile,
        ),
        (fifo, ErrorKind::Guest, ErrorCode::NotAFile),
        ("relative".into(), ErrorKind::Guest, ErrorCode::BadRequest),
    ];
    for (path, kind, code) in table {
        let error = guest.agent().read_file(&path, tokio::io::sink()).await;
        let error = error.expect_err("refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(refusal(&error).map(|refusal| refusal.code), Some(code));
    }
}

#[tokio::test]
async fn what_can_not_be_written_is_told_however_much_is_sent() {
    let guest = FakeGuest::new();
    let content = noise(2 << 20);
    let table = [
        (guest.path("no/such/file"), ErrorCode::NoSuchDirectory),
        (guest.path(""), ErrorCode::NotAFile),
        ("/".into(), ErrorCode::NotAFile),
        ("relative".into(), ErrorCode::BadRequest),
    ];
    for (path, code) in table {
        let error = guest.agent().write_file(&path, None, &content[..]).await;
        let error = error.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Guest, "{error}");
        assert_eq!(
            refusal(&error).map(|refusal| refusal.code),
            Some(code),
            "{error}"
        );
    }
    assert_eq!(names(&guest), Vec::<String>::new());
}

#[tokio::test]
async fn files_of_proc_are_read_although_they_have_no_size() {
    let guest = FakeGuest::new();
    let mut back = Vec::new();
    let read = guest.agent().read_file("/proc/version", &mut back).await;
    let info = read.expect("read");
    assert!(back.starts_with(b"Linux") && info.size == back.len() as u64);
}
