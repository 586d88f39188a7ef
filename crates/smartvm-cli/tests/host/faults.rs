//! Whatever fails or dies, wherever it does: the host is as before.

use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use smartvm::orchestrator::Finding;
use smartvm::rundir::RunDir;
use smartvm::spec::{
    FirewallAction, FirewallConfig, FirewallEgress, FirewallRule, MicroVmSpec, NetworkInterface,
};
use smartvm::vm::{StartOptions, StopMode, Watch};
use smartvm::{ErrorKind, SmartVm};

use crate::network::Namespace;
use crate::support::{Corner, becomes};

/// What a test's owner process is to do, in its environment.
const CORNER: &str = "SMARTVM_TEST_CORNER";
const DIE_AT: &str = "SMARTVM_TEST_DIE_AT";
const WITH_KEEPER: &str = "SMARTVM_TEST_WITH_KEEPER";
const JAILED: &str = "SMARTVM_TEST_JAILED";

/// The largest plan there is: with a jail, or with an interface of the network and rules of its
/// own.
fn spec(corner: &Corner, jailed: bool) -> MicroVmSpec {
    if jailed {
        return corner.large_jailed();
    }
    let mut spec = corner.large();
    spec.network_interfaces = vec![NetworkInterface::builder().iface_id("net0").build()];
    let deny = FirewallRule::builder().action(FirewallAction::Deny);
    let own = FirewallEgress::builder().rules([deny.to("10.0.0.0/8").build()]);
    spec.firewall = Some(FirewallConfig::builder().egress(own.build()).build());
    spec
}

/// A corner of the host, in a network namespace of its own.
struct Place {
    corner: Corner,
    namespace: Namespace,
}

impl Place {
    fn enter() -> Self {
        Self {
            namespace: Namespace::enter(),
            corner: Corner::new(),
        }
    }

    /// What outside tools see of both.
    fn picture(&self) -> Vec<String> {
        let mut picture = self.corner.picture();
        // The network's directory stays: who it is, and its lock.
        picture.retain(|line| !line.contains("/run/.network"));
        picture.extend(self.namespace.picture());
        picture
    }

    fn becomes(&self, before: &[String], when: &str) {
        becomes(|| self.picture(), before, when);
    }
}

fn watch(
    at: impl Fn(usize) -> ControlFlow<()> + Send + Sync + 'static,
) -> (Watch, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    (
        Arc::new(move |_: &_| at(count.fetch_add(1, Ordering::SeqCst))),
        seen,
    )
}

/// How many moments the start of the largest plan has, at each of which something may fail.
async fn moments(smartvm: &SmartVm, corner: &Corner, jailed: bool) -> usize {
    let (watch, seen) = watch(|_| ControlFlow::Continue(()));
    let mut vm = smartvm.create(&spec(corner, jailed)).await.unwrap();
    vm.start(&StartOptions::default().watch(watch))
        .await
        .unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
    let moments = seen.load(Ordering::SeqCst);
    assert!(moments > 40, "the largest plan has only {moments} moments");
    moments
}

#[tokio::test]
async fn a_start_that_fails_at_any_moment_leaves_the_host_as_before() {
    fail_at_any_moment(false).await;
}

#[tokio::test]
async fn jailed_a_start_that_fails_at_any_moment_leaves_the_host_as_before() {
    fail_at_any_moment(true).await;
}

