//! Bad input: a clear error with the right kind, and nothing left behind.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use smartvm::orchestrator::Finding;
use smartvm::rundir::file;
use smartvm::spec::{BootSource, MicroVmSpec};
use smartvm::vm::{StartOptions, StopMode};
use smartvm::{Error, ErrorKind, SmartVm};

use crate::support::{Corner, SmallDisk};
use crate::template::{REFUSAL, Template};

/// The failure of creating and starting, whichever comes first.
async fn failure(smartvm: &SmartVm, spec: &MicroVmSpec) -> Error {
    match smartvm.create(spec).await {
        Err(e) => e,
        Ok(mut vm) => vm
            .start(&StartOptions::default())
            .await
            .expect_err("it started"),
    }
}

fn booting(corner: &Corner, kernel: &str) -> MicroVmSpec {
    let mut spec = corner.large();
    spec.boot_source = BootSource::builder()
        .kernel_image_path(corner.file(kernel))
        .build();
    spec
}

#[tokio::test]
async fn a_kernel_that_is_missing_or_none_is_named() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    std::fs::write(corner.file("text"), "not a kernel").unwrap();
    let whole = std::fs::read(corner.file("tiny")).unwrap();
    std::fs::write(corner.file("cut"), &whole[..100]).unwrap();
    let before = corner.picture();
    for (kernel, words) in [("missing", "missing"), ("text", "text"), ("cut", "cut")] {
        let error = failure(&smartvm, &booting(&corner, kernel)).await;
        assert!(error.to_string().contains(words), "{kernel}: {error}");
        assert_eq!(corner.picture(), before, "{kernel}");
    }
}

#[tokio::test]
async fn what_only_firecracker_refuses_is_told_in_its_words_and_leaves_nothing() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let mut spec = corner.large();
    // Its segments lie beyond the guest's memory: only Firecracker's loader can tell.
    let mut kernel = std::fs::read(corner.file("tiny")).unwrap();
    kernel[64 + 16..64 + 32].copy_from_slice(&[0x7f; 16]);
    std::fs::write(corner.file("tiny"), kernel).unwrap();
    spec.id = Some("refused".into());
    let error = failure(&smartvm, &spec).await;
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(error.cleanup().is_empty(), "{error:?}");
    assert_eq!(corner.picture(), before);
}

#[tokio::test]
async fn an_id_in_use_is_refused_and_its_holder_untouched() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut first = smartvm.create(&corner.large()).await.unwrap();
    first.start(&StartOptions::default()).await.unwrap();
    let mut second = corner.small();
    second.id = Some("large".into());
    let error = failure(&smartvm, &second).await;
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error:?}");
    assert!(
        error.way_out().unwrap().contains("rm --force large"),
        "{error:?}"
    );
    first.pause().await.unwrap();
    first.stop(StopMode::Kill).await.unwrap();
}

#[tokio::test]
async fn a_socket_left_over_or_in_use_is_refused_and_stays() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let path = corner.file("sockets/v.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let in_use = failure(&smartvm, &corner.large()).await;
    assert!(in_use.to_string().contains("v.sock"), "{in_use}");
    drop(listener);
    let stale = failure(&smartvm, &corner.large()).await;
    assert!(stale.to_string().contains("v.sock"), "{stale}");
    assert!(path.exists(), "it isn't ours to remove");
}

#[tokio::test]
async fn a_state_file_of_a_newer_version_or_a_corrupt_one_stops_only_its_own_vm() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut vms = Vec::new();
    for (id, content) in [
        ("newer", "{\"format\":9999}"),
        ("corrupt", "{\"format\":1,"),
        ("sound", ""),
    ] {
        let mut spec = corner.small();
        spec.id = Some(id.into());
        let vm = smartvm.create(&spec).await.unwrap();
        if !content.is_empty() {
            std::fs::write(vm.run_dir().file(file::STATE), content).unwrap();
        }
        vms.push(vm);
    }
    let listed = smartvm.list().unwrap();
    let kinds: Vec<_> = listed
        .iter()
        .map(|(_, state)| state.as_ref().err().map(Error::kind))
        .collect();
    assert_eq!(
        kinds,
        [Some(ErrorKind::Corrupt), Some(ErrorKind::Corrupt), None]
    );
    let found = smartvm.gc(false).unwrap();
    let names: Vec<_> = found.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(names, ["corrupt", "newer"]);
    assert!(
        found
            .iter()
            .all(|one| matches!(one.finding, Finding::Failed { .. })),
        "{found:?}"
    );
    vms[2].start(&StartOptions::default()).await.unwrap();
    vms[2].stop(StopMode::Kill).await.unwrap();
}

