//! What a jailed VM uses of the user's: drives, and sockets of vhost-user drives.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use smartvm::ErrorKind;
use smartvm::firecracker::client::Request;
use smartvm::spec::Drive;
use smartvm::vm::{Change, StartOptions, StopMode};

use super::{large, owner_and_mode};
use crate::support::Corner;

#[tokio::test]
async fn a_file_that_the_jailed_user_may_not_write_is_refused_and_not_changed() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let mut spec = corner.large_jailed();
    spec.drives[0].ephemeral = Some(false);
    let image = corner.file("root.img");
    let was = owner_and_mode(&image);
    let mut vm = smartvm.create(&spec).await.unwrap();
    let refused = vm.start(&StartOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Host, "{refused:?}");
    assert!(
        refused.to_string().contains("may not read and write"),
        "{refused}"
    );
    assert_eq!(owner_and_mode(&image), was);
    assert_eq!(corner.picture(), before);
    // Where others may, it is bound: no copy, and no change.
    std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o666)).unwrap();
    let was = owner_and_mode(&image);
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let pid = vm.state().unwrap().vmm.unwrap().pid;
    let seen = format!("/proc/{pid}/root/drives/copied-root.img");
    assert_eq!(
        std::fs::metadata(seen).unwrap().ino(),
        image.metadata().unwrap().ino()
    );
    vm.stop(StopMode::Kill).await.unwrap();
    assert_eq!(owner_and_mode(&image), was);
    corner.becomes(&before, "after a bound drive");
}

#[tokio::test]
async fn a_backends_socket_is_connected_to_as_it_is_or_refused_and_never_changed() {
    use std::io::Read;
    let corner = Corner::new();
    let socket = corner.file("backend.sock");
    let backend = UnixListener::bind(&socket).unwrap();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let mut spec = corner.large_jailed();
    spec.drives[0] = Drive::builder()
        .drive_id("behind")
        .socket(&socket)
        .is_root_device(false)
        .build();
    let was = |mode: u32| {
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(mode)).unwrap();
        owner_and_mode(&socket)
    };
    // Only root may connect.
    let closed = was(0o600);
    let mut vm = smartvm.create(&spec).await.unwrap();
    let refused = vm.start(&StartOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Host, "{refused:?}");
    let told = refused.to_string();
    assert!(told.contains("may not connect to"), "{told}");
    assert!(told.contains(socket.to_str().unwrap()), "{told}");
    let way_out = refused.way_out().unwrap_or_default();
    assert!(
        way_out.contains("chmod o+rw") && !way_out.contains("copy"),
        "{way_out}"
    );
    assert_eq!(owner_and_mode(&socket), closed);
    corner.becomes(&before, "after the refusal");
    // Everybody may: the backend is spoken to, and ends before it has answered.
    let open = was(0o666);
    let spoken_to = std::thread::spawn(move || {
        let (mut connection, _) = backend.accept().unwrap();
        let mut header = [0; 12];
        connection.read_exact(&mut header).unwrap();
        header
    });
    let mut vm = smartvm.create(&spec).await.unwrap();
    let failed = vm.start(&StartOptions::default()).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Vmm, "{failed:?}");
    let told = failed.to_string();
    assert!(told.contains("behind"), "{told}");
    // Flags and length: a request of version 1 without a payload.
    assert_eq!(spoken_to.join().unwrap()[4..], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(owner_and_mode(&socket), open);
    let without = |picture: Vec<String>| -> Vec<_> {
        let listens = |line: &String| line.starts_with("socket ") && line.ends_with("backend.sock");
        picture.into_iter().filter(|it| !listens(it)).collect()
    };
    crate::support::becomes(|| without(corner.picture()), &without(before), "at the end");
}

#[tokio::test]
async fn a_drives_file_is_exchanged_and_grows_in_the_jail() {
    let corner = Corner::new();
    let before = corner.picture();
    let mut vm = large(&corner).await;
    for name in ["new-one.img", "new-two.img"] {
        std::fs::write(corner.file(name), vec![8; 32 << 10]).unwrap();
    }
    let swap = |drive: &str, image: &str| Change::SwapDrive {
        drive_id: drive.into(),
        path_on_host: corner.file(image),
    };
    for image in ["new-one.img", "new-two.img"] {
        vm.update(swap("copied", image)).await.unwrap();
        vm.update(swap("linked", image)).await.unwrap();
    }
    let state = vm.state().unwrap();
    let root = format!("/proc/{}/root", state.vmm.as_ref().unwrap().pid);
    let seen = |index: usize| Path::new(&root).join(&state.paths.drives[index]);
    for index in 0..2 {
        assert_eq!(std::fs::read(seen(index)).unwrap(), vec![8; 32 << 10]);
    }
    let told: serde_json::Value = vm.client().ask(&Request::get("/vm/config")).await.unwrap();
    assert_eq!(told["drives"][0]["path_on_host"], state.paths.drives[0]);
    let inode = |path: &Path| path.metadata().unwrap().ino();
    assert_eq!(inode(&seen(1)), inode(&corner.file("new-two.img")), "bound");
    let drives = corner.file("jail/firecracker/large/root/drives");
    assert_eq!(
        std::fs::read_dir(drives).unwrap().count(),
        2,
        "the old ones are gone"
    );
    vm.update(Change::GrowDrive {
        drive_id: "copied".into(),
        size_bytes: 64 << 10,
    })
    .await
    .unwrap();
    assert_eq!(seen(0).metadata().unwrap().len(), 64 << 10);
    assert_eq!(
        corner.file("new-two.img").metadata().unwrap().len(),
        32 << 10
    );
    vm.stop(StopMode::Kill).await.unwrap();
    for name in ["new-one.img", "new-two.img"] {
        std::fs::remove_file(corner.file(name)).unwrap();
    }
    corner.becomes(&before, "after the jail");
}