async fn fail_at_any_moment(jailed: bool) {
    let place = Place::enter();
    let corner = &place.corner;
    let smartvm = corner.smartvm();
    let before = place.picture();
    let moments = moments(&smartvm, corner, jailed).await;
    place.becomes(&before, "after a whole life");
    for moment in 0..moments {
        let (watch, _) = watch(move |now| match now == moment {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        let mut vm = smartvm.create(&spec(corner, jailed)).await.unwrap();
        let failure = vm
            .start(&StartOptions::default().watch(watch))
            .await
            .unwrap_err();
        assert_eq!(
            failure.kind(),
            ErrorKind::Cancelled,
            "moment {moment}: {failure:?}"
        );
        assert!(failure.cleanup().is_empty(), "moment {moment}: {failure:?}");
        assert_eq!(
            place.picture(),
            before,
            "moment {moment}: not all is given back on return"
        );
    }
}

#[tokio::test]
async fn dropping_a_start_at_any_moment_leaves_the_host_as_before() {
    drop_at_any_moment(false).await;
}

#[tokio::test]
async fn jailed_dropping_a_start_at_any_moment_leaves_the_host_as_before() {
    drop_at_any_moment(true).await;
}

async fn drop_at_any_moment(jailed: bool) {
    let place = Place::enter();
    let corner = &place.corner;
    let smartvm = corner.smartvm();
    let before = place.picture();
    let moments = moments(&smartvm, corner, jailed).await;
    for moment in (0..moments).step_by(3) {
        let reached = Arc::new(tokio::sync::Notify::new());
        let tell = Arc::clone(&reached);
        let (watch, _) = watch(move |now| {
            if now == moment {
                tell.notify_one();
            }
            ControlFlow::Continue(())
        });
        let mut vm = smartvm.create(&spec(corner, jailed)).await.unwrap();
        let options = StartOptions::default().watch(watch);
        tokio::select! {
            biased;
            () = reached.notified() => {}
            started = vm.start(&options) => started.unwrap(),
        }
        drop(vm);
        place.becomes(&before, &format!("dropped at moment {moment}"));
    }
}

/// Not a test by itself: the owner process of the tests below, which dies at its moment.
#[tokio::test]
async fn owner_process() {
    let (Some(root), Ok(die_at)) = (std::env::var_os(CORNER), std::env::var(DIE_AT)) else {
        return;
    };
    let die_at: usize = die_at.parse().unwrap();
    let with_keeper = std::env::var_os(WITH_KEEPER).is_some();
    let jailed = std::env::var_os(JAILED).is_some();
    let corner = Corner::at(root.into());
    let run_dir = corner.file("run/large");
    let (watch, _) = watch(move |now| {
        if now == die_at {
            if with_keeper {
                let keeper = RunDir::at(&run_dir)
                    .unwrap()
                    .state()
                    .unwrap()
                    .keeper
                    .unwrap();
                let keeper = keeper.open().unwrap().unwrap();
                keeper.signal(Signal::KILL).unwrap();
                assert!(keeper.wait(Duration::from_secs(10)).unwrap());
            }
            rustix::process::kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
        }
        ControlFlow::Continue(())
    });
    let smartvm = corner.smartvm();
    let mut vm = smartvm.create(&spec(&corner, jailed)).await.unwrap();
    vm.start(&StartOptions::default().watch(watch))
        .await
        .unwrap();
    panic!("moment {die_at} never came");
}

/// Runs an owner process that is killed at that moment.
fn die_at(corner: &Corner, moment: usize, with_keeper: bool, jailed: bool) {
    let mut owner = Command::new(std::env::current_exe().unwrap());
    owner
        .args(["--exact", "faults::owner_process", "--nocapture"])
        .env(CORNER, corner.path())
        .env(DIE_AT, moment.to_string())
        .stdout(Stdio::null());
    for (wanted, variable) in [(with_keeper, WITH_KEEPER), (jailed, JAILED)] {
        if wanted {
            owner.env(variable, "1");
        }
    }
    let status = owner.status().unwrap();
    assert_eq!(
        status.signal(),
        Some(9),
        "moment {moment}: the owner was not killed: {status}"
    );
}

#[tokio::test]
async fn when_the_owner_is_killed_at_any_moment_the_keeper_cleans_up_by_itself() {
    kill_owner_at_any_moment(false).await;
}

#[tokio::test]
async fn jailed_when_the_owner_is_killed_at_any_moment_the_keeper_cleans_up_by_itself() {
    kill_owner_at_any_moment(true).await;
}

async fn kill_owner_at_any_moment(jailed: bool) {
    let place = Place::enter();
    let corner = &place.corner;
    let smartvm = corner.smartvm();
    let before = place.picture();
    for moment in 0..moments(&smartvm, corner, jailed).await {
        die_at(corner, moment, false, jailed);
        place.becomes(&before, &format!("owner killed at moment {moment}"));
    }
}

#[tokio::test]
async fn when_owner_and_keeper_are_killed_at_any_moment_gc_finds_and_removes_everything() {
    kill_both_at_any_moment(false).await;
}

#[tokio::test]
async fn jailed_when_owner_and_keeper_are_killed_at_any_moment_gc_finds_and_removes_everything() {
    kill_both_at_any_moment(true).await;
}

async fn kill_both_at_any_moment(jailed: bool) {
    let place = Place::enter();
    let corner = &place.corner;
    let smartvm = corner.smartvm();
    let before = place.picture();
    for moment in 0..moments(&smartvm, corner, jailed).await {
        die_at(corner, moment, true, jailed);
        let would = smartvm.gc(true).unwrap();
        assert_eq!(would.len(), 1, "moment {moment}: {would:?}");
        let done = smartvm.gc(false).unwrap();
        assert!(
            matches!(done.as_slice(), [one] if matches!(one.finding, Finding::GivenBack { .. })),
            "moment {moment}: {done:?}"
        );
        place.becomes(
            &before,
            &format!("owner and keeper killed at moment {moment}"),
        );
        assert_eq!(smartvm.gc(false).unwrap(), []);
    }
}

/// An `nft` that kills who runs it at its call of this number, before or after its work.
fn deadly_nft(dir: &std::path::Path, call: usize, after: bool) {
    let count = dir.join("calls");
    std::fs::write(&count, "").unwrap();
    let script = format!(
        "#!/bin/sh\necho >>{count}\n[ $(wc -l <{count}) = {call} ] || exec /usr/sbin/nft \"$@\"\n\
         {work}kill -9 $PPID\n",
        count = count.display(),
        work = if after { "/usr/sbin/nft \"$@\"\n" } else { "" },
    );
    let path = dir.join("nft");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn when_the_networks_maker_is_killed_at_any_call_gc_leaves_the_host_as_before() {
    let place = Place::enter();
    let tools = tempfile::tempdir().unwrap();
    let path = format!("{}:{}", tools.path().display(), env!("PATH"));
    let before = place.picture();
    let mut killed = 0;
    for call in 1.. {
        let mut died = false;
        for after in [false, true] {
            deadly_nft(tools.path(), call, after);
            let mut up = place.corner.command();
            let up = up
                .args(["network", "up"])
                .env("PATH", &path)
                .output()
                .unwrap();
            died = up.status.signal() == Some(9);
            let smartvm = place.corner.smartvm();
            if died {
                smartvm.gc(false).unwrap();
            }
            let when = format!("killed at nft's call {call}, {after}");
            // Killed at its very end, it is up for good.
            if smartvm.network().status().unwrap().kept {
                smartvm.network().down().unwrap();
            }
            place.becomes(&before, &when);
        }
        if !died {
            break;
        }
        killed += 1;
    }
    assert!(killed >= 3, "only {killed} calls");
}
