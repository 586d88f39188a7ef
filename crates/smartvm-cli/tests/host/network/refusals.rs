//! What is refused before anything is changed.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use smartvm::ErrorKind;
use smartvm::spec::SmartVmOptions;
use smartvm::vm::StopMode;

use super::{Namespace, connected, open, run};
use crate::support::{Corner, SMARTVM, copy_program};

#[test]
fn callers_with_other_options_are_refused_before_any_change() {
    let namespace = Namespace::enter();
    let corner = Corner::new();
    open(corner.options()).network().up().unwrap();
    let whole = namespace.picture();
    let other = |change: &dyn Fn(&mut SmartVmOptions)| {
        let mut options = corner.options();
        change(&mut options);
        let refused = open(options).network().up().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WrongState, "{refused}");
        assert_eq!(namespace.picture(), whole, "{refused}");
        refused.to_string()
    };
    let bridge = other(&|it| it.bridge_name = Some("other0".into()));
    assert!(bridge.contains("the bridge svbr0"), "{bridge}");
    let subnet = other(&|it| it.subnet = Some("10.77.0.0/24".into()));
    assert!(subnet.contains("the subnet 172.30.0.0/24"), "{subnet}");
    let data = other(&|it| it.data_dir = Some(corner.file("elsewhere")));
    assert!(data.contains("the data directory"), "{data}");
    let runtime = other(&|it| it.runtime_dir = Some(corner.file("run2")));
    assert!(
        runtime.contains("svbr0 already") && runtime.contains("smartvm "),
        "{runtime}"
    );
    open(corner.options()).network().down().unwrap();
}

#[test]
fn what_is_in_the_way_is_named_and_nothing_is_left_behind() {
    let namespace = Namespace::enter();
    let corner = Corner::new();
    let refused = |subnet: &str| {
        let before = namespace.picture();
        let mut options = corner.options();
        options.subnet = Some(subnet.into());
        let refused = open(options).network().up().unwrap_err();
        assert_eq!(namespace.picture(), before, "{refused}");
        refused
    };
    let overlap = refused("192.0.2.128/25").to_string();
    assert!(overlap.contains("192.0.2.0/24 by up0"), "{overlap}");

    run("ip", &["link", "add", "svbr0", "type", "bridge"]);
    let taken = refused("172.30.0.0/24");
    assert_eq!(taken.kind(), ErrorKind::WrongState);
    assert!(
        taken.to_string().contains("smartvm didn't make it"),
        "{taken}"
    );
    run("ip", &["link", "delete", "svbr0"]);

    run("ip", &["route", "delete", "default"]);
    let nowhere = refused("172.30.0.0/24");
    assert_eq!(nowhere.kind(), ErrorKind::Host);
    assert!(
        nowhere.to_string().contains("no default route"),
        "{nowhere}"
    );
    run("ip", &["route", "add", "default", "via", "192.0.2.1"]);

    let without_nft = corner
        .command()
        .args(["network", "up"])
        .env("PATH", "")
        .assert();
    let without_nft = without_nft.code(5);
    let said = String::from_utf8(without_nft.get_output().stderr.clone()).unwrap();
    assert!(said.contains("install nftables"), "{said}");
}

#[test]
fn a_host_that_is_not_fit_is_refused_and_nothing_is_left_behind() {
    let namespace = Namespace::enter();
    let corner = Corner::new();
    let before = namespace.picture();
    let refused = |command: &mut Command| {
        let out = command.args(["network", "up"]).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(5), "{said}");
        assert_eq!(namespace.picture(), before, "{said}");
        said
    };
    let smartvm = |program: &Path, dir: &Path| {
        let mut command = Command::new(program);
        command
            .env("SMARTVM_DATA_DIR", dir.join("data"))
            .env("SMARTVM_RUNTIME_DIR", dir.join("run"))
            .env_remove("SMARTVM_CONFIG");
        command
    };
    // An nft of long ago.
    let nft = corner.file("nft");
    std::fs::write(&nft, "#!/bin/sh\necho 'nftables v0.8.3 (Ogre)'\n").unwrap();
    std::fs::set_permissions(&nft, std::fs::Permissions::from_mode(0o755)).unwrap();
    let said = refused(smartvm(Path::new(SMARTVM), corner.path()).env("PATH", corner.path()));
    assert!(said.contains("nft is too old: nftables v0.8.3"), "{said}");
    assert!(said.contains("0.9 or newer"), "{said}");
    // Somebody without rights, who may not look into where it was built either.
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("smartvm");
    copy_program(SMARTVM, &program);
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    let said = refused(smartvm(&program, dir.path()).uid(65534).gid(65534));
    assert!(said.contains("root's rights"), "{said}");
}

#[tokio::test]
async fn an_exhausted_subnet_is_a_clear_error_and_a_removed_vm_makes_room() {
    let _namespace = Namespace::enter();
    let corner = Corner::new();
    let mut options = corner.options();
    options.subnet = Some("10.66.0.0/30".into());
    let smartvm = open(options);
    let mut first = smartvm.create(&connected(&corner, "first")).await.unwrap();
    let full = smartvm
        .create(&connected(&corner, "second"))
        .await
        .unwrap_err();
    assert!(
        full.to_string()
            .contains("no address is free in 10.66.0.0/30"),
        "{full}"
    );
    assert!(full.cleanup().is_empty(), "{full:?}");
    first.stop(StopMode::Kill).await.unwrap();
    let mut second = smartvm.create(&connected(&corner, "second")).await.unwrap();
    second.stop(StopMode::Kill).await.unwrap();
}