#[tokio::test]
async fn a_runtime_directory_that_is_a_link_or_anothers_is_refused() {
    let corner = Corner::new();
    std::fs::create_dir(corner.file("real")).unwrap();
    std::os::unix::fs::symlink(corner.file("real"), corner.file("run")).unwrap();
    let mut parts = smartvm::Parts::default();
    parts.keeper = Some(crate::support::SMARTVM.into());
    let open = |parts: &smartvm::Parts| SmartVm::open(corner.options(), parts.clone());
    assert!(open(&parts).unwrap_err().to_string().contains("run"));
    std::fs::remove_file(corner.file("run")).unwrap();
    std::fs::create_dir(corner.file("run")).unwrap();
    std::os::unix::fs::chown(corner.file("run"), Some(65534), None).unwrap();
    let error = open(&parts).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Host);
    assert!(error.to_string().contains("65534"), "{error}");
}

#[tokio::test]
async fn a_run_dir_of_another_user_is_refused() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let path = corner.file("run/theirs");
    std::fs::create_dir(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    let error = smartvm.get(&"theirs".parse().unwrap()).unwrap_err();
    assert!(
        error.to_string().contains("belongs to user 65534"),
        "{error}"
    );
    let found = smartvm.gc(false).unwrap();
    assert!(
        matches!(found[0].finding, Finding::Failed { .. }),
        "{found:?}"
    );
    assert!(path.exists());
}

#[tokio::test]
async fn staging_on_a_full_disk_is_refused_with_the_figures_and_leaves_nothing() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    // A small tmpfs of the test's own stands for the full disk.
    let small = SmallDisk::mount(corner.file("staging"), "64k");
    std::fs::write(corner.file("root.img"), vec![1; 1 << 20]).unwrap();
    let before = corner.picture();
    let error = failure(&smartvm, &corner.large()).await;
    let after = corner.picture();
    drop(small);
    assert_eq!(error.kind(), ErrorKind::Host, "{error:?}");
    assert!(error.to_string().contains("1.0 MiB"), "{error}");
    assert_eq!(after, before);
}

/// Writes a program of this name.
fn program(corner: &Corner, name: &str, script: &str) -> PathBuf {
    let path = corner.file(name);
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_keeper_or_firecracker_that_is_none_is_refused_and_leaves_nothing() {
    let corner = Corner::new();
    let before = corner.picture();
    let smartvm = corner.smartvm();
    let impostor = program(&corner, "impostor", "#!/bin/true\n");
    let mut parts = smartvm::Parts::default();
    parts.keeper = Some(impostor.clone());
    parts.assume_kvm = true;
    let with_impostor = SmartVm::open(corner.options(), parts).unwrap();
    let error = failure(&with_impostor, &corner.large()).await;
    assert!(error.to_string().contains("keeper"), "{error}");
    let mut options = corner.options();
    options.firecracker_binary_path = Some(impostor.clone());
    let mut parts = smartvm::Parts::default();
    parts.keeper = Some(crate::support::SMARTVM.into());
    let error = failure(&SmartVm::open(options, parts).unwrap(), &corner.large()).await;
    assert_eq!(error.kind(), ErrorKind::Host, "{error:?}");
    std::fs::remove_file(impostor).unwrap();
    assert_eq!(corner.picture(), before);
    drop(smartvm);
}

#[tokio::test]
async fn a_firecracker_of_another_version_than_was_planned_for_is_refused_before_it_is_told_anything()
 {
    let corner = Corner::new();
    let before = corner.picture();
    // As if its executable were replaced between the plan and the start.
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec echo Firecracker v1.13.0\nexec {} \"$@\"\n",
        crate::support::firecracker().display()
    );
    let liar = program(&corner, "firecracker", &script);
    let mut options = corner.options();
    options.firecracker_binary_path = Some(liar.clone());
    let error = failure(&corner.smartvm_with(options), &corner.large()).await;
    std::fs::remove_file(liar).unwrap();
    assert_eq!(error.kind(), ErrorKind::Host, "{error:?}");
    assert!(
        error.to_string().contains("where 1.13.0 was planned for"),
        "{error}"
    );
    assert!(error.cleanup().is_empty(), "{error:?}");
    assert_eq!(corner.picture(), before);
}

