//! Devices changed at run time, and bad wishes refused, with the tiny guest.

use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::{Value, json};
use smartvm::ErrorKind;
use smartvm::firecracker::Client;
use smartvm::firecracker::client::Request;
use smartvm::rundir::State;
use smartvm::spec::{Balloon, RateLimiter, TokenBucket};
use smartvm::vm::{Change, StartOptions, StopMode};

use crate::lifecycle::until;
use crate::support::Corner;

fn limits(size: u64) -> RateLimiter {
    let bucket = TokenBucket::builder().size(size).refill_time(1000).build();
    RateLimiter::builder().bandwidth(bucket).build()
}

#[tokio::test]
async fn drives_are_swapped_grown_and_limited_and_all_of_it_is_given_back() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    std::fs::write(corner.file("logs/new.img"), vec![9; 128 << 10]).unwrap();
    let mut vm = smartvm.create(&corner.large()).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let drive = |drive_id: &str, config: &Value| -> Value {
        let drives = config["drives"].as_array().unwrap();
        let found = drives.iter().find(|drive| drive["drive_id"] == drive_id);
        found.unwrap().clone()
    };
    for drive_id in ["copied", "linked"] {
        let old = vm.run_dir().file(&vm.state().unwrap().paths.drives[0]);
        vm.update(Change::SwapDrive {
            drive_id: drive_id.into(),
            path_on_host: corner.file("logs/new.img"),
        })
        .await
        .unwrap();
        assert!(
            drive_id == "linked" || old.symlink_metadata().is_err(),
            "the old one is given back"
        );
    }
    let config: Value = vm.client().ask(&Request::get("/vm/config")).await.unwrap();
    let state = vm.state().unwrap();
    for (index, drive_id) in ["copied", "linked"].into_iter().enumerate() {
        let path = &state.paths.drives[index];
        assert_eq!(drive(drive_id, &config)["path_on_host"], **path);
        let content = std::fs::read(vm.run_dir().file(path)).unwrap();
        assert_eq!(content, vec![9; 128 << 10]);
        assert_eq!(
            state.spec.drives[index].path_on_host,
            Some(corner.file("logs/new.img"))
        );
    }
    let grow = |size_bytes| Change::GrowDrive {
        drive_id: "copied".into(),
        size_bytes,
    };
    vm.update(grow(1 << 20)).await.unwrap();
    let copy = vm.run_dir().file(&state.paths.drives[0]);
    assert_eq!(copy.metadata().unwrap().len(), 1 << 20);
    assert_eq!(
        corner.file("logs/new.img").metadata().unwrap().len(),
        128 << 10
    );
    let smaller = vm.update(grow(4096)).await.unwrap_err();
    assert_eq!(smaller.kind(), ErrorKind::Invalid, "{smaller:?}");
    for wanted in [Some(limits(5000)), None] {
        vm.update(Change::LimitDrive {
            drive_id: "copied".into(),
            limits: wanted.clone(),
        })
        .await
        .unwrap();
        let config: Value = vm.client().ask(&Request::get("/vm/config")).await.unwrap();
        let found = &drive("copied", &config)["rate_limiter"]["bandwidth"]["size"];
        assert_eq!(found.as_u64(), wanted.as_ref().map(|_| 5000));
        assert_eq!(vm.state().unwrap().spec.drives[0].rate_limiter, wanted);
    }
    let staged = std::fs::read_dir(corner.file("staging/smartvm-large")).unwrap();
    assert_eq!(staged.count(), 2, "one copy and its owner file");
    vm.stop(StopMode::Kill).await.unwrap();
    assert_eq!(corner.picture(), before);
}

#[tokio::test]
async fn what_others_change_between_pausing_and_resuming_is_kept() {
    for corner in [Corner::new(), Corner::in_memory()] {
        let smartvm = corner.smartvm();
        let mut spec = corner.large();
        // As one with an initramfs might have an agent, which is asked for.
        spec.boot_source.initrd_path = None;
        let mut vm = smartvm.create(&spec).await.unwrap();
        vm.start(&StartOptions::default()).await.unwrap();
        let other = smartvm.get(vm.id()).unwrap();
        let limit = |size| Change::LimitDrive {
            drive_id: "copied".into(),
            limits: Some(limits(size)),
        };
        for size in [5000, 6000] {
            vm.pause().await.unwrap();
            other.update(limit(size)).await.unwrap();
            vm.resume().await.unwrap();
            let state = vm.state().unwrap();
            assert_eq!(state.state, State::Running);
            assert_eq!(state.spec.drives[0].rate_limiter, Some(limits(size)));
        }
        let timeline = vm.run_dir().timeline().unwrap();
        let states: Vec<_> = timeline.iter().map(|moment| moment.state).collect();
        let [.., a, b, c, d] = states[..] else {
            panic!("{states:?}")
        };
        let (paused, running) = (State::Paused, State::Running);
        assert_eq!([a, b, c, d], [paused, running, paused, running]);
        vm.stop(StopMode::Kill).await.unwrap();
    }
}

#[tokio::test]
async fn the_connection_that_is_kept_for_the_next_operation_is_closed_when_none_comes() {
    let corner = Corner::in_memory();
    let mut vm = corner.smartvm().create(&corner.small()).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    // Firecracker's ends of its connections are in here.
    let descriptors = format!("/proc/{}/fd", vm.state().unwrap().vmm.unwrap().pid);
    let open = || std::fs::read_dir(&descriptors).unwrap().count();
    vm.pause().await.unwrap();
    let kept = open();
    vm.resume().await.unwrap();
    assert_eq!(open(), kept, "it is the same connection");
    until("the connection's end", || open() < kept).await;
    vm.pause().await.unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
}

