//! Other programs on the host: what they drop, what they need, what is theirs.

use rustix::thread::UnshareFlags;

use super::{Namespace, connected, run};
use crate::lab::move_in;
use crate::support::Corner;

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

#[test]
fn forwarding_stays_on_where_another_program_came_to_need_it() {
    let namespace = Namespace::enter();
    let corner = Corner::new();
    let before = namespace.picture();
    let network = |verb: &str| {
        corner.command().args(["network", verb]).assert().success();
    };
    let forwarding = |of: &str| run("sysctl", &["-n", &format!("net.ipv4.conf.{of}.forwarding")]);
    network("up");
    assert_eq!(forwarding("up0"), "1\n");
    // As Docker does.
    run("sysctl", &["-qw", "net.ipv4.ip_forward=1"]);
    network("down");
    assert_eq!(forwarding("up0"), "1\n", "by the host's own switch");
    run("sysctl", &["-qw", "net.ipv4.ip_forward=0"]);
    assert_eq!(namespace.picture(), before);

    // Somebody's own interface, beside ours.
    network("up");
    run("sysctl", &["-qw", "net.ipv4.conf.router.forwarding=1"]);
    network("down");
    assert_eq!(forwarding("up0"), "1\n", "by another interface");
    for device in ["router", "up0"] {
        let setting = format!("net.ipv4.conf.{device}.forwarding=0");
        run("sysctl", &["-qw", &setting]);
    }
    assert_eq!(namespace.picture(), before);

    // It forwarded before.
    run("sysctl", &["-qw", "net.ipv4.conf.up0.forwarding=1"]);
    network("up");
    network("down");
    assert_eq!(forwarding("up0"), "1\n", "it was so");
}

/// What is mounted there shows the devices of whoever mounted it.
fn show_its_devices_in_sys() {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    move_in(UnshareFlags::NEWNS | UnshareFlags::FS);
    let alone = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", alone).unwrap();
    mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).unwrap();
}

#[test]
fn a_tap_of_the_users_stays_as_it_was_and_needs_no_network() {
    let namespace = Namespace::enter();
    show_its_devices_in_sys();
    let corner = Corner::new();
    let tap = ["tuntap", "add", "theirs0", "mode", "tap", "vnet_hdr"];
    run("ip", &tap);
    run("sysctl", &["-qw", "net.ipv6.conf.theirs0.disable_ipv6=1"]);
    let address = ["address", "add", "198.51.100.1/24", "dev", "theirs0"];
    run("ip", &address);
    let before = namespace.picture();
    let start = |tap: &str| {
        let mut spec = connected(&corner, "one");
        spec.network_interfaces[0].host_dev_name = Some(tap.into());
        let file = corner.spec_file(&spec);
        let words = ["run", "--assume-kvm", "--detach", "-f"];
        corner.command().args(words).arg(file).assert()
    };
    start("theirs0").success();
    let status = corner.command().args(["network", "status"]).assert();
    let status = String::from_utf8_lossy(&status.get_output().stdout).into_owned();
    assert!(status.contains("0 leased"), "{status}");
    assert!(!run("ip", &["link"]).contains("svbr0"));
    corner
        .command()
        .args(["rm", "--force", "one"])
        .assert()
        .success();
    assert_eq!(namespace.picture(), before);
    let missing = start("nobodys0").code(3);
    let said = String::from_utf8_lossy(&missing.get_output().stderr).into_owned();
    assert!(said.contains("no network interface \"nobodys0\""), "{said}");
    assert_eq!(namespace.picture(), before);
}