#[tokio::test]
async fn a_firecracker_whose_connection_breaks_before_it_ends_is_told_with_its_last_words() {
    let corner = Corner::new();
    let before = corner.picture();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec {} --version\nexec perl -e '{}' -- \"$@\"\n",
        crate::support::firecracker().display(),
        "use IO::Socket::UNIX; my %is = @ARGV; \
         my $api = IO::Socket::UNIX->new(Local => $is{\"--api-sock\"}, Listen => 1) or die; \
         close $api->accept; select undef, undef, undef, 0.5; \
         print STDERR \"no more threads\\n\"; exit 148;"
    );
    let dying = program(&corner, "firecracker", &script);
    let mut options = corner.options();
    options.firecracker_binary_path = Some(dying.clone());
    let error = failure(&corner.smartvm_with(options), &corner.small()).await;
    std::fs::remove_file(dying).unwrap();
    assert_eq!(error.kind(), ErrorKind::Vmm, "{error:?}");
    assert!(error.to_string().contains("no more threads"), "{error}");
    assert!(error.cleanup().is_empty(), "{error:?}");
    assert_eq!(corner.picture(), before);
}

/// Which templates this processor could have, and one of another maker.
fn templates() -> (&'static str, &'static str) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    match cpu.contains("AuthenticAMD") {
        true => ("T2A, None", "T2"),
        false => ("C3, T2, T2S, T2CL, None", "T2A"),
    }
}

#[tokio::test]
async fn a_cpu_template_for_another_makers_processor_is_refused_before_anything_starts() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let (allowed, foreign) = templates();
    let mut spec = corner.small();
    spec.machine_config.cpu_template = Some(foreign.into());
    let plan = smartvm.plan(&spec).unwrap();
    let asked = plan
        .requests
        .iter()
        .find(|it| it.path() == "/machine-config");
    let body: serde_json::Value = serde_json::from_slice(asked.unwrap().body()).unwrap();
    assert_eq!(body["cpu_template"], foreign);
    let error = failure(&smartvm, &spec).await;
    assert_eq!(error.kind(), ErrorKind::Host);
    let expected = format!(
        "1 problem: this host can't run the spec: machineConfig.cpuTemplate: {foreign} is for \
         processors of another maker than this host's (allowed: {allowed})"
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(corner.picture(), before);
    let file = corner.spec_file(&spec);
    let mut run = corner.command();
    run.args(["run", "--assume-kvm", "--detach", "-f"])
        .arg(file);
    run.assert().code(5);
}

#[tokio::test]
async fn a_cpu_template_for_other_models_of_the_maker_is_refused_and_leaves_nothing() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let template = Template::of_this_host();
    let mut spec = corner.small();
    spec.machine_config.cpu_template = Some(template.name.into());
    let mut vm = smartvm.create(&spec).await.unwrap();
    match vm.start(&StartOptions::default()).await {
        Ok(()) => {
            assert!(template.fits, "{} went unnoticed", template.name);
            vm.stop(StopMode::Kill).await.unwrap();
        }
        Err(refused) => {
            assert!(!template.fits, "{refused}");
            assert_eq!(refused.kind(), ErrorKind::Vmm);
            assert!(refused.to_string().contains(REFUSAL), "{refused}");
        }
    }
    assert_eq!(corner.picture(), before);
}

#[tokio::test]
async fn huge_pages_beyond_the_pool_are_refused_with_the_figures() {
    let corner = Corner::new();
    let before = corner.picture();
    let mut spec = corner.small();
    // More than any machine that runs tests sets aside.
    spec.machine_config.mem_size_mib = 1 << 24;
    spec.machine_config.huge_pages = Some(smartvm::spec::HugePages::TwoMib);
    let error = failure(&corner.smartvm(), &spec).await;
    assert_eq!(error.kind(), ErrorKind::Host);
    let told = error.to_string();
    let expected = "machineConfig.hugePages: needs 8388608 huge pages of 2 MiB, and ";
    assert!(
        told.contains(expected) && told.contains("vm.nr_hugepages"),
        "{told}"
    );
    assert_eq!(corner.picture(), before);
}