#[tokio::test]
async fn a_wish_that_cannot_be_is_refused_and_changes_nothing() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let mut spec = corner.large();
    spec.balloon = Some(
        Balloon::builder()
            .amount_mib(0)
            .deflate_on_oom(true)
            .build(),
    );
    let mut vm = smartvm.create(&spec).await.unwrap();
    let idle = vm
        .update(Change::Balloon { amount_mib: 1 })
        .await
        .unwrap_err();
    assert_eq!(idle.kind(), ErrorKind::WrongState, "{idle:?}");
    vm.start(&StartOptions::default()).await.unwrap();
    let known = vm.state().unwrap();
    let held = corner.picture();
    let swap = |drive_id: &str, path: &Path| Change::SwapDrive {
        drive_id: drive_id.into(),
        path_on_host: path.to_owned(),
    };
    let none = RateLimiter::default();
    let table = [
        (
            swap("nobody", &corner.file("root.img")),
            ErrorKind::NotFound,
            "copied, linked",
        ),
        (
            swap("copied", &corner.file("missing")),
            ErrorKind::NotFound,
            "",
        ),
        (swap("copied", corner.path()), ErrorKind::Invalid, ""),
        (
            Change::RefreshDrive {
                drive_id: "x".into(),
            },
            ErrorKind::NotFound,
            "",
        ),
        (
            Change::LimitInterface {
                iface_id: "eth0".into(),
                direction: smartvm::vm::Direction::Rx,
                limits: None,
            },
            ErrorKind::NotFound,
            "it has none",
        ),
        (
            Change::LimitDrive {
                drive_id: "copied".into(),
                limits: Some(none),
            },
            ErrorKind::Invalid,
            "",
        ),
        (
            Change::LimitDrive {
                drive_id: "copied".into(),
                limits: Some(limits(0)),
            },
            ErrorKind::Invalid,
            "",
        ),
        (Change::Balloon { amount_mib: 128 }, ErrorKind::Invalid, ""),
        (
            Change::Balloon {
                amount_mib: 1 << 40,
            },
            ErrorKind::Invalid,
            "",
        ),
        (
            Change::BalloonStatistics { interval_s: 1 },
            ErrorKind::Invalid,
            "",
        ),
    ];
    for (change, kind, hint) in table {
        let refused = vm.update(change.clone()).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{change:?}: {refused:?}");
        assert!(
            refused.way_out().unwrap_or_default().contains(hint),
            "{refused:?}"
        );
    }
    for data in [json!([1]), json!({"a": "x".repeat(51_200)})] {
        let refused = vm.set_metadata(&data).await.unwrap_err();
        assert_eq!(
            refused.kind(),
            ErrorKind::WrongState,
            "it has no service: {refused:?}"
        );
    }
    assert_eq!(vm.state().unwrap(), known);
    assert_eq!(corner.picture(), held);
    vm.stop(StopMode::Kill).await.unwrap();
    assert_eq!(corner.picture(), before);
}

#[tokio::test]
async fn figures_tell_of_the_process_and_of_firecracker() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    // Of an earlier life: longer than what Firecracker 1.12 writes over its beginning.
    std::fs::write(corner.file("logs/metrics"), "{\"old\":1}\n".repeat(20_000)).unwrap();
    let mut vm = smartvm.create(&corner.large()).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let stats = vm.stats().await.unwrap();
    assert_eq!(stats.vmm.pid, vm.state().unwrap().vmm.unwrap().pid);
    assert!(
        stats.vmm.resident_bytes > 1 << 20 && stats.vmm.threads >= 3,
        "{stats:?}"
    );
    let metrics = stats.metrics.unwrap();
    assert!(metrics["utc_timestamp_ms"].is_u64(), "{metrics}");
    assert_eq!(stats.balloon, None);
    vm.stop(StopMode::Kill).await.unwrap();
    assert!(corner.file("logs/metrics").exists());
}

#[tokio::test]
async fn a_user_s_fifo_without_a_reader_never_holds_the_vm_up() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    for name in ["logs/vmm.log", "logs/metrics", "logs/console"] {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, corner.file(name), mode).unwrap();
    }
    let mut spec = corner.large();
    spec.serial = Some(
        smartvm::spec::Serial::builder()
            .path(corner.file("logs/console"))
            .build(),
    );
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    // Far more than a pipe holds.
    for _ in 0..40 {
        // Firecracker says that it could not write; it may, and goes on.
        let _full = vm.stats().await;
    }
    vm.pause().await.unwrap();
    vm.resume().await.unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
    assert!(corner.file("logs/metrics").exists());
}

#[tokio::test]
async fn a_firecracker_that_answers_garbage_or_nothing_is_told_as_that() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let garbage = std::thread::spawn(move || {
        for answer in [
            "\0\u{7f}garbage\r\n\r\n",
            "HTTP/1.1 200\r\nContent-Length: 3\r\n\r\n{]}",
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _some = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
        listener
    });
    for _ in 0..2 {
        let error = Client::new(&path).version().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Vmm, "{error:?}");
    }
    // It listens, and never answers.
    let _listener = garbage.join().unwrap();
    let patience = std::time::Duration::from_millis(50);
    let question = Request::get("/version");
    let error = Client::new(&path)
        .send_within(&question, patience)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
}
