//! The network, in a private network namespace with a made-up router.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use smartvm::snapshot::{Place, RestoreOptions, SnapshotOptions};
use smartvm::spec::{
    FirewallAction, FirewallConfig, FirewallEgress, FirewallRule, Jail, JailMode, MicroVmSpec,
    NetworkInterface, SmartVmOptions, SnapshotCreateParams, SnapshotLoadParams,
};
use smartvm::vm::{StartOptions, StopMode};
use smartvm::{ErrorKind, Parts, SmartVm};

use crate::lab::{move_in, pause_network_keeper};
use crate::support::{Corner, SMARTVM};

/// A thread's own network namespace, with an uplink that leads to a router in another one.
/// Everything that the test's thread starts is in it. It goes with its last process.
pub(crate) struct Namespace;

impl Namespace {
    pub(crate) fn enter() -> Self {
        move_in(rustix::thread::UnshareFlags::NEWNET);
        run("ip", &["link", "set", "lo", "up"]);
        run(
            "ip",
            &[
                "link", "add", "up0", "type", "veth", "peer", "name", "router",
            ],
        );
        // Their addresses' probing would change the picture by itself.
        for device in ["up0", "router"] {
            let setting = format!("net.ipv6.conf.{device}.disable_ipv6=1");
            run("sysctl", &["-qw", &setting]);
        }
        run("ip", &["link", "set", "up0", "up"]);
        run("ip", &["link", "set", "router", "up"]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while run("ip", &["-o", "link"]).matches("state UP").count() < 2 {
            assert!(Instant::now() < deadline, "the uplink never comes up");
            std::thread::sleep(Duration::from_millis(5));
        }
        run("ip", &["address", "add", "192.0.2.2/24", "dev", "up0"]);
        run("ip", &["route", "add", "default", "via", "192.0.2.1"]);
        Self
    }

    /// The namespace as outside tools see it.
    pub(crate) fn picture(&self) -> Vec<String> {
        let mut picture = vec![
            run("ip", &["-o", "link"]),
            run("ip", &["-j", "address"]),
            run("ip", &["-j", "route", "show", "table", "all"]),
            run("ip", &["-j", "rule"]),
            run("nft", &["list", "ruleset"]),
        ];
        let settings = run("sysctl", &["-a", "--pattern", "forwarding|disable_ipv6"]);
        let stays = |line: &&str| !line.contains("stat_refresh");
        picture.extend(settings.lines().filter(stays).map(Into::into));
        picture
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

fn open(options: SmartVmOptions) -> SmartVm {
    let mut parts = Parts::default();
    parts.keeper = Some(PathBuf::from(SMARTVM));
    parts.assume_kvm = true;
    SmartVm::open(options, parts).unwrap()
}

fn connected(corner: &Corner, id: &str) -> MicroVmSpec {
    let mut spec = corner.small();
    spec.id = Some(id.to_owned());
    spec.network_interfaces = vec![NetworkInterface::builder().iface_id("net0").build()];
    spec
}

#[tokio::test]
async fn vms_share_the_network_and_the_last_one_leaves_the_host_as_before() {
    let namespace = Namespace::enter();
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = namespace.picture();

    let mut vms = Vec::new();
    for id in ["one", "two"] {
        let mut vm = smartvm.create(&connected(&corner, id)).await.unwrap();
        vm.start(&StartOptions::default()).await.unwrap();
        vms.push(vm);
    }
    let status = smartvm.network().status().unwrap();
    assert!(
        status.up && !status.kept && status.drift.is_empty(),
        "{status:?}"
    );
    assert_eq!(status.nat_interface.as_deref(), Some("up0"));
    let addresses: Vec<String> = status.leases.iter().map(|one| one.ip.to_string()).collect();
    assert_eq!(addresses, ["172.30.0.2", "172.30.0.3"]);
    for lease in &status.leases {
        let shown = run("ip", &["-d", "link", "show", lease.tap.as_str()]);
        for part in [
            "master svbr0",
            "isolated on",
            "persist on",
            "state UP",
            "alias smartvm ",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        // Off the bridge it takes nothing in.
        let setting = |name: &str| {
            let name = format!("net.ipv4.conf.{}.{name}", lease.tap);
            run("sysctl", &["-n", &name])
        };
        assert_eq!(setting("rp_filter"), "1\n");
        assert_eq!(setting("forwarding"), "0\n");
    }
    let bridge = run("ip", &["address", "show", "svbr0"]);
    assert!(
        bridge.contains("inet 172.30.0.1/24") && !bridge.contains("inet6"),
        "{bridge}"
    );
    let rules = run("nft", &["list", "ruleset"]);
    assert!(rules.contains("masquerade"), "{rules}");
    assert_eq!(
        run("sysctl", &["-n", "net.ipv4.conf.up0.forwarding"]),
        "1\n"
    );
    assert_eq!(run("sysctl", &["-n", "net.ipv4.ip_forward"]), "0\n");

    vms.remove(0).stop(StopMode::Kill).await.unwrap();
    let status = smartvm.network().status().unwrap();
    assert!(status.up && status.leases.len() == 1, "{status:?}");
    vms.remove(0).stop(StopMode::Kill).await.unwrap();
    assert_eq!(namespace.picture(), before);
    assert!(smartvm.network().status().unwrap().leases.is_empty());
}

#[test]
fn network_up_keeps_it_mends_it_and_down_takes_it_away() {
    let namespace = Namespace::enter();
    let corner = Corner::new();
    let before = namespace.picture();
    let network = |verb: &str| {
        let done = corner.command().args(["network", verb]).assert().success();
        String::from_utf8(done.get_output().stdout.clone()).unwrap()
    };
    network("up");
    let whole = namespace.picture();
    network("up");
    assert_eq!(namespace.picture(), whole, "a second time changes nothing");
    let status = network("status");
    assert!(status.contains("allow what is left: 0 packets"), "{status}");
    // It would mend by itself what is broken here.
    pause_network_keeper(&corner.file("run"));

    run("nft", &["flush", "ruleset"]);
    run("ip", &["address", "flush", "dev", "svbr0"]);
    let status = network("status");
    assert!(status.contains("nftables table is gone"), "{status}");
    assert!(status.contains("lost the gateway's address"), "{status}");
    network("up");
    assert!(!network("status").contains("WARN"), "{}", network("status"));
    run(
        "nft",
        &["flush", "chain", "inet", "smartvm_svbr0", "from_guests"],
    );
    let status = network("status");
    assert!(status.contains("somebody changed the rules"), "{status}");
    network("up");
    let rules = run("nft", &["list", "ruleset"]);
    assert!(rules.contains("spoofed"), "{rules}");
    run("ip", &["link", "delete", "svbr0"]);
    assert!(network("status").contains("the bridge svbr0 is gone"));
    network("up");
    assert!(!network("status").contains("WARN"));
    network("down");
    assert_eq!(namespace.picture(), before);
    network("down");
}

#[tokio::test]
async fn what_others_do_to_running_guests_is_told_and_mended() {
    let namespace = Namespace::enter();
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = namespace.picture();
    let mut spec = connected(&corner, "one");
    spec.network_interfaces[0].guest_mac = Some("06:aa:00:00:00:01".into());
    let deny = FirewallRule::builder()
        .action(FirewallAction::Deny)
        .to("10.0.0.0/8")
        .build();
    let own = FirewallEgress::builder().rules([deny]).build();
    spec.firewall = Some(FirewallConfig::builder().egress(own).build());
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let network = smartvm.network();
    let tap = network.status().unwrap().leases[0].tap.to_string();
    pause_network_keeper(&corner.file("run"));
    let drift = || network.status().unwrap().drift.join("; ");
    assert_eq!(drift(), "");
    // In whatever order they were made.
    let rules = || {
        let listed = run("nft", &["-s", "list", "ruleset"]);
        let mut lines: Vec<String> = listed.lines().map(Into::into).collect();
        lines.sort();
        lines
    };
    let whole = rules();

    type Harm<'a> = (&'a [&'a str], &'a str);
    let harms: [Harm<'_>; 5] = [
        (
            &["ip", "link", "set", &tap, "nomaster"],
            "isn't on the bridge",
        ),
        (&["ip", "link", "set", &tap, "down"], "is down"),
        (
            &[
                "ip",
                "link",
                "set",
                &tap,
                "type",
                "bridge_slave",
                "isolated",
                "off",
            ],
            "has lost its isolation",
        ),
        (
            &["nft", "flush", "set", "bridge", "smartvm_svbr0", "taps"],
            "the firewall doesn't know",
        ),
        (&["nft", "flush", "ruleset"], "nftables table is gone"),
    ];
    for (words, told) in harms {
        run(words[0], &words[1..]);
        assert!(drift().contains(told), "{told}: {}", drift());
        network.up().unwrap();
        assert_eq!(drift(), "", "{told}");
        assert_eq!(rules(), whole, "{told}");
    }
    // The guest's own address and its own rules are in the tables made anew.
    for part in ["06:aa:00:00:00:01", "vm_172_30_0_2_0_address"] {
        let there = whole.iter().any(|line| line.contains(part));
        assert!(there, "{part}: {whole:#?}");
    }
    network.down().unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
    assert_eq!(namespace.picture(), before);
}

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
    let smartvm = |dir: &Path| {
        let mut command = Command::new(SMARTVM);
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
    let said = refused(smartvm(corner.path()).env("PATH", corner.path()));
    assert!(said.contains("nft is too old: nftables v0.8.3"), "{said}");
    assert!(said.contains("0.9 or newer"), "{said}");
    // Somebody without rights.
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    let said = refused(smartvm(dir.path()).uid(65534).gid(65534));
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

#[test]
fn chains_of_others_that_drop_are_named_with_the_command_that_admits_the_bridge() {
    let _namespace = Namespace::enter();
    let corner = Corner::new();
    run("nft", &["add", "table", "ip", "theirs"]);
    let chain = "{ type filter hook forward priority 0; policy drop; }";
    run("nft", &["add", "chain", "ip", "theirs", "through", chain]);
    let up = corner.command().args(["network", "up"]).assert().success();
    let said = String::from_utf8(up.get_output().stderr.clone()).unwrap();
    let admit = "nft insert rule ip theirs through iifname svbr0 accept";
    assert!(
        said.contains("theirs (ip theirs through)") && said.contains(admit),
        "{said}"
    );
    for command in said
        .split("admits them: ")
        .nth(1)
        .unwrap()
        .trim()
        .split("; ")
    {
        let words: Vec<&str> = command.split_whitespace().collect();
        run(words[0], &words[1..]);
    }
    let up = corner.command().args(["network", "up"]).assert().success();
    assert_eq!(String::from_utf8_lossy(&up.get_output().stderr), "");
    corner
        .command()
        .args(["network", "down"])
        .assert()
        .success();
}

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
