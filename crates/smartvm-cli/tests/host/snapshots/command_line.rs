//! `smartvm snapshot`.

use std::time::Duration;

use smartvm::rundir::State;
use smartvm::snapshot::Manifest;
use smartvm::vm::StopMode;

use super::refusals::rewrite;
use super::{large, place};
use crate::support::Corner;

#[tokio::test]
async fn the_command_line_makes_lists_restores_and_removes_snapshots() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut vm = large(&smartvm, &corner).await;
    let run = |args: &[&str]| {
        let mut command = corner.command();
        command
            .arg("snapshot")
            .args(args)
            .timeout(Duration::from_secs(60));
        command.assert()
    };
    run(&["create", "large", "base", "--no-agent"])
        .success()
        .stdout("base\n");
    run(&["create", "large", "base", "--no-agent"]).code(4);
    run(&["create", "large", "x y"]).code(2);
    run(&["restore", "none"]).code(3);
    run(&["restore", "base", "--assume-kvm"]).code(4);
    vm.stop(StopMode::Kill).await.unwrap();
    run(&[
        "restore",
        "base",
        "--assume-kvm",
        "--paused",
        "--id",
        "back",
        "--label",
        "a=b",
    ])
    .success()
    .stdout("back\n");
    let back = smartvm.get(&"back".parse().unwrap()).unwrap();
    let state = back.state().unwrap();
    assert_eq!(
        (state.state, state.spec.labels["a"].as_str()),
        (State::Paused, "b")
    );
    let listed = run(&["ls"]).success();
    let listed = String::from_utf8(listed.get_output().stdout.clone()).unwrap();
    assert!(
        listed.contains("base") && listed.contains("back"),
        "{listed}"
    );
    run(&["rm", "base"]).code(4);
    corner
        .command()
        .args(["rm", "--force", "back"])
        .assert()
        .success();
    let told = run(&["inspect", "base"]).success();
    let told: Vec<Manifest> = serde_json::from_slice(&told.get_output().stdout).unwrap();
    assert_eq!(told[0].drives.len(), 2);
    let base = place(&corner, "base");
    let manifest = base.dir().join("manifest.json");
    let whole = std::fs::read(&manifest).unwrap();
    let restore = ["restore", "base", "--assume-kvm", "--id", "x"];
    rewrite(&base, |it| {
        it["snapshot"]["origin"]["kernel"] = "2.6.32".into()
    });
    run(&restore).code(5);
    std::fs::write(&manifest, "{}").unwrap();
    run(&restore).code(1);
    std::fs::write(&manifest, whole).unwrap();
    run(&["rm", "base"]).success();
    assert!(!corner.file("data/snapshots/base").exists());
}
