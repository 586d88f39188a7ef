//! Addresses of restored VMs.

use smartvm::ErrorKind;
use smartvm::snapshot::{Place, RestoreOptions, SnapshotOptions};
use smartvm::spec::{Jail, JailMode, SnapshotCreateParams, SnapshotLoadParams};
use smartvm::vm::{StartOptions, StopMode};

use super::{Namespace, connected, run};
use crate::support::Corner;

#[tokio::test]
async fn a_jailed_vms_tap_is_its_users_and_after_a_restore_it_has_its_address_again() {
    let namespace = Namespace::enter();
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = namespace.picture();
    let mut spec = connected(&corner, "one");
    spec.jail = Some(Jail::builder().mode(JailMode::Required).build());
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let state = vm.state().unwrap();
    let lease = state.leases[0].clone();
    let tap = run("ip", &["-d", "link", "show", lease.tap.as_str()]);
    let pid = state.vmm.as_ref().unwrap().pid;
    use std::os::unix::fs::MetadataExt;
    let uid = std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    assert!(tap.contains(&format!("user {uid} ")), "{tap}");

    let place = Place::in_directory(&corner.file("snapshot")).unwrap();
    let making = SnapshotCreateParams::builder()
        .snapshot_path(place.state())
        .mem_file_path(place.memory())
        .build();
    let quick = SnapshotOptions::default().agent(false);
    let snapshot = vm.snapshot(&making, &quick).await.unwrap();
    assert_eq!(snapshot.manifest().leases, state.leases);
    let loading = SnapshotLoadParams::builder()
        .snapshot_path(place.state())
        .mem_file_path(place.memory())
        .resume_vm(true)
        .build();
    // While the first has the address, only an agent could give the guest another.
    let mut options = RestoreOptions::default();
    options.id = Some("two".parse().unwrap());
    let refused = smartvm.restore(&loading, &options).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WrongState, "{refused}");
    assert!(refused.to_string().contains("172.30.0.2"), "{refused}");
    assert!(refused.way_out().unwrap().contains("--tap"));
    assert_eq!(smartvm.network().status().unwrap().leases.len(), 1);
    vm.stop(StopMode::Kill).await.unwrap();
    let mut two = smartvm.restore(&loading, &options).await.unwrap();
    let again = two.state().unwrap();
    assert!(again.jailed());
    assert_eq!(
        (again.leases[0].ip, again.leases[0].mac),
        (lease.ip, lease.mac)
    );
    two.pause().await.unwrap();
    two.stop(StopMode::Kill).await.unwrap();
    assert_eq!(namespace.picture(), before);
}
